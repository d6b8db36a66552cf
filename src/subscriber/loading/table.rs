//! One table of a subscriber's file, or one object of a request, read key by key; mistakes are
//! collected with their places.

use std::{cell::RefCell, path::Path};

use crate::{
    settings::{
        Mistake, Place,
        mistakes::{Wrong, nearest},
    },
    subscriber::Origin,
};

use super::value::{Field, Node, Value};

/// A table, and the mistakes found in it so far.
pub(super) struct Table<'d> {
    source: Source<'d>,
    fields: &'d [Field],
    /// Where the table begins.
    start: Place,
    /// What its keys are called with: `http.`, or nothing at the top.
    prefix: &'static str,
    mistakes: RefCell<Vec<Mistake>>,
}

/// Who gives the table.
#[derive(Clone, Copy)]
pub(super) enum Source<'d> {
    /// A file, in TOML.
    File(&'d Path),
    /// A request, in JSON. It names no files and variables of the bridge's machine.
    Request,
}

/// A value, with what is needed to say that it is wrong.
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<'d> Table<'d> {
    pub(super) fn new(
        source: Source<'d>,
        fields: &'d [Field],
        start: Place,
        prefix: &'static str,
    ) -> Self {
        Self {
            source,
            fields,
            start,
            prefix,
            mistakes: RefCell::default(),
        }
    }

    /// Who gives the table.
    pub(super) fn source(&self) -> Source<'d> {
        self.source
    }

    /// Where a subscriber is defined that this table makes.
    pub(super) fn origin(&self) -> Origin {
        match (self.source, &self.start) {
            (Source::File(file), Place::File { line, .. }) => Origin::File {
                file: file.into(),
                line: line.unwrap_or(1),
            },
            _ => Origin::Store { version: 0 },
        }
    }

    /// Every key with its value.
    pub(super) fn fields(&self) -> &'d [Field] {
        self.fields
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn has_mistakes(&self) -> bool {
        !self.mistakes.borrow().is_empty()
    }

    pub(super) fn take_mistakes(&self) -> Vec<Mistake> {
        self.mistakes.take()
    }

    /// Every key that is not among `known` is a mistake.
    pub(super) fn allow_only(&self, known: &[&str]) {
        for Field { name, place, .. } in self.fields {
            if !known.contains(&name.as_str()) {
                let remedy = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("Write `{near}`"),
                    None => format!("Remove it; there are {}", known.join(", ")),
                };
                self.note(
                    name,
                    Wrong::new("is not a known key", remedy),
                    place.clone(),
                );
            }
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<Given<&'d str>> {
        let text = as_text(self.get(key)?);
        if text.is_none() {
            self.wrong(key, Wrong::new("is not a text", "Write it in quotes"));
        }
        text
    }

    /// A list of texts; each element that is none is a mistake, and then there is no list.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<Given<&'d str>>> {
        let Value::List(elements) = &self.get(key)?.value else {
            let remedy = "Write texts in brackets, such as [\"one\", \"two\"]";
            self.wrong(key, Wrong::new("is not a list of texts", remedy));
            return None;
        };
        let as_text = |element: &'d Node| {
            let text = as_text(element);
            if text.is_none() {
                let wrong = Wrong::new("holds something that is no text", "Write it in quotes");
                self.note(key, wrong, element.place.clone());
            }
            text
        };
        let texts: Vec<_> = elements.iter().map(as_text).collect();
        texts.into_iter().collect()
    }

    /// One text, or a list of them.
    pub(super) fn text_or_texts(&self, key: &str) -> Option<Vec<Given<&'d str>>> {
        match &self.get(key)?.value {
            Value::List(_) => self.texts(key),
            _ => self.text(key).map(|text| vec![text]),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        if let Value::Flag(flag) = self.get(key)?.value {
            return Some(flag);
        }
        let wrong = Wrong::new("is neither true nor false", "Write true or false");
        self.wrong(key, wrong);
        None
    }

    /// A whole number of at least 1 and at most `most`.
    pub(super) fn count(&self, key: &str, most: usize) -> Option<usize> {
        let number = match self.get(key)?.value {
            Value::Number(number) => number.unwrap_or(0),
            _ => 0,
        };
        if (1..=most).contains(&number) {
            return Some(number);
        }
        let what = format!("is not a whole number from 1 to {most}");
        self.wrong(key, Wrong::new(what, "Write one, without quotes"));
        None
    }

    /// A table within this one, whose keys are then called with `prefix`. Its mistakes are its own
    /// until [`absorb`](Self::absorb) takes them.
    pub(super) fn table(&self, key: &str, prefix: &'static str) -> Option<Table<'d>> {
        let node = self.get(key)?;
        let Value::Table(fields) = &node.value else {
            let (what, remedy) = match self.source {
                Source::File(_) => (
                    "is not a table",
                    format!("Write [{key}], and its keys on the lines below"),
                ),
                Source::Request => ("is not an object", "Write its keys in braces".to_owned()),
            };
            self.wrong(key, Wrong::new(what, remedy));
            return None;
        };
        Some(Table::new(self.source, fields, node.place.clone(), prefix))
    }

    /// Takes over the mistakes of a table within this one.
    pub(super) fn absorb(&self, table: &Table<'_>) {
        self.mistakes.borrow_mut().extend(table.take_mistakes());
    }

    /// Where the value of `key` stands, or the table if it has no such key.
    pub(super) fn place(&self, key: &str) -> Place {
        match (self.get(key), &self.start) {
            (Some(node), _) => node.place.clone(),
            // What is missing has a name, and so a place.
            (None, Place::Request(pointer)) => Place::Request(format!("{pointer}/{key}")),
            (None, start) => start.clone(),
        }
    }

    /// A mistake in the value of `key`, or in its absence.
    pub(super) fn wrong(&self, key: &str, wrong: Wrong) {
        self.note(key, wrong, self.place(key));
    }

    /// A mistake in a part of the value of `key`.
    pub(super) fn note(&self, key: &str, wrong: Wrong, place: Place) {
        let mistake = wrong.at(&format!("{}{key}", self.prefix), place);
        self.mistakes.borrow_mut().push(mistake);
    }

    /// The value, or a mistake at `place`.
    pub(super) fn accept<T>(&self, key: &str, read: Result<T, Wrong>, place: Place) -> Option<T> {
        read.map_err(|wrong| self.note(key, wrong, place)).ok()
    }

    fn get(&self, key: &str) -> Option<&'d Node> {
        let field = self.fields.iter().find(|field| field.name == key)?;
        Some(&field.node)
    }
}

fn as_text(node: &Node) -> Option<Given<&str>> {
    match &node.value {
        Value::Text(text) => Some(Given {
            value: text,
            place: node.place.clone(),
        }),
        _ => None,
    }
}
