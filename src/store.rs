//! The store: what people ask about and change. Subscribers made through the API, and dead letters.
//! SQLite for one bridge, PostgreSQL for several. The line itself never waits for it.
//!
//! A [`Store`] is a cheap handle that exists whether or not the database can be reached; while it
//! cannot, every operation fails with [`StoreError::Away`] and says why.

use std::{
    path::PathBuf,
    sync::{Arc, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Mutex, Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::settings::{StorePlace, StoreSettings};

mod archiving;
mod database;
pub mod dead_letters;
mod definition;
pub mod filter;
mod keys;
pub mod replays;
pub mod subscribers;

use database::Database;
use keys::Keyring;

pub use archiving::NewDeadLetter;
pub use keys::KeyError;

/// How long one operation may take.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Of the connections for readers, how many may be in use for what people browse.
const BROWSERS: usize = 3;
/// How long these wait for their turn.
const TURN: Duration = Duration::from_secs(5);
/// How often a database that is away is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is said that the store is away, when it comes and goes.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// How often a database that is there, and that nobody asks, is looked at.
const LOOK: Duration = Duration::from_secs(15);

/// Why an operation on the store did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The database cannot be reached, does not answer in time, is locked, or is full.
    #[error("the store is away: {0}")]
    Away(String),
    /// This operation took too long, or found no connection free. Others may do better.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// There is no such subscriber, dead letter or replay.
    #[error("the store holds no such thing")]
    Missing,
    /// A precondition does not hold: somebody else changed it, or it is not there.
    #[error("it was changed meanwhile")]
    Changed {
        /// The version that it has now, if it is there.
        now: Option<i64>,
    },
    /// Another case's hook has this URL.
    #[error("the URL is that of another case's hook")]
    UrlTaken,
    /// A filter that must not be empty is.
    #[error("the filter is empty, and would mean everything")]
    NoFilter,
    /// What the store holds cannot be read: written with another key, or by another version.
    #[error("the store holds what this bridge cannot read: {0}")]
    Unreadable(String),
}

impl StoreError {
    /// An operation took longer than this.
    pub(crate) fn slow(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        Self::Busy(format!("it did not answer within {limit}"))
    }

    /// What it means where nobody else can be in the way: that the database is away.
    pub(crate) fn or_away(self) -> Self {
        match self {
            Self::Busy(why) => Self::Away(why),
            other => other,
        }
    }

    /// Why, without what follows from it.
    fn why(&self) -> String {
        match self {
            Self::Away(why) | Self::Busy(why) | Self::Unreadable(why) => why.clone(),
            other => other.to_string(),
        }
    }
}

/// The store of one bridge. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    settings: StoreSettings,
    database: OnceLock<Opened>,
    opening: Mutex<()>,
    /// Whether the last look found the database there, and no change found it away since.
    there: watch::Sender<bool>,
    /// Asks for a look, because something did not succeed.
    doubt: Notify,
    /// Turns for what people browse.
    browsers: Semaphore,
    last: std::sync::Mutex<Absence>,
}

/// The last time that the store was away.
struct Absence {
    why: String,
    /// When that was last said.
    said: Option<Instant>,
    /// Whether it has come and gone since.
    flaps: bool,
}

/// A database whose tables are as this version needs them, and the keys for what it holds.
struct Opened {
    database: Database,
    keys: Keyring,
}

impl Store {
    /// The store that the settings name. Nothing is opened yet: see [`Self::keep`].
    pub fn new(settings: StoreSettings) -> Self {
        Self(Arc::new(Inner {
            settings,
            database: OnceLock::new(),
            opening: Mutex::default(),
            there: watch::Sender::new(false),
            doubt: Notify::new(),
            browsers: Semaphore::new(BROWSERS),
            last: std::sync::Mutex::new(Absence {
                why: "it is not opened yet".into(),
                said: None,
                flaps: false,
            }),
        }))
    }

    /// Opens the database, makes its tables what this version needs, and reads the keys. Does
    /// nothing when that is done.
    ///
    /// A key that is missing although the store was used before is a [`KeyError`] in words: see
    /// `store.secret_key_file`.
    pub async fn open(&self) -> Result<(), StoreError> {
        let _one = self.0.opening.lock().await;
        if self.0.database.get().is_some() {
            return Ok(());
        }
        let opened = async {
            let database = Database::open(&self.0.settings.place).await?;
            let path = &self.0.settings.secret_key_file;
            let local = matches!(self.0.settings.place, StorePlace::Sqlite(_));
            let make = local && !database.has_secrets().await?;
            let keys = Keyring::read(path, make)
                .map_err(|error| StoreError::Unreadable(error.to_string()))?;
            Ok(Opened { database, keys })
        };
        let opened = tokio::time::timeout(3 * OPERATION_TIMEOUT, opened)
            .await
            .unwrap_or_else(|_| Err(StoreError::slow(3 * OPERATION_TIMEOUT)));
        match opened {
            Ok(opened) => {
                // Nobody else sets it: the lock is held.
                let _ = self.0.database.set(opened);
                self.note_there();
                info!(store = self.0.settings.place.kind(), "the store is open");
                Ok(())
            }
            Err(error) => {
                // One that cannot be read yet is as good as away.
                self.note_away(&error.why());
                Err(error.or_away())
            }
        }
    }

