//! How many messages a consumer may hold, by what they weigh. A broker counts messages and not their
//! bytes, so a thousand large ones would fill the memory. Pure.

/// Messages asked for before any was seen.
const FIRST: u16 = 16;
/// How many messages a large one is remembered for, about.
const INERTIA: usize = 64;
/// The most that a prefetch grows in one step: the estimate may be wrong.
const STEP: u16 = 4;

/// The prefetch of one consumer as it follows the size of what comes.
#[derive(Debug)]
pub(super) struct Prefetch {
    now: u16,
    most: u16,
    /// Bytes that all of it may have.
    budget: usize,
    /// What the next message is taken to weigh: the last large one, forgotten by and by.
    size: usize,
    /// Messages seen since it last changed.
    seen: usize,
}

impl Prefetch {
    /// At most `most` messages, and about `budget` bytes. Without a budget it is `most` for good.
    pub(super) fn new(most: u16, budget: Option<usize>) -> Self {
        let now = if budget.is_some() {
            most.min(FIRST)
        } else {
            most
        };
        let budget = budget.unwrap_or(usize::MAX);
        Self {
            now,
            most,
            budget,
            size: 0,
            seen: 0,
        }
    }

    /// Messages that may be unsettled at once.
    pub(super) fn now(&self) -> u16 {
        self.now
    }

    /// Notes the size of a message.
    pub(super) fn note(&mut self, bytes: usize) {
        self.seen += 1;
        self.size = bytes.max(self.size - self.size.saturating_sub(bytes).div_ceil(INERTIA));
    }

    /// Changes it if the messages that were noted ask for it: down at once, up when as many as there
    /// may be have come. Gives the new one.
    pub(super) fn change(&mut self) -> Option<u16> {
        let fits = self.budget / self.size.max(1);
        let fits = u16::try_from(fits).unwrap_or(u16::MAX).clamp(1, self.most);
        let up = fits.min(self.now.saturating_mul(STEP));
        let full = self.seen >= usize::from(self.now);
        if fits <= self.now / 2 {
            self.now = fits;
        } else if full && (up / 2 >= self.now || up == self.most && up > self.now) {
            self.now = up;
        } else {
            return None;
        }
        self.seen = 0;
        Some(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: usize = 1024 * 1024;
    const BUDGET: usize = 64 * MEGABYTE;

    /// What it comes to after as many messages of a size, and in how many steps.
    fn after(prefetch: &mut Prefetch, messages: usize, bytes: usize) -> (u16, usize) {
        let mut steps = 0;
        for _ in 0..messages {
            prefetch.note(bytes);
            steps += usize::from(prefetch.change().is_some());
        }
        (prefetch.now(), steps)
    }

    #[test]
    fn small_messages_soon_have_all_of_it() {
        let mut prefetch = Prefetch::new(1000, Some(BUDGET));
        assert_eq!(prefetch.now(), 16);
        let (now, steps) = after(&mut prefetch, 2000, 500);
        assert_eq!(now, 1000);
        assert_eq!(steps, 3, "16, 64, 256");
        assert_eq!(after(&mut prefetch, 100_000, 500), (1000, 0));
    }

    #[test]
    fn large_messages_have_as_many_as_fit_from_the_first_on() {
        let mut prefetch = Prefetch::new(1000, Some(BUDGET));
        after(&mut prefetch, 2000, 500);
        assert_eq!(after(&mut prefetch, 1, 10 * MEGABYTE), (6, 1));
        assert_eq!(after(&mut prefetch, 100, 10 * MEGABYTE), (6, 0));
        assert_eq!(after(&mut prefetch, 1, 100 * MEGABYTE), (1, 1));
        assert_eq!(after(&mut prefetch, 2000, 500).0, 1000, "and come back");
    }

    #[test]
    fn without_a_budget_or_room_it_stays_as_it_is() {
        let mut prefetch = Prefetch::new(128, None);
        assert_eq!(after(&mut prefetch, 1000, MEGABYTE), (128, 0));
        let mut prefetch = Prefetch::new(1, Some(BUDGET));
        assert_eq!(after(&mut prefetch, 1000, 500), (1, 0));
        assert_eq!(after(&mut prefetch, 10, 100 * MEGABYTE), (1, 0));
    }
}
