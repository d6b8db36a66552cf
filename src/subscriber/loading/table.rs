//! One table of a subscriber's file, read key by key; mistakes are collected with their lines.

use std::cell::RefCell;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::settings::{
    Mistake, Place,
    document::Document,
    mistakes::{Wrong, nearest},
};

/// A table, and the mistakes found in it so far.
pub(super) struct Table<'d> {
    document: &'d Document<'d>,
    content: &'d DeTable<'d>,
    /// Where the table begins.
    start: usize,
    /// What its keys are called with: `http.`, or nothing at the top.
    prefix: &'static str,
    mistakes: RefCell<Vec<Mistake>>,
}

/// A value, with what is needed to say that it is wrong.
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<'d> Table<'d> {
    pub(super) fn new(
        document: &'d Document<'d>,
        content: &'d DeTable<'d>,
        start: usize,
        prefix: &'static str,
    ) -> Self {
        Self {
            document,
            content,
            start,
            prefix,
            mistakes: RefCell::default(),
        }
    }

    /// The line that the table begins on.
    pub(super) fn line(&self) -> usize {
        self.document.line(self.start)
    }

    /// The file that the table is in.
    pub(super) fn document(&self) -> &'d Document<'d> {
        self.document
    }

    /// Every key and value.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<
        Item = (
            &'d Spanned<std::borrow::Cow<'d, str>>,
            &'d Spanned<DeValue<'d>>,
        ),
    > {
        self.content.iter()
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
        for (key, _) in self.entries() {
            let name = key.get_ref();
            if !known.contains(&&**name) {
                let remedy = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("Write `{near}`"),
                    None => format!("Remove it; there are {}", known.join(", ")),
                };
                let place = self.document.place(key.span().start);
                self.note(name, Wrong::new("is not a known key", remedy), place);
            }
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<Given<&'d str>> {
        let value = self.get(key)?;
        let text = self.as_text(value);
        if text.is_none() {
            self.wrong(key, Wrong::new("is not a text", "Write it in quotes"));
        }
        text
    }

    /// A list of texts; each element that is none is a mistake, and then there is no list.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<Given<&'d str>>> {
        let DeValue::Array(elements) = self.get(key)?.get_ref() else {
            let remedy = "Write texts in brackets, such as [\"one\", \"two\"]";
            self.wrong(key, Wrong::new("is not a list of texts", remedy));
            return None;
        };
        let as_text = |element| {
            let text = self.as_text(element);
            if text.is_none() {
                let place = self.document.place(element.span().start);
                let wrong = Wrong::new("holds something that is no text", "Write it in quotes");
                self.note(key, wrong, place);
            }
            text
        };
        let texts: Vec<_> = elements.iter().map(as_text).collect();
        texts.into_iter().collect()
    }

    /// One text, or a list of them.
    pub(super) fn text_or_texts(&self, key: &str) -> Option<Vec<Given<&'d str>>> {
        match self.get(key)?.get_ref() {
            DeValue::Array(_) => self.texts(key),
            _ => self.text(key).map(|text| vec![text]),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        if let DeValue::Boolean(flag) = self.get(key)?.get_ref() {
            return Some(*flag);
        }
        let wrong = Wrong::new("is neither true nor false", "Write true or false");
        self.wrong(key, wrong);
        None
    }

    /// A whole number of at least 1 and at most `most`.
    pub(super) fn count(&self, key: &str, most: usize) -> Option<usize> {
        let number = match self.get(key)?.get_ref() {
            DeValue::Integer(number) => {
                usize::from_str_radix(number.as_str(), number.radix()).unwrap_or(0)
            }
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
        let value = self.get(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            let remedy = format!("Write [{key}], and its keys on the lines below");
            self.wrong(key, Wrong::new("is not a table", remedy));
            return None;
        };
        Some(Table::new(self.document, table, value.span().start, prefix))
    }

    /// Takes over the mistakes of a table within this one.
    pub(super) fn absorb(&self, table: &Table<'_>) {
        self.mistakes.borrow_mut().extend(table.take_mistakes());
    }

    /// Where the value of `key` stands, or the table if it has no such key.
    pub(super) fn place(&self, key: &str) -> Place {
        let offset = self.get(key).map_or(self.start, |value| value.span().start);
        self.document.place(offset)
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

    fn get(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.content.get(key)
    }

    fn as_text(&self, value: &'d Spanned<DeValue<'d>>) -> Option<Given<&'d str>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Given {
                value: text,
                place: self.document.place(value.span().start),
            }),
            _ => None,
        }
    }
}
