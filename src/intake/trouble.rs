//! Whether the home broker takes what intake publishes: told once in the log, however many batches
//! wait, and to whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use crate::broker::publisher::PublishError;

/// Batches that the broker does not take at the moment.
#[derive(Debug, Default)]
pub struct Trouble(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    batches: usize,
    why: String,
}

/// One of these batches, until it is dropped.
pub(super) struct Stuck<'a> {
    trouble: &'a Trouble,
    taken: bool,
}

impl Trouble {
    /// Why the broker does not take deliveries, while there are any that it does not take.
    pub fn why(&self) -> Option<String> {
        let state = self.state();
        (state.batches > 0).then(|| state.why.clone())
    }

    /// Notes a batch that the broker did not take.
    pub(super) fn stuck(&self, why: &PublishError) -> Stuck<'_> {
        let mut state = self.state();
        state.batches += 1;
        state.note(why);
        if state.batches == 1 {
            warn!(
                "the broker does not take deliveries: {}; their events stay unacknowledged, trying for ever",
                state.why
            );
        }
        Stuck {
            trouble: self,
            taken: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the broker said goes before what followed from it: publishing on a channel that it has
    /// just closed can cost the connection.
    fn note(&mut self, why: &PublishError) {
        if self.why.is_empty() || !matches!(why, PublishError::Lost(_)) {
            self.why = why.told();
        }
    }
}

impl Stuck<'_> {
    /// The broker did not take it again.
    pub(super) fn still(&self, why: &PublishError) {
        self.trouble.state().note(why);
    }

    /// The broker has taken it after all.
    pub(super) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        let mut state = self.trouble.state();
        state.batches -= 1;
        if state.batches == 0 {
            state.why.clear();
            if self.taken {
                info!("the broker takes deliveries again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_trouble_while_any_batch_is_stuck() {
        let trouble = Trouble::default();
        assert_eq!(trouble.why(), None);
        let (one, two) = (
            trouble.stuck(&PublishError::Nacked),
            trouble.stuck(&PublishError::AccessRefused("no write".into())),
        );
        one.taken();
        two.still(&PublishError::Lost("gone".into()));
        assert!(trouble.why().is_some_and(|why| why.contains("no write")));
        drop(two);
        assert_eq!(trouble.why(), None);
    }
}
