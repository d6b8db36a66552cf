//! What a run does by chance. All of it follows from one seed, so that a run can be repeated.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The variable that repeats a run.
const SEED: &str = "FAULTS_SEED";

/// A stream of numbers that a seed decides (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The stream of this seed, for this purpose: two purposes get streams of their own.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let start = purpose
            .bytes()
            .fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
        Self(start)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 up to, and without, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A time between these two, to the millisecond.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis();
        let span = u64::try_from(span).unwrap();
        least + Duration::from_millis(self.below(span + 1))
    }

    /// One of these.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        let index = usize::try_from(self.below(of.len() as u64)).unwrap();
        &of[index]
    }
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The seed that the environment gives, or one from the clock.
pub fn seed() -> u64 {
    env::var(SEED).map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            now.as_secs() % 1_000_000
        },
        |seed| seed.parse().expect("FAULTS_SEED is a number"),
    )
}

/// How an endpoint answers one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    Status(u16),
    /// No answer at all.
    Hang,
    /// 200, and the connection breaks within the body.
    Reset,
    /// 200, and then a byte a second.
    Drip,
}

impl Mood {
    /// How the moody endpoint takes this attempt: one in five first ones fails, and every other
    /// second one.
    pub fn of(seed: u64, event: usize, attempt: u8) -> Self {
        let mut chance = Chance::new(seed, &format!("mood {event} {attempt}"));
        let fails = match attempt {
            1 => chance.below(5) == 0,
            _ => chance.below(2) == 0,
        };
        if !fails {
            return Self::Well;
        }
        *chance.pick(&[
            Self::Status(500),
            Self::Status(404),
            Self::Status(301),
            Self::Hang,
            Self::Reset,
            Self::Drip,
        ])
    }
}
