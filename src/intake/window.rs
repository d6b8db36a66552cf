//! Acknowledges events as they are settled, in as few steps as their order allows.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::broker::consumer::Settler;

/// How long settled events wait for an older one before they are acknowledged singly, each an entry of
/// its own in the log of the broker's queue;
const PATIENCE: Duration = Duration::from_millis(250);
/// and how long while there are many.
const IMPATIENCE: Duration = Duration::from_millis(50);
/// How long an acknowledgement waits for others to come with it.
const GATHERING: Duration = Duration::from_millis(1);
/// How often it is looked whether settled events have waited long enough for an older one.
const LOOK: Duration = Duration::from_millis(20);

/// The events of one session that are not acknowledged.
pub(super) struct Window {
    settler: Settler,
    /// Knows the task that acknowledges.
    tasks: TaskTracker,
    events: Mutex<Events>,
}

/// An event that waits for attempts or for what goes to slow lanes, besides what is published of it at
/// once.
pub(super) struct Held {
    tag: u64,
    unsettled: AtomicUsize,
}

/// Oldest first.
#[derive(Default)]
struct Events {
    waiting: VecDeque<Event>,
    /// So many are too many to be patient.
    many: usize,
    /// Whether a task is acknowledging: what is settled meanwhile, it takes along.
    acknowledging: bool,
}

struct Event {
    tag: u64,
    taken: Instant,
    settled: bool,
}

/// What to acknowledge.
#[derive(Debug, Default, PartialEq, Eq)]
struct Acks {
    /// This one and everything before it.
    up_to: Option<u64>,
    /// These, each by itself.
    singly: Vec<u64>,
}

impl Held {
    /// An event that waits for so many parts.
    pub(super) fn new(tag: u64, parts: usize) -> Self {
        Self {
            tag,
            unsettled: AtomicUsize::new(parts + 1),
        }
    }
}

impl Window {
    pub(super) fn new(settler: Settler, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            settler,
            tasks,
            events: Mutex::default(),
        })
    }

    /// What settles the events of this session.
    pub(super) fn settler(&self) -> &Settler {
        &self.settler
    }

    /// Notes events that have come, in the order of their tags, of which there are no more than
    /// `most` at a time.
    pub(super) fn take(&self, tags: impl Iterator<Item = u64>, most: u16) {
        let taken = Instant::now();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.many = usize::from(most).div_ceil(2);
        events.waiting.extend(tags.map(|tag| Event {
            tag,
            taken,
            settled: false,
        }));
    }

    /// One part of a held event is settled: an attempt, what went to slow lanes, or all else that was
    /// published.
    pub(super) fn part_settled(self: &Arc<Self>, held: &Held) {
        if held.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled([held.tag]);
        }
    }

    /// Everything made of these events is settled. Has them acknowledged, by the task that is at it
    /// already, if there is one: only one may be, since an acknowledgement of everything up to one
    /// must not overtake a single one, which the broker would then take for an unknown tag, closing
    /// the channel. It is a task of its own, since it goes on while there is more to acknowledge.
    pub(super) fn settled(self: &Arc<Self>, tags: impl IntoIterator<Item = u64>) {
        let mut tags = tags.into_iter().peekable();
        if tags.peek().is_none() {
            return;
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        tags.for_each(|tag| events.settled(tag));
        if !std::mem::replace(&mut events.acknowledging, true) {
            self.tasks.spawn(self.clone().acknowledge());
        }
    }

    async fn acknowledge(self: Arc<Self>) {
        let mut pause = GATHERING;
        loop {
            sleep(pause).await;
            let acks = {
                let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                let acks = events.acks(Instant::now());
                let nothing = acks == Acks::default();
                if nothing && !events.waiting.iter().any(|event| event.settled) {
                    events.acknowledging = false;
                    return;
                }
                pause = if nothing { LOOK } else { GATHERING };
                acks
            };
            if let Some(tag) = acks.up_to {
                self.settler.ack_up_to(tag).await;
            }
            join_all(acks.singly.into_iter().map(|tag| self.settler.ack(tag))).await;
        }
    }
}

impl Events {
    fn settled(&mut self, tag: u64) {
        let found = self.waiting.binary_search_by_key(&tag, |event| event.tag);
        if let Some(event) = found.ok().and_then(|at| self.waiting.get_mut(at)) {
            event.settled = true;
        }
    }

    fn acks(&mut self, now: Instant) -> Acks {
        let mut acks = Acks::default();
        while let Some(event) = self.waiting.pop_front_if(|event| event.settled) {
            acks.up_to = Some(event.tag);
        }
        // An event that waits for a slow subscriber must not keep those behind it.
        let patience = if self.waiting.len() < self.many {
            PATIENCE
        } else {
            IMPATIENCE
        };
        let oldest = self.waiting.front().map(|oldest| oldest.taken);
        if oldest.is_some_and(|taken| now.duration_since(taken) >= patience) {
            self.waiting.retain(|event| {
                if event.settled {
                    acks.singly.push(event.tag);
                }
                !event.settled
            });
        }
        acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(taken: Instant, tags: std::ops::RangeInclusive<u64>) -> Events {
        let waiting = tags.map(|tag| Event {
            tag,
            taken,
            settled: false,
        });
        Events {
            waiting: waiting.collect(),
            many: 4,
            acknowledging: false,
        }
    }

    fn acks(up_to: Option<u64>, singly: &[u64]) -> Acks {
        Acks {
            up_to,
            singly: singly.to_vec(),
        }
    }

    #[test]
    fn a_settled_prefix_is_one_acknowledgement() {
        let now = Instant::now();
        let mut events = events(now, 1..=5);
        events.settled(3);
        assert_eq!(events.acks(now), acks(None, &[]), "older ones are not");
        events.settled(1);
        assert_eq!(events.acks(now), acks(Some(1), &[]));
        for tag in [2, 4, 5] {
            events.settled(tag);
        }
        assert_eq!(events.acks(now), acks(Some(5), &[]));
        assert!(events.waiting.is_empty());
    }

    #[test]
    fn an_event_that_waits_does_not_keep_the_others() {
        let now = Instant::now();
        let mut few = events(now, 1..=3);
        few.settled(3);
        assert_eq!(few.acks(now + IMPATIENCE), acks(None, &[]), "it may end");
        assert_eq!(few.acks(now + PATIENCE), acks(None, &[3]));

        let mut events = events(now, 1..=4);
        for tag in [2, 3] {
            events.settled(tag);
        }
        assert_eq!(events.acks(now), acks(None, &[]));
        let later = now + IMPATIENCE;
        assert_eq!(events.acks(later), acks(None, &[2, 3]), "there are many");
        let later = now + PATIENCE;
        assert_eq!(events.acks(later), acks(None, &[]), "these are done with");
        events.settled(4);
        assert_eq!(events.acks(later), acks(None, &[4]));
        events.settled(1);
        assert_eq!(events.acks(later), acks(Some(1), &[]));
    }
}
