//! A fault, from its beginning to its end, and what it may bring about.

use std::time::{Duration, Instant};

/// Within this the bridge must work again by itself, once the broker is back.
pub const RECOVERY: Duration = Duration::from_secs(10);
/// Lines that one fault may write into the log of a bridge in a minute, besides those on failed
/// attempts.
const LINES: usize = 20;

/// A fault that is on.
#[must_use = "a fault is cleared, and its recovery awaited"]
pub struct Fault {
    pub(super) what: String,
    pub(super) from: Instant,
    /// How long after it is in force `/readyz` must say no, until [`Self::clearing`].
    pub(super) unready: Option<Duration>,
    pub(super) in_force: Instant,
    pub(super) clearing: Option<Instant>,
    pub(super) cleared: Option<Instant>,
    /// Whether what was in flight may be repeated.
    pub(super) repeats: bool,
    /// Whether `/readyz` must not notice.
    pub(super) unnoticed: bool,
    /// Whether it touches only those that the run hurts.
    pub(super) only_hurt: bool,
    /// How long the bridge may take to work again.
    pub(super) within: Duration,
    /// How many lines a bridge may write about it in a minute.
    pub(super) lines: usize,
}

impl Fault {
    /// It begins now; if the bridge must notice, `/readyz` must say so after this time.
    pub(super) fn begins(what: String, unready: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            what,
            from: now,
            unready,
            in_force: now,
            clearing: None,
            cleared: None,
            repeats: true,
            unnoticed: false,
            only_hurt: false,
            within: RECOVERY,
            lines: LINES,
        }
    }

    /// Nothing of the bridge and of its home broker is interrupted by it, so nothing may be repeated,
    /// and `/readyz` must not say no.
    pub fn that_repeats_nothing(mut self) -> Self {
        self.repeats = false;
        self.unnoticed = true;
        self
    }

    /// Says that making it took a while: only from now on must the bridge notice.
    pub fn in_force(&mut self) {
        self.in_force = Instant::now();
    }

    /// When it began.
    pub fn from(&self) -> Instant {
        self.from
    }

    /// Says that it is being undone: from now on the bridge may be ready again.
    pub fn clearing(&mut self) {
        self.clearing = Some(Instant::now());
    }

    /// Gives the bridge another time than [`RECOVERY`] to work again.
    pub fn within(&mut self, time: Duration) {
        self.within = time;
    }

    /// Allows another number of lines a minute than [`LINES`].
    pub fn may_say(&mut self, lines: usize) {
        self.lines = lines;
    }

    /// Says that it is undone: from now on the time of recovery runs.
    pub fn cleared(&mut self) {
        self.cleared = Some(Instant::now());
    }
}
