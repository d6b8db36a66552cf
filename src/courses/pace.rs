//! When a subscriber counts as slow, and when as quick again. Pure.

use std::time::{Duration, Instant};

/// A slow subscriber is quick again when at most this many of its last sixteen attempts were late,
const FORGIVEN: u32 = 4;
/// and it has been slow for so long.
const LEAST: Duration = Duration::from_secs(10);

/// Whether a subscriber is slow, and how its last attempts went since it is.
#[derive(Debug, Default)]
pub(super) struct Pace {
    slow_since: Option<Instant>,
    /// One bit for each of the last sixteen, the newest lowest; set for a late one.
    late: u16,
}

impl Pace {
    /// It holds up too much. Tells whether it was quick until now.
    pub(super) fn slow_down(&mut self, now: Instant) -> bool {
        let was_quick = self.slow_since.is_none();
        if was_quick {
            self.slow_since = Some(now);
            self.late = u16::MAX;
        }
        was_quick
    }

    /// Notes one more attempt. Tells whether the subscriber is quick again.
    pub(super) fn note(&mut self, late: bool, now: Instant) -> bool {
        let Some(since) = self.slow_since else {
            return false;
        };
        self.late = self.late << 1 | u16::from(late);
        let quick = self.late.count_ones() <= FORGIVEN && now.duration_since(since) >= LEAST;
        if quick {
            self.slow_since = None;
        }
        quick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_slow_is_quick_again_after_a_while_with_few_late_ones() {
        let began = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.note(true, began), "one late attempt is nothing");
        assert!(pace.slow_down(began));
        assert!(!pace.slow_down(began), "it is slow already");
        let later = began + LEAST;
        for number in 0..11 {
            assert!(!pace.note(false, later), "{number}");
        }
        assert!(!pace.note(false, began), "not yet");
        assert!(pace.note(false, later));
        assert!(!pace.note(false, later), "it is quick already");
        assert!(pace.slow_down(later), "and may be slow again");
    }

    #[test]
    fn who_is_often_late_stays_slow() {
        let began = Instant::now();
        let mut pace = Pace::default();
        pace.slow_down(began);
        let later = began + LEAST * 100;
        for number in 0..1_000 {
            assert!(!pace.note(number % 3 == 0, later), "{number}");
        }
        // One in five is late.
        assert!((0..1_000).any(|number| pace.note(number % 5 == 0, later)));
    }
}
