//! Replays in the store: what is to be replayed, how far it is, and who does it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::filter::Filter;

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn, or is under way.
    Running,
    /// Everything was looked at.
    Done,
    /// Somebody stopped it.
    Stopped,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// Dead letters that a replay does not publish, by why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Nobody has the subscriber's id any more.
    pub gone: u64,
    /// The subscriber is disabled.
    pub disabled: u64,
    /// What is no delivery, and no domain event either.
    pub unusable: u64,
    /// How many of them by subscriber; at most 100 subscribers.
    pub subscribers: BTreeMap<String, u64>,
}

/// A replay of many dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Its id.
    pub id: i64,
    /// What is replayed: of what this lets through, that which was in the store when the replay
    /// began and is not replayed yet.
    pub filter: Filter,
    /// How it stands.
    pub state: State,
    /// Who began it.
    pub by: String,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How many dead letters were meant when it began.
    pub total: u64,
    /// How many are published and confirmed.
    pub replayed: u64,
    /// How many are not published.
    pub skipped: Skipped,
    /// At most so many in a second.
    pub rate: u32,
    /// Why it does not go on just now, if it does not.
    pub trouble: Option<String>,
}

/// What a replay would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count {
    /// How many dead letters would be looked at.
    pub total: u64,
    /// How many of them would not be published.
    pub skipped: Skipped,
}
