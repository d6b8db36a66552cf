//! Acknowledges batches of events in as few steps as their order allows.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::broker::consumer::Settler;

/// How long a finished batch waits for an older one before its events are acknowledged singly.
const PATIENCE: Duration = Duration::from_secs(1);

/// The batches of one session that are not acknowledged, oldest first.
pub(super) struct Window {
    settler: Settler,
    batches: Mutex<VecDeque<Batch>>,
}

struct Batch {
    tags: Vec<u64>,
    opened: Instant,
    done: bool,
}

/// What to acknowledge.
#[derive(Debug, Default, PartialEq, Eq)]
struct Acks {
    /// This one and everything before it.
    up_to: Option<u64>,
    /// These, each by itself.
    singly: Vec<u64>,
}

impl Window {
    pub(super) fn new(settler: Settler) -> Self {
        Self {
            settler,
            batches: Mutex::default(),
        }
    }

    /// What settles the events of this session.
    pub(super) fn settler(&self) -> &Settler {
        &self.settler
    }

    /// Notes a batch, known from now on by its last tag.
    pub(super) async fn open(&self, tags: Vec<u64>) {
        let batch = Batch {
            tags,
            opened: Instant::now(),
            done: false,
        };
        self.batches.lock().await.push_back(batch);
    }

    /// Everything made of the batch is confirmed.
    ///
    /// The lock is held until the last acknowledgement is written: one that covers all before it
    /// must not overtake a single one, which the broker would then take for an unknown tag, closing
    /// the channel.
    pub(super) async fn done(&self, last_tag: u64) {
        let mut batches = self.batches.lock().await;
        let acks = acks(&mut batches, last_tag, Instant::now());
        if let Some(tag) = acks.up_to {
            self.settler.ack_up_to(tag).await;
        }
        for tag in acks.singly {
            self.settler.ack(tag).await;
        }
    }
}

fn acks(batches: &mut VecDeque<Batch>, last_tag: u64, now: Instant) -> Acks {
    if let Some(batch) = batches
        .iter_mut()
        .find(|batch| batch.tags.last() == Some(&last_tag))
    {
        batch.done = true;
    }
    let mut acks = Acks::default();
    while batches.front().is_some_and(|batch| batch.done) {
        acks.up_to = batches
            .pop_front()
            .and_then(|batch| batch.tags.last().copied())
            .or(acks.up_to);
    }
    // An old batch that hangs on one subscriber must not keep the finished ones behind it.
    if batches
        .front()
        .is_some_and(|oldest| now.duration_since(oldest.opened) >= PATIENCE)
    {
        batches.retain_mut(|batch| {
            if batch.done {
                acks.singly.append(&mut batch.tags);
            }
            !batch.done
        });
    }
    acks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(opened: Instant, groups: &[&[u64]]) -> VecDeque<Batch> {
        groups
            .iter()
            .map(|tags| Batch {
                tags: tags.to_vec(),
                opened,
                done: false,
            })
            .collect()
    }

    #[test]
    fn a_finished_prefix_is_one_acknowledgement() {
        let now = Instant::now();
        let mut open = batches(now, &[&[1, 2], &[3], &[4, 5]]);
        assert_eq!(
            acks(&mut open, 3, now),
            Acks::default(),
            "the first batch is not done"
        );
        assert_eq!(
            acks(&mut open, 2, now),
            Acks {
                up_to: Some(3),
                singly: vec![]
            }
        );
        assert_eq!(
            acks(&mut open, 5, now),
            Acks {
                up_to: Some(5),
                singly: vec![]
            }
        );
        assert!(open.is_empty());
    }

    #[test]
    fn a_batch_that_hangs_does_not_keep_the_others() {
        let now = Instant::now();
        let mut open = batches(now, &[&[1], &[2, 3], &[4]]);
        let later = now + PATIENCE;
        assert_eq!(
            acks(&mut open, 3, later),
            Acks {
                up_to: None,
                singly: vec![2, 3]
            }
        );
        assert_eq!(
            acks(&mut open, 4, later),
            Acks {
                up_to: None,
                singly: vec![4]
            }
        );
        assert_eq!(
            acks(&mut open, 1, later),
            Acks {
                up_to: Some(1),
                singly: vec![]
            }
        );
    }
}
