//! The merged values of all keys: reads each as what it must be, and notes every mistake with the
//! place that it was made in. A mistaken value is replaced by its default, so that reading goes on
//! and one pass finds everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use config::{Config, Value, ValueKind};
use secrecy::SecretString;

use super::{
    checks, environment,
    keys::{self, Default},
    mistakes::{Mistake, Place, Wrong},
};

/// The merged values, the places they come from, and what is wrong with them.
pub(super) struct Values<'p> {
    config: Config,
    /// Keys that the file or the environment give; list elements of the file as `key[index]`.
    places: BTreeMap<String, Place>,
    file: &'p Path,
    mistaken: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

/// One table of a list of them: its keys with what is given for each, and where.
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) fields: Vec<(String, ValueKind, Place)>,
}

impl Row {
    /// What is given for this key, and where.
    pub(super) fn get(&self, field: &str) -> Option<(&ValueKind, &Place)> {
        let (_, kind, place) = self.fields.iter().find(|(name, ..)| name == field)?;
        Some((kind, place))
    }
}

/// A secret, and the file that it stands in, if it does in one of its own.
pub(super) struct Secret {
    pub(super) value: SecretString,
    pub(super) file: Option<PathBuf>,
}

impl<'p> Values<'p> {
    /// Values of `config`, given at `places`; whatever else stands in `file`'s directory.
    pub(super) fn new(config: Config, places: BTreeMap<String, Place>, file: &'p Path) -> Self {
        Self {
            config,
            places,
            file,
            mistaken: BTreeSet::new(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Everything that was found wrong, and what somebody should look at.
    pub(super) fn into_findings(self) -> (Vec<Mistake>, Vec<Mistake>) {
        (self.mistakes, self.warnings)
    }

    /// A text with the meaning that `meaning` finds in it.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        meaning: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let read = self.raw_text(key).and_then(|text| meaning(&text));
        self.or_default(key, read, |default| match default {
            Default::Text(text) => meaning(text).ok(),
            _ => None,
        })
    }

    /// A whole number within `range`.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let given = match self.given(key) {
            ValueKind::I64(number) => Ok(number),
            ValueKind::String(text) if self.is_variable(key) => {
                text.trim().parse().map_err(|_| "is not a whole number")
            }
            _ => Err("is not a whole number"),
        };
        let remedy = format!("Write one from {} to {}", range.start(), range.end());
        let read = match given {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(number) => Err(Wrong::new(format!("is {number}"), remedy)),
            Err(what) => Err(Wrong::new(what, remedy)),
        };
        self.or_default(key, read, |default| match default {
            Default::Number(number) => Some(number),
            _ => None,
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let read = match self.given(key) {
            ValueKind::Boolean(flag) => Ok(flag),
            ValueKind::String(text) if self.is_variable(key) && text.trim() == "true" => Ok(true),
            ValueKind::String(text) if self.is_variable(key) && text.trim() == "false" => Ok(false),
            _ => Err(Wrong::new(
                "is neither true nor false",
                "Write true or false",
            )),
        };
        self.or_default(key, read, |default| match default {
            Default::Flag(flag) => Some(flag),
            _ => None,
        })
    }

    /// A list of texts, each with the meaning that `meaning` finds in it; in the file, each mistake
    /// is placed at its element.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        meaning: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let texts = match self.given(key) {
            ValueKind::Array(values) => values.into_iter().map(as_text).collect(),
            ValueKind::String(text) if self.is_variable(key) => environment::list(&text),
            _ => None,
        };
        let Some(texts) = texts else {
            let remedy = "Write texts in brackets, such as [\"one\", \"two\"]";
            let read = Err(Wrong::new("is not a list of texts", remedy));
            return self.or_default(key, read, |_| Some(Vec::new()));
        };
        let mut list = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match meaning(text) {
                Ok(value) => list.push(value),
                Err(wrong) => {
                    let element = self.places.get(&format!("{key}[{index}]"));
                    let place = element.filter(|_| !self.is_variable(key)).cloned();
                    let place = place.unwrap_or_else(|| self.place(key));
                    self.note(key, wrong.at(key, place));
                }
            }
        }
        Some(list)
    }

    /// A list of tables; in a variable, TOML in brackets. What is no table is a mistake.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Row> {
        let given = match self.given(key) {
            ValueKind::String(text) if self.is_variable(key) => environment::tables(&text),
            ValueKind::Array(values) => Some(values),
            _ => None,
        };
        let Some(given) = given else {
            let remedy = if self.is_variable(key) {
                "Write [{ name = \"…\", … }, …], as in TOML".to_owned()
            } else {
                format!("Write [[{key}]] above each")
            };
            self.wrong(key, Wrong::new("is not a list of tables", remedy));
            return Vec::new();
        };
        let mut rows = Vec::with_capacity(given.len());
        for (index, value) in given.into_iter().enumerate() {
            let place_of = |path: &str| {
                let inside = self.places.get(path).filter(|_| !self.is_variable(key));
                inside.cloned()
            };
            let path = format!("{key}[{index}]");
            let place = place_of(&path).unwrap_or_else(|| self.place(key));
            let ValueKind::Table(table) = value.kind else {
                let remedy = format!("Write [[{key}]] above each");
                let wrong = Wrong::new("holds something that is no table", remedy);
                self.note(key, wrong.at(key, place));
                continue;
            };
            let mut fields: Vec<_> = table
                .into_iter()
                .map(|(name, value)| {
                    let place = place_of(&format!("{path}.{name}"));
                    (name, value.kind, place.unwrap_or_else(|| self.place(key)))
                })
                .collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            rows.push(Row { place, fields });
        }
        rows
    }

    /// A path, `None` when it is empty or no text. A relative one starts from the settings file's directory.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let directory = self.directory();
        self.text(key, |text| {
            Ok((!text.is_empty()).then(|| directory.join(text)))
        })
        .flatten()
    }

    /// The path of a file that must be there, `None` when it is empty or mistaken.
    pub(super) fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        let directory = self.directory();
        self.text(key, |text| {
            if text.is_empty() {
                return Ok(None);
            }
            let path = directory.join(text);
            checks::readable_file(&path)?;
            Ok(Some(path))
        })
        .flatten()
    }

    /// A secret, given in `key` or in the file that `file_key` names; `None` when both are
    /// empty, or the secret is mistaken.
    /// The environment's form goes before the file's, so that a container can bring `…_FILE`
    /// whatever the settings file says; two forms at one level are a mistake.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        check: impl Fn(&str) -> Result<(), Wrong>,
    ) -> Option<Secret> {
        let path = self.path(file_key);
        let given = self.is_given(key) && self.raw_text(key).is_ok_and(|text| !text.is_empty());
        let levels = (self.is_variable(key), self.is_variable(file_key));
        match path {
            Some(path) if !given || levels == (false, true) => {
                let read = checks::checked_secret_in(&path, check);
                let value = read.map_err(|wrong| self.wrong(file_key, wrong)).ok()?;
                let file = Some(path);
                return Some(Secret { value, file });
            }
            Some(_) if levels != (true, false) => {
                let what = format!("is given beside `{key}`");
                self.wrong(file_key, Wrong::new(what, "Keep one of the two"));
            }
            _ => {}
        }
        self.text(key, |text| {
            if text.is_empty() {
                return Ok(None);
            }
            check(text)?;
            let value = SecretString::from(text);
            Ok(Some(Secret { value, file: None }))
        })
        .flatten()
    }

    /// Notes a mistake in `key`.
    pub(super) fn wrong(&mut self, key: &'static str, wrong: Wrong) {
        let mistake = wrong.at(key, self.place(key));
        self.note(key, mistake);
    }

    /// Whether nothing was found wrong with `key` yet: comparing a mistaken value with another
    /// would only add noise.
    pub(super) fn is_sound(&self, key: &str) -> bool {
        !self.mistaken.contains(key)
    }

    /// Whether the file or the environment give `key`.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Notes a mistake in a part of `key`.
    pub(super) fn note_at(&mut self, key: &'static str, mistake: Mistake) {
        self.note(key, mistake);
    }

    /// Notes what is no mistake, and should be looked at all the same.
    pub(super) fn warn(&mut self, warning: Mistake) {
        self.warnings.push(warning);
    }

    fn note(&mut self, key: &'static str, mistake: Mistake) {
        self.mistaken.insert(key);
        self.mistakes.push(mistake);
    }

    fn or_default<T>(
        &mut self,
        key: &'static str,
        read: Result<T, Wrong>,
        meaning: impl Fn(Default) -> Option<T>,
    ) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(key, wrong);
                keys::default(key).and_then(meaning)
            }
        }
    }

    fn raw_text(&self, key: &str) -> Result<String, Wrong> {
        match self.given(key) {
            ValueKind::String(text) => Ok(text),
            _ => Err(Wrong::new("is not a text", "Write it in quotes")),
        }
    }

    fn given(&self, key: &str) -> ValueKind {
        match self.config.get::<Value>(key) {
            Ok(value) => value.kind,
            // The file has something else where the section should be, which has been noted.
            Err(_) => keys::default(key).map_or(ValueKind::Nil, built_in),
        }
    }

    fn is_variable(&self, key: &str) -> bool {
        matches!(self.places.get(key), Some(Place::Variable(_)))
    }

    fn place(&self, key: &str) -> Place {
        self.places.get(key).cloned().unwrap_or(Place::File {
            path: self.file.to_owned(),
            line: None,
        })
    }

    /// The directory of the settings file, which relative paths start from.
    pub(super) fn directory(&self) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).to_owned()
    }
}

/// The default as a merged value has it.
pub(super) fn built_in(default: Default) -> ValueKind {
    match default {
        Default::Text(text) => text.into(),
        Default::Number(number) => number.into(),
        Default::Flag(flag) => flag.into(),
        Default::List(texts) => texts.to_vec().into(),
        Default::Tables => ValueKind::Array(Vec::new()),
    }
}

fn as_text(value: Value) -> Option<String> {
    match value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}
