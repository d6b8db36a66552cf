//! What is missing of the store's subscribers here: all of them before the store was loaded once, and
//! those whose rows this bridge cannot read. An event that comes meanwhile may be meant for one of
//! them, so nothing is consumed while there is a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{store::StoreError, subscriber::SubscriberId};

/// How often it is said which rows cannot be read, while these change.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// What is missing.
#[derive(Debug)]
pub(super) struct Gaps {
    loaded: bool,
    unread: BTreeMap<String, Unread>,
    key_file: PathBuf,
    said: Option<Said>,
}

/// A row that this bridge cannot read.
#[derive(Debug)]
struct Unread {
    why: String,
    /// Whether an earlier version of it is known, which holds.
    known: bool,
}

/// What the log tells of rows that cannot be read.
#[derive(Debug)]
struct Said {
    at: Instant,
    text: String,
    /// Whether they keep anything from being consumed.
    shut: bool,
}

impl Gaps {
    /// Nothing is loaded yet, or there is nothing to load. `key_file` is what secrets are read with.
    pub(super) fn new(loaded: bool, key_file: PathBuf) -> Self {
        Self {
            loaded,
            unread: BTreeMap::new(),
            key_file,
            said: None,
        }
    }

    /// The store was loaded; nothing from before counts.
    pub(super) fn loaded(&mut self) {
        self.loaded = true;
        self.unread.clear();
    }

    /// Whether the store was loaded once, or there is none.
    pub(super) fn was_loaded(&self) -> bool {
        self.loaded
    }

    /// A row cannot be read; `known` tells whether an earlier version of it is known here.
    pub(super) fn unread(&mut self, id: &str, why: &StoreError, known: bool) {
        let why = match why {
            StoreError::Unreadable(why) => why.clone(),
            other => other.to_string(),
        };
        self.unread.insert(id.to_owned(), Unread { why, known });
    }

    /// A row was read, or is not there any more, or a file says otherwise.
    pub(super) fn filled(&mut self, id: &str) {
        self.unread.remove(id);
    }

    /// The rows that cannot be read.
    pub(super) fn ids(&self) -> BTreeSet<SubscriberId> {
        let ids = self.unread.keys();
        ids.map(|id| SubscriberId::new(id.as_str())).collect()
    }

    /// Why this subscriber is not known, if it is in the store and cannot be read.
    pub(super) fn of(&self, id: &str) -> Option<StoreError> {
        let unread = self.unread.get(id)?;
        Some(StoreError::Unreadable(unread.why.clone()))
    }

    /// How many rows there are of which nothing is known, and what to do about them.
    pub(super) fn unknown(&self) -> Option<StoreError> {
        self.told(false).map(StoreError::Unreadable)
    }

    fn told(&self, known: bool) -> Option<String> {
        let mut some = self.unread.values().filter(|one| one.known == known);
        let first = some.next()?;
        Some(format!(
            "{} of its subscribers ({}). Put the key that they were written with into {} and \
             restart, run the version that wrote them, or remove them",
            1 + some.count(),
            first.why,
            self.key_file.display()
        ))
    }

    /// Says what cannot be read, when that begins, and when it is over.
    pub(super) fn say(&mut self) {
        let held = self.unknown();
        let shut = held.is_some();
        let held = held.map(|error| format!("nothing is consumed: {error}"));
        let kept = self.told(true).map(StoreError::Unreadable);
        let kept = kept.map(|error| format!("{error}. They stay as they were"));
        let text = [held, kept]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; ");
        if text.is_empty() {
            if self.said.take().is_some() {
                info!("every subscriber in the store can be read again");
            }
            return;
        }
        let told =
            |said: &Said| said.shut == shut && (said.text == text || said.at.elapsed() < SAY_AGAIN);
        if self.said.as_ref().is_some_and(told) {
            return;
        }
        warn!("{text}");
        let at = Instant::now();
        self.said = Some(Said { at, text, shut });
    }
}
