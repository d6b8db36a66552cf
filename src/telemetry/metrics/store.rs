//! What is told of the store.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::registered;

/// The metrics of the store.
pub struct StoreMetrics {
    dead_letters: IntGauge,
    archived: IntCounterVec,
    removed: IntCounter,
    configured: IntGauge,
    connected: IntGauge,
}

impl StoreMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let archived = Opts::new(
            "hookbridge_dead_letters_archived_total",
            "Dead letters put into the store, by the queue that they came from: dead, rejected or lost.",
        );
        let removed = IntCounter::new(
            "hookbridge_dead_letters_removed_total",
            "Dead letters removed from the store after store.dead_letter_retention.",
        );
        let dead_letters = IntGauge::new(
            "hookbridge_dead_letters",
            "Dead letters held in the store and not yet replayed.",
        );
        let configured = IntGauge::new(
            "hookbridge_store_configured",
            "Whether the settings name a store (1) or not (0).",
        );
        let connected = IntGauge::new(
            "hookbridge_store_connected",
            "Whether the store is there (1) or not (0, also without one).",
        );
        let metrics = Self {
            dead_letters: registered(registry, dead_letters)?,
            archived: registered(registry, IntCounterVec::new(archived, &["kind"]))?,
            removed: registered(registry, removed)?,
            configured: registered(registry, configured)?,
            connected: registered(registry, connected)?,
        };
        for kind in ["dead", "rejected", "lost"] {
            metrics.archived.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    /// Dead letters from this queue are in the store.
    pub fn archived(&self, kind: &str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.archived.with_label_values(&[kind]).inc_by(count);
    }

    /// Dead letters were removed from the store because they are old.
    pub fn removed(&self, count: u64) {
        self.removed.inc_by(count);
    }

    /// How many dead letters the store holds that are not replayed yet.
    pub fn held(&self, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.dead_letters.set(count);
    }

    /// Whether there is to be a store.
    pub fn configured(&self, configured: bool) {
        self.configured.set(configured.into());
    }

    /// Whether the store is there.
    pub fn there(&self, there: bool) {
        self.connected.set(there.into());
    }
}
