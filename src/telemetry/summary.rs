//! Lines of the log that would come by the thousand while a fault lasts, summed up: the first of
//! each kind is said at once, and then at most one in [`EVERY`], the latest, with how many were not
//! said. What is counted is always said in the end.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The least time between two lines of one kind.
pub const EVERY: Duration = Duration::from_secs(10);
/// Kinds told apart at once. What is of yet another kind shares one line.
const KINDS: usize = 256;

/// Sums up lines `L` by their kind `K`.
///
/// The lines said and their counts of unsaid ones add up to what was noted, once [`Self::flush`] was
/// called. Somebody must call [`Self::sweep`] now and then, or the last counts of a burst are said
/// only with the next line or at the end. A kind that is quiet for [`EVERY`] is forgotten.
pub struct Summary<K, L> {
    say: fn(&L, u64),
    noted: Mutex<Noted<K, L>>,
}

struct Noted<K, L> {
    /// `None` is for what came when there were as many kinds as there may be.
    kinds: HashMap<Option<K>, Kind<L>>,
    ended: bool,
}

struct Kind<L> {
    said: Instant,
    unsaid: u64,
    /// The last of those that were not said.
    latest: Option<L>,
}

impl<L> Kind<L> {
    /// Says the latest, if there is any that was not said.
    fn say(&mut self, say: fn(&L, u64)) -> bool {
        let Some(latest) = self.latest.take() else {
            return false;
        };
        say(&latest, mem::take(&mut self.unsaid) - 1);
        self.said = Instant::now();
        true
    }
}

impl<K: Eq + Hash, L> Summary<K, L> {
    /// Nothing noted yet. `say` writes a line, with how many like it came before and were not said.
    pub fn new(say: fn(&L, u64)) -> Self {
        Self {
            say,
            noted: Mutex::new(Noted {
                kinds: HashMap::new(),
                ended: false,
            }),
        }
    }

    /// Says a line, or keeps it to be said later.
    pub fn note(&self, kind: K, line: L) {
        let mut noted = self.lock();
        if noted.ended {
            return (self.say)(&line, 0);
        }
        let known = Some(kind);
        let key = if noted.kinds.contains_key(&known) || noted.kinds.len() < KINDS {
            known
        } else {
            None
        };
        let now = Instant::now();
        if let Some(kind) = noted.kinds.get_mut(&key) {
            kind.unsaid += 1;
            kind.latest = Some(line);
            if now.duration_since(kind.said) >= EVERY {
                kind.say(self.say);
            }
            return;
        }
        (self.say)(&line, 0);
        let kind = Kind {
            said: now,
            unsaid: 0,
            latest: None,
        };
        noted.kinds.insert(key, kind);
    }

    /// Says the counts whose time has come, and forgets what has become quiet.
    pub fn sweep(&self) {
        let now = Instant::now();
        let say = self.say;
        self.lock()
            .kinds
            .retain(|_, kind| now.duration_since(kind.said) < EVERY || kind.say(say));
    }

    /// Says every count that is left. What is noted from now on is said at once: nobody will come to
    /// say it later.
    pub fn flush(&self) {
        let mut noted = self.lock();
        noted.ended = true;
        for (_, mut kind) in noted.kinds.drain() {
            kind.say(self.say);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted<K, L>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, L> fmt::Debug for Summary<K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summary").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
