//! Dead letters in the store: put there once each, listed, counted, removed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    filter::{Cursor, Filter},
};

/// Which queue a dead letter came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A delivery that failed for good.
    Dead,
    /// A domain event that cannot be used.
    Rejected,
    /// What no queue took.
    Lost,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Dead, Self::Rejected, Self::Lost];

    /// The word for it, which is also the last part of its queue's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
        }
    }

    /// The kind with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A dead letter without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id in the store.
    pub id: i64,
    /// Which queue it came from.
    pub kind: Kind,
    /// The id that every attempt carried; absent for what is no delivery.
    pub webhook_id: Option<String>,
    /// 0, and one more at each replay.
    pub replay: i64,
    /// To whom it was addressed.
    pub subscriber: Option<String>,
    /// The webhook type.
    pub webhook: Option<String>,
    /// The case.
    pub case: Option<String>,
    /// Why it failed in the end: a delivery's or a rejection's reason, or `broker`.
    pub reason: String,
    /// One line about that for a person.
    pub detail: String,
    /// The attempt that it ended on; absent where none was made.
    pub attempts: Option<i64>,
    /// Why the first attempt failed, if the second is what `reason` tells.
    pub first_reason: Option<String>,
    /// One line about that.
    pub first_detail: Option<String>,
    /// When the domain event happened.
    pub event_time: Option<Timestamp>,
    /// When it reached the bridge.
    pub received_at: Option<Timestamp>,
    /// When it failed for good.
    pub failed_at: Timestamp,
    /// When it was put into the store.
    pub archived_at: Timestamp,
    /// How often the same came here.
    pub count: i64,
    /// The key that it was published with.
    pub routing_key: String,
    /// W3C trace context, if there was one.
    pub traceparent: Option<String>,
    /// How many bytes the payload has.
    pub payload_bytes: i64,
    /// When it was last replayed.
    pub replayed_at: Option<Timestamp>,
    /// By which replay.
    pub replayed_by: Option<i64>,
}

/// A dead letter with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterInFull {
    /// All but the payload.
    pub letter: DeadLetter,
    /// The payload, or the rejected event, byte for byte.
    pub payload: Vec<u8>,
    /// The other dead letters of the same webhook, the earliest first: each replay that failed again
    /// is one.
    pub related: Vec<DeadLetter>,
}

/// A part of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the list goes on, if it does.
    pub next: Option<C>,
}

impl Store {
    /// Dead letters, the latest failure first, at most `limit` (up to 1,000).
    pub async fn dead_letters(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter, Cursor>, StoreError> {
        let _ = (filter, after, limit);
        Err(StoreError::Missing)
    }

    /// One dead letter with its payload; [`StoreError::Missing`] if there is none.
    pub async fn dead_letter(&self, id: i64) -> Result<DeadLetterInFull, StoreError> {
        let _ = id;
        Err(StoreError::Missing)
    }

    /// How many dead letters there are.
    pub async fn count_dead_letters(&self, filter: &Filter) -> Result<u64, StoreError> {
        let _ = filter;
        Err(StoreError::Missing)
    }

    /// Removes dead letters; tells how many. An empty filter is [`StoreError::NoFilter`].
    pub async fn delete_dead_letters(&self, filter: &Filter) -> Result<u64, StoreError> {
        let _ = filter;
        Err(StoreError::Missing)
    }
}
