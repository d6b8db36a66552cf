//! A TOML file and the lines of what stands in it: what the settings file and the subscribers'
//! files have in common.

use std::{fs, io, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::mistakes::{Mistake, Place};

/// A TOML file that has been read, and not parsed yet.
#[derive(Debug)]
pub(crate) struct Document<'p> {
    path: &'p Path,
    text: String,
}

impl<'p> Document<'p> {
    /// Reads a file. `kind` names it in the mistake: `the settings file`.
    pub(crate) fn read(path: &'p Path, kind: &str) -> Result<Self, Mistake> {
        let mistake = |what: String, remedy: &str| Mistake {
            place: Place::File {
                path: path.to_owned(),
                line: None,
            },
            what: format!("{kind} {what}"),
            remedy: remedy.to_owned(),
        };
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self { path, text }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(mistake("does not exist".into(), "Make it, or name another"))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(mistake("is not UTF-8".into(), "Save it as UTF-8 text"))
            }
            Err(error) => Err(mistake(
                format!("cannot be read ({error})"),
                "Let the user that the bridge runs as read it",
            )),
        }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The file.
    pub(crate) fn path(&self) -> &'p Path {
        self.path
    }

    /// The file's top-level table; or everything that is not TOML in it. The parser's own text is
    /// not used whole, since it quotes the line, with whatever secret stands there.
    pub(crate) fn table(&self) -> Result<Spanned<DeTable<'_>>, Vec<Mistake>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let mut mistakes: Vec<Mistake> = errors
            .iter()
            .map(|error| Mistake {
                place: self.place(error.span().map_or(0, |span| span.start)),
                what: format!("this is not TOML: {}", error.message()),
                remedy: "Write `key = value`, texts in quotes".to_owned(),
            })
            .collect();
        // What follows a fault on the same line is the parser finding its feet again.
        mistakes.dedup_by(|a, b| a.place == b.place);
        if mistakes.is_empty() {
            self.find_large_numbers(table.get_ref(), &mut mistakes);
        }
        if mistakes.is_empty() {
            Ok(table)
        } else {
            Err(mistakes)
        }
    }

    /// The place of what begins at this byte.
    pub(crate) fn place(&self, offset: usize) -> Place {
        Place::File {
            path: self.path.to_owned(),
            line: Some(self.line(offset)),
        }
    }

    /// The line of what begins at this byte, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.split(|byte| *byte == b'\n').count() - 1
    }

    /// Numbers beyond 64 bits are found here, while their line is known.
    fn find_large_numbers(&self, table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) {
        for (_, value) in table {
            self.find_large_number(value, mistakes);
        }
    }

    fn find_large_number(&self, value: &Spanned<DeValue<'_>>, mistakes: &mut Vec<Mistake>) {
        let fits = match value.get_ref() {
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).is_ok()
            }
            DeValue::Float(number) => {
                number.as_str().contains("inf")
                    || number.as_str().parse().is_ok_and(|n: f64| !n.is_infinite())
            }
            DeValue::Array(values) => {
                for value in values {
                    self.find_large_number(value, mistakes);
                }
                true
            }
            DeValue::Table(table) => {
                self.find_large_numbers(table, mistakes);
                true
            }
            DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => true,
        };
        if !fits {
            mistakes.push(Mistake {
                place: self.place(value.span().start),
                what: "this number does not fit into 64 bits".to_owned(),
                remedy: "Write a smaller one".to_owned(),
            });
        }
    }
}