    /// Keeps the store open until `stop`: opens it, and when it is away, looks for it to return.
    pub async fn keep(&self, stop: CancellationToken) {
        loop {
            let looked = match self.0.database.get() {
                None => self.open().await,
                Some(_) => self.look().await,
            };
            let pause = if looked.is_ok() { LOOK } else { AGAIN };
            let doubted = async {
                self.0.doubt.notified().await;
                tokio::time::sleep(AGAIN).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                // Something did not succeed: look sooner.
                () = doubted, if looked.is_ok() => {}
            }
        }
    }

    /// Whether the database was there when it was last asked, as it comes and goes.
    pub fn there(&self) -> watch::Receiver<bool> {
        self.0.there.subscribe()
    }

    /// Why the store is away, if it is.
    pub fn away(&self) -> Option<String> {
        let there = *self.0.there.borrow();
        (!there).then(|| self.last().why.clone())
    }

    /// The file with the keys that secrets are encrypted with.
    pub fn key_file(&self) -> PathBuf {
        self.0.settings.secret_key_file.clone()
    }

    /// How long dead letters are kept; `None` for ever.
    pub fn retention(&self) -> Option<Duration> {
        self.0.settings.dead_letter_retention
    }

    /// Whether it is there, and takes changes. Only this finds out that it is back.
    async fn look(&self) -> Result<(), StoreError> {
        let look = async { self.opened()?.database.look().await };
        let looked = tokio::time::timeout(OPERATION_TIMEOUT, look)
            .await
            .unwrap_or_else(|_| Err(StoreError::slow(OPERATION_TIMEOUT)));
        match &looked {
            Ok(()) => self.note_there(),
            Err(error) => self.note_away(&error.why()),
        }
        looked
    }

    fn opened(&self) -> Result<&Opened, StoreError> {
        let opened = self.0.database.get();
        opened.ok_or_else(|| StoreError::Away(self.last().why.clone()))
    }

    /// Makes an operation that changes nothing. That it does not succeed says nothing about the store:
    /// whoever asks for much must not take it away from everyone.
    async fn reading<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if let Some(why) = self.away() {
            // Nobody should wait for what is looked for anyway.
            return Err(StoreError::Away(why));
        }
        let result = tokio::time::timeout(OPERATION_TIMEOUT, operation)
            .await
            .unwrap_or_else(|_| Err(StoreError::slow(OPERATION_TIMEOUT)));
        if let Err(StoreError::Away(_) | StoreError::Busy(_)) = &result {
            self.0.doubt.notify_one();
        }
        result
    }

    /// Makes an operation that changes nothing, and that people may ask for often although it takes
    /// long. It waits for its turn: there is always a connection left for those who must know a
    /// subscriber.
    async fn browsing<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        // The wait does not count: an operation that is given up before the database does so keeps its
        // connection busy.
        let turn = tokio::time::timeout(TURN, self.0.browsers.acquire()).await;
        let _turn = turn.map_err(|_| StoreError::Busy("too much is asked of it at once".into()))?;
        self.reading(operation).await
    }

    /// Makes an operation that changes something. A database that takes no changes is away.
    async fn writing<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = self.reading(operation).await;
        if let Err(StoreError::Away(why)) = &result
            && self.away().is_none()
        {
            self.note_away(why);
        }
        result
    }

    fn note_there(&self) {
        if self.0.there.send_replace(true) {
            return;
        }
        let last = self.last();
        let said = last.said.is_some_and(|at| at.elapsed() < SAY_AGAIN);
        if said && last.flaps {
            debug!("the store is there");
        } else {
            info!("the store is there");
        }
    }

    /// Says when the store goes, and why; once a minute if it comes and goes.
    fn note_away(&self, why: &str) {
        let was_there = self.0.there.send_replace(false);
        let mut last = self.last();
        let said = last.said.is_some_and(|at| at.elapsed() < SAY_AGAIN);
        last.flaps = said && was_there;
        let new = was_there || last.said.is_none() || last.why != why;
        why.clone_into(&mut last.why);
        if new && !said {
            last.said = Some(Instant::now());
            warn!(
                "the store is away: {why}; deliveries go on, and dead letters wait in their queues"
            );
        } else {
            debug!("the store is away: {why}");
        }
    }

    fn last(&self) -> MutexGuard<'_, Absence> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two digits for each byte.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digits = bytes
        .iter()
        .flat_map(|byte| [usize::from(byte >> 4), usize::from(byte & 15)]);
    digits.map(|digit| DIGITS[digit]).collect()
}
