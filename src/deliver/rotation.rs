//! What waits in a slow lane for its subscriber's turn lets pass who is behind it: it goes to the lane's
//! end, but only while there may be somebody, and at a pace that all lanes share. Moving a delivery costs
//! the broker as much as a new one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

/// How long a delivery stays at the head of its lane at least, for its turn.
const STAY: Duration = Duration::from_millis(100);
/// The time between two that let others pass, 200 a second in each bridge, where several slow
/// subscribers share a lane;
const SHARED: Duration = Duration::from_millis(5);
/// and 50 a second where this bridge knows of one only: others may still be behind it.
const ALONE: Duration = Duration::from_millis(20);
/// What was not used of the pace for longer than this is lost, so that they do not come in bursts.
const SLACK: Duration = Duration::from_millis(20);
/// So many are moved at the same moment, which costs the broker less than as many moments do. Fewer than
/// a lane may lack and still be full.
const TOGETHER: u32 = 5;

/// The pace of all lanes of a bridge.
#[derive(Debug)]
pub struct Rotation {
    shared: Steps,
    alone: Steps,
}

/// Steps in order, with so much time between them at least, on average: [`TOGETHER`] are one moment.
#[derive(Debug)]
struct Steps {
    apart: Duration,
    since: Instant,
    next: Mutex<Instant>,
}

/// What the bridge holds of one lane.
#[derive(Debug)]
pub(super) struct Lane {
    held: AtomicUsize,
    most: usize,
}

/// A delivery that is held; no longer when this is dropped.
#[derive(Debug)]
pub(super) struct Held(Arc<Lane>);

impl Default for Rotation {
    fn default() -> Self {
        Self {
            shared: Steps::new(SHARED),
            alone: Steps::new(ALONE),
        }
    }
}

impl Steps {
    fn new(apart: Duration) -> Self {
        let since = Instant::now();
        Self {
            apart,
            since,
            next: Mutex::new(since),
        }
    }

    /// Waits for the next step. Nothing is held meanwhile: who has its turn before stops waiting without
    /// a word, and the others do not wait for it.
    async fn step(&self) {
        let now = Instant::now();
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let step = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let step = (*next).max(earliest);
            *next = step + self.apart;
            step
        };
        sleep_until(self.moment(step)).await;
    }

    /// The moment at which a step is made: the next, and never before its time.
    fn moment(&self, step: Instant) -> Instant {
        let between = self.apart * TOGETHER;
        let moments = step
            .duration_since(self.since)
            .as_nanos()
            .div_ceil(between.as_nanos());
        let moment = self.since + between * u32::try_from(moments).unwrap_or(u32::MAX);
        moment.max(step)
    }
}

impl Lane {
    /// One of which the bridge holds so many deliveries at most.
    pub(super) fn new(most: u16) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            most: most.into(),
        })
    }

    pub(super) fn hold(self: &Arc<Self>) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    /// Whether there may be more in the lane than what is held: all that may be, but for what has just
    /// been moved and has not been followed by another yet.
    fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.most - self.most / 8
    }
}

impl Held {
    /// Waits until this delivery has to let others pass, where `shared` tells whether it is known that
    /// there are others.
    pub(super) async fn lets_pass(&self, rotation: &Rotation, shared: impl Fn() -> bool) {
        loop {
            sleep(STAY).await;
            if self.0.is_full() {
                let steps = if shared() {
                    &rotation.shared
                } else {
                    &rotation.alone
                };
                steps.step().await;
                if self.0.is_full() {
                    return;
                }
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::{future::join_all, poll};
    use tokio::time::{advance, timeout};

    use super::*;

    const LONG: Duration = Duration::from_mins(5);

    #[tokio::test(start_paused = true)]
    async fn who_has_nobody_behind_it_stays() {
        let (lane, rotation) = (Lane::new(3), Rotation::default());
        let held = [lane.hold(), lane.hold()];
        let passing = join_all(held.iter().map(|one| one.lets_pass(&rotation, || true)));
        let passed = timeout(LONG, passing).await;
        assert!(passed.is_err(), "the lane is not full");
        let more = lane.hold();
        more.lets_pass(&rotation, || true).await;
        drop(more);
        let passed = timeout(LONG, held[0].lets_pass(&rotation, || true)).await;
        assert!(passed.is_err(), "the lane is not full any more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_go_on_waiting_keeps_nobody() {
        let (lane, rotation) = (Lane::new(20), Rotation::default());
        let held: Vec<_> = (0..20).map(|_| lane.hold()).collect();
        let passing = |one| Box::pin(Held::lets_pass(one, &rotation, || true));
        let mut all: Vec<_> = held.iter().map(passing).collect();
        for one in &mut all {
            assert!(poll!(one).is_pending());
        }
        advance(STAY).await;
        let mut left = Vec::new();
        for mut one in all {
            if poll!(&mut one).is_pending() {
                left.push(one);
            }
        }
        assert!(!left.is_empty(), "some wait for their step");
        // These wait no more, and are not dropped either, as in an attempt.
        let other = timeout(LONG, passing(&held[0])).await;
        other.expect("nobody keeps the other");
        drop(left);
    }

    #[tokio::test(start_paused = true)]
    async fn all_lanes_share_the_pace() {
        let rotation = Rotation::default();
        for (shared, apart) in [(true, SHARED), (false, ALONE)] {
            let lanes: Vec<_> = (0..4).map(|_| Lane::new(100)).collect();
            let held: Vec<_> = lanes
                .iter()
                .flat_map(|lane| (0..100).map(|_| lane.hold()))
                .collect();
            let began = Instant::now();
            // They stay held, so that all are full until the last has passed.
            let passing = held.iter().map(async |one| {
                one.lets_pass(&rotation, || shared).await;
                Instant::now()
            });
            let moments: HashSet<_> = join_all(passing).await.into_iter().collect();
            let (took, least) = (began.elapsed(), apart * 399);
            assert!(took >= least && took < least + 2 * STAY, "{took:?}");
            let most = 400 / usize::try_from(TOGETHER).unwrap() + 1;
            assert!(moments.len() <= most, "{} moments", moments.len());
        }
    }
}
