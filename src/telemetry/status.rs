//! How a subscriber's deliveries fare in this bridge, for whoever asks the API about it.

use jiff::Timestamp;

use crate::delivery::Reason;

/// What this bridge has seen of one subscriber since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// When a delivery last arrived.
    pub last_success: Option<Timestamp>,
    /// The attempt that failed last.
    pub last_failure: Option<LastFailure>,
    /// Attempts that failed since the last one that did not.
    pub failures_in_a_row: u64,
    /// Attempts under way.
    pub in_flight: usize,
    /// Whether its deliveries go through the slow lanes.
    pub slow: bool,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// One line about it, without the subscriber's secrets.
    pub detail: String,
}
