//! Reads the subscribers' files: every `*.toml` in one directory, in the order of their names, one
//! subscriber at the top level of a file or several as `[[subscriber]]`. One pass finds every
//! mistake in every file.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::{DeTable, DeValue};

use crate::settings::{Mistake, Mistakes, Place, Settings, document::Document};

use super::{
    Cases, Interest, Origin, Subscriber, SubscriberId, SubscriberSet, Target, watching::Look,
};

mod entry;
pub mod request;
mod secrets;
mod table;
mod target;
mod value;

use entry::Entry;
use table::{Source, Table};

/// What of the settings matters to subscribers.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The timeout of a subscriber that names none.
    pub timeout: Duration,
    /// What every subscriber's timeout must stay below.
    pub shutdown_timeout: Duration,
    /// How many attempts may run at once for a subscriber that does not say.
    pub max_in_flight: usize,
    /// What the bridge's own names on the home broker begin with.
    pub prefix: String,
    /// The exchange that domain events come from.
    pub source_exchange: String,
}

impl From<&Settings> for Rules {
    fn from(settings: &Settings) -> Self {
        Self {
            timeout: settings.delivery.timeout,
            shutdown_timeout: settings.delivery.shutdown_timeout,
            max_in_flight: settings.delivery.max_in_flight_per_subscriber,
            prefix: settings.broker.prefix.clone(),
            source_exchange: settings.source.exchange.clone(),
        }
    }
}

/// Subscribers read without a mistake.
#[derive(Debug)]
pub struct Loaded {
    /// The subscribers.
    pub set: SubscriberSet,
    /// What should be looked at, although it can be meant as it stands.
    pub warnings: Vec<Mistake>,
    /// What the files looked like before they were read.
    pub look: Look,
}

/// Everything that reading a directory brought to light.
#[derive(Debug)]
pub struct Inspection {
    /// The subscribers without a mistake.
    pub set: SubscriberSet,
    /// Everything that is wrong.
    pub mistakes: Mistakes,
    /// What should be looked at, although it can be meant as it stands.
    pub warnings: Vec<Mistake>,
}

/// Reads the subscribers in `directory`, and the files and environment variables that their secrets
/// stand in. A relative path in a subscriber's file starts from that file's directory. The error
/// holds every mistake there is.
pub fn load_directory(directory: &Path, rules: &Rules) -> Result<Loaded, Mistakes> {
    let look = Look::at(directory);
    let Inspection {
        set,
        mistakes,
        warnings,
    } = inspect_directory(directory, rules, &|name| std::env::var(name).ok());
    if mistakes.is_empty() {
        Ok(Loaded {
            set,
            warnings,
            look,
        })
    } else {
        Err(mistakes)
    }
}

/// Like [`load_directory`], but what is sound can be looked at although something else is wrong.
/// `variable` looks an environment variable up.
pub fn inspect_directory(
    directory: &Path,
    rules: &Rules,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Inspection {
    let mut reading = Reading {
        rules,
        variable,
        subscribers: Vec::new(),
        ids: BTreeMap::new(),
        mistakes: Vec::new(),
    };
    let mut warnings = Vec::new();
    match files_in(directory) {
        Ok(files) if files.is_empty() => warnings.push(Mistake {
            place: whole(directory),
            what: "there is no subscriber here".to_owned(),
            remedy: "Put a file for each subscriber here, named *.toml".to_owned(),
        }),
        Ok(files) => files.iter().for_each(|file| reading.file(file)),
        Err(error) => reading.mistakes.push(unreadable(directory, &error)),
    }
    warnings.extend(shared_urls(reading.subscribers.iter()));
    Inspection {
        set: SubscriberSet::new(reading.subscribers),
        mistakes: reading.mistakes.into(),
        warnings,
    }
}

/// The `*.toml` files of a directory, sorted. Hidden ones are left out: editors and mounted
/// volumes keep their unfinished business there.
fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".toml") && !name.starts_with('.') && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(directory: &Path, error: &io::Error) -> Mistake {
    let (what, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            "the directory of the subscribers does not exist".to_owned(),
            "Make it, or name another in `subscribers.directory`",
        ),
        io::ErrorKind::NotADirectory => (
            "this is to be the directory of the subscribers, and is a file".to_owned(),
            "Name a directory in `subscribers.directory`",
        ),
        _ => (
            format!("the directory of the subscribers cannot be read ({error})"),
            "Let the user that the bridge runs as read it",
        ),
    };
    Mistake {
        place: whole(directory),
        what,
        remedy: remedy.to_owned(),
    }
}

fn whole(path: &Path) -> Place {
    Place::File {
        path: path.to_owned(),
        line: None,
    }
}

