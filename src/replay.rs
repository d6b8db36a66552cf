//! Replays dead letters in the background: each starts again at its first attempt, with the same
//! webhook id. It is published and confirmed before it is marked, so that a restart repeats at most
//! the batch in flight.

use crate::store::{
    Store, StoreError,
    filter::Filter,
    replays::{Count, Replay},
};

/// How many a second, unless somebody says otherwise.
pub const DEFAULT_RATE: u32 = 500;
/// The most a second that may be asked for.
pub const HIGHEST_RATE: u32 = 10_000;

/// Begins, watches and stops replays. Cheap to clone.
#[derive(Clone)]
pub struct Replays {
    store: Store,
}

impl Replays {
    /// Has every dead letter that `filter` lets through, and that is not replayed yet, replayed in the
    /// background, at most `rate` a second. Replays run one after the other.
    pub async fn begin(&self, filter: Filter, rate: u32, by: &str) -> Result<Replay, StoreError> {
        let _ = (&self.store, filter, rate, by);
        Err(StoreError::Missing)
    }

    /// What [`Self::begin`] would do.
    pub async fn count(&self, filter: &Filter) -> Result<Count, StoreError> {
        let _ = filter;
        Err(StoreError::Missing)
    }

    /// The latest replays, the last begun first, at most `limit`; older than `before` if given.
    pub async fn list(&self, before: Option<i64>, limit: usize) -> Result<Vec<Replay>, StoreError> {
        let _ = (before, limit);
        Err(StoreError::Missing)
    }

    /// One replay.
    pub async fn get(&self, id: i64) -> Result<Replay, StoreError> {
        let _ = id;
        Err(StoreError::Missing)
    }

    /// Stops a replay after the batch in flight. One that has ended stays as it is.
    pub async fn stop(&self, id: i64) -> Result<Replay, StoreError> {
        let _ = id;
        Err(StoreError::Missing)
    }
}
