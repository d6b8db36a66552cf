//! When a subscriber counts as slow, and when as quick again. Pure.

use std::time::{Duration, Instant};

/// How many of the last eight attempts must have been late.
const LATE_ONES: u32 = 3;

/// How the last attempts of a subscriber went.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// One bit for each of the last eight, the newest lowest; set for a late one.
    late: u8,
    slow: bool,
    /// Since when, being slow, it has had none that was late.
    quick_since: Option<Instant>,
}

/// What an attempt changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The subscriber is slow from now on.
    Slow,
    /// It is no longer.
    Quick,
}

impl Recent {
    /// Notes one more attempt. A slow subscriber is quick again once it has been without a late
    /// attempt for `quick_again`.
    pub(super) fn note(
        &mut self,
        late: bool,
        now: Instant,
        quick_again: Duration,
    ) -> Option<Change> {
        self.late = self.late << 1 | u8::from(late);
        if late {
            self.quick_since = None;
        }
        if !self.slow {
            self.slow = self.late.count_ones() >= LATE_ONES;
            return self.slow.then_some(Change::Slow);
        }
        if late || now.duration_since(*self.quick_since.get_or_insert(now)) < quick_again {
            return None;
        }
        *self = Self::default();
        Some(Change::Quick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHILE: Duration = Duration::from_secs(10);

    #[test]
    fn three_late_ones_of_eight_are_slow() {
        let now = Instant::now();
        let mut recent = Recent::default();
        for late in [true, false, false, true, false, false, false, false] {
            assert_eq!(recent.note(late, now, WHILE), None);
        }
        // The first one is forgotten by now.
        assert_eq!(recent.note(true, now, WHILE), None);
        assert_eq!(recent.note(false, now, WHILE), None);
        assert_eq!(recent.note(true, now, WHILE), Some(Change::Slow));
        assert_eq!(recent.note(true, now, WHILE), None, "it is slow already");
    }

    #[test]
    fn slow_is_quick_again_after_a_while_without_a_late_one() {
        let mut now = Instant::now();
        let mut recent = Recent::default();
        for _ in 0..3 {
            recent.note(true, now, WHILE);
        }
        assert_eq!(recent.note(false, now, WHILE), None);
        now += WHILE / 2;
        assert_eq!(recent.note(true, now, WHILE), None);
        now += WHILE;
        assert_eq!(
            recent.note(false, now, WHILE),
            None,
            "the while begins anew"
        );
        now += WHILE / 2;
        assert_eq!(recent.note(false, now, WHILE), None);
        now += WHILE / 2;
        assert_eq!(recent.note(false, now, WHILE), Some(Change::Quick));
        assert_eq!(
            recent.note(true, now, WHILE),
            None,
            "nothing is held against it"
        );
    }
}