/// A reading of all files, under way.
struct Reading<'r> {
    rules: &'r Rules,
    variable: &'r dyn Fn(&str) -> Option<String>,
    subscribers: Vec<Subscriber>,
    /// Where each id was first given, also by a subscriber with mistakes.
    ids: BTreeMap<SubscriberId, Place>,
    mistakes: Vec<Mistake>,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path) {
        let document = match Document::read(path, "the subscriber's file") {
            Ok(document) => document,
            Err(mistake) => return self.mistakes.push(mistake),
        };
        match document.table() {
            Ok(table) => self.document(&document, table.get_ref()),
            Err(faults) => self.mistakes.extend(faults),
        }
    }

    fn document(&mut self, document: &Document<'_>, table: &DeTable<'_>) {
        if table.is_empty() {
            return self.mistakes.push(Mistake {
                place: whole(document.path()),
                what: "there is no subscriber in this file".to_owned(),
                remedy: "Write one, or remove the file".to_owned(),
            });
        }
        let Some((key, several)) = table.iter().find(|(key, _)| *key.get_ref() == "subscriber")
        else {
            return self.entry(document, table, 0);
        };
        let mistake = |offset, what: String, remedy: &str| Mistake {
            place: document.place(offset),
            what,
            remedy: remedy.to_owned(),
        };
        for (other, _) in table.iter().filter(|(other, _)| *other != key) {
            self.mistakes.push(mistake(
                other.span().start,
                format!("`{}` stands beside [[subscriber]]", other.get_ref()),
                "Write it below the [[subscriber]] that it belongs to",
            ));
        }
        let elements = match several.get_ref() {
            DeValue::Array(elements) => elements.iter().collect(),
            _ => vec![several],
        };
        for element in elements {
            match element.get_ref() {
                DeValue::Table(one) if matches!(several.get_ref(), DeValue::Array(_)) => {
                    self.entry(document, one, element.span().start);
                }
                _ => self.mistakes.push(mistake(
                    element.span().start,
                    "`subscriber` is not a list of tables".to_owned(),
                    "Write [[subscriber]], with two brackets, above each subscriber",
                )),
            }
        }
    }

    fn entry(&mut self, document: &Document<'_>, table: &DeTable<'_>, start: usize) {
        let (source, fields) = (
            Source::File(document.path()),
            value::fields_of_toml(document, table),
        );
        let table = Table::new(source, &fields, document.place(start), "");
        let Entry { id, subscriber } = entry::read(&table, self.rules, self.variable, false);
        let sound = !table.has_mistakes();
        self.mistakes.extend(table.take_mistakes());
        let Some((id, place)) = id else { return };
        if let Some(first) = self.ids.get(&id) {
            return self.mistakes.push(Mistake {
                place,
                what: format!("the id \"{id}\" is taken: {first} has it too"),
                remedy: "Give one of the two another id".to_owned(),
            });
        }
        self.ids.insert(id, place);
        self.subscribers.extend(subscriber.filter(|_| sound));
    }
}

/// A warning for each URL that subscribers with different `cases` share: an endpoint for one case
/// would be sent another case's webhooks.
pub(crate) fn shared_urls<'a>(subscribers: impl Iterator<Item = &'a Subscriber>) -> Vec<Mistake> {
    let mut first_with: BTreeMap<&str, &Subscriber> = BTreeMap::new();
    let mut warnings = Vec::new();
    for subscriber in subscribers {
        let (Target::Http(target), Some(cases)) = (&subscriber.target, cases(subscriber)) else {
            continue;
        };
        let first = *first_with.entry(target.url.as_str()).or_insert(subscriber);
        if self::cases(first) != Some(cases) {
            warnings.push(Mistake {
                place: place(&subscriber.origin),
                what: format!(
                    "\"{}\" and \"{}\" ({}) have different cases and the same URL",
                    subscriber.id, first.id, first.origin
                ),
                remedy: "Use a URL of its own for each case".to_owned(),
            });
        }
    }
    warnings
}

/// Whether these two have the same URL and different cases.
pub(crate) fn share_url(one: &Subscriber, other: &Subscriber) -> bool {
    match (&one.target, &other.target) {
        (Target::Http(a), Target::Http(b)) if cases(one).is_some() => {
            a.url == b.url && cases(other).is_some_and(|cases| self::cases(one) != Some(cases))
        }
        _ => false,
    }
}

fn place(origin: &Origin) -> Place {
    match origin {
        Origin::File { file, line } => Place::File {
            path: file.to_path_buf(),
            line: Some(*line),
        },
        Origin::Store { .. } => Place::Request(String::new()),
    }
}

fn cases(subscriber: &Subscriber) -> Option<&Cases> {
    match &subscriber.interest {
        Interest::Party { cases, .. } => cases.as_ref(),
        Interest::Cases(cases) => Some(cases),
        Interest::All => None,
    }
}

#[cfg(test)]
mod tests;
