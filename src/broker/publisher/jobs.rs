//! What there is to publish, and where the answers go.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{PublishError, PublishResults, pulse::PATIENCE};
use crate::broker::message::Message;

/// A publish that the home broker does not confirm for this long, though it answers, wears its channel
/// out.
const WEAR: Duration = Duration::from_secs(2);

/// Messages to publish together, and who waits for what becomes of them.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) messages: Vec<Message>,
    pub(super) timeout: Duration,
    pub(super) reply: oneshot::Sender<PublishResults>,
}

/// A job whose messages are in flight.
struct Running {
    results: Vec<Option<Result<(), PublishError>>>,
    open: usize,
    reply: Option<oneshot::Sender<PublishResults>>,
}

/// Where the answer to one publish goes.
pub(super) struct Slot {
    job: Arc<Mutex<Running>>,
    index: usize,
    pub(super) timeout: Duration,
    /// When it tells that its channel is worn.
    pub(super) wears: Instant,
    pub(super) expires: Instant,
    /// However silent the line is.
    pub(super) latest: Instant,
}

impl Slot {
    /// Its time begins now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begin_anew(now);
        self.latest = self.expires + PATIENCE;
    }

    /// The line was silent until now.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.wears = now + WEAR.min(self.timeout);
        self.expires = now + self.timeout;
    }

    pub(super) fn fill(self, result: Result<(), PublishError>) {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = job.results.get_mut(self.index)
            && slot.is_none()
        {
            *slot = Some(result);
            job.open -= 1;
        }
        if job.open == 0
            && let Some(reply) = job.reply.take()
        {
            let results = std::mem::take(&mut job.results);
            // Nobody waits any more when the caller was stopped: its source stays unacknowledged.
            let _ = reply.send(
                results
                    .into_iter()
                    .map(|r| r.unwrap_or(Err(PublishError::Stopped)))
                    .collect(),
            );
        }
    }
}

/// Messages that wait for room on a channel.
pub(super) type Waiting = VecDeque<(Slot, Message)>;

/// Takes a job on, unless nobody waits for it any more: then it has been given up, and must not
/// be published after all.
pub(super) fn take(job: Job, waiting: &mut Waiting) {
    if job.reply.is_closed() {
        return;
    }
    let now = Instant::now();
    let count = job.messages.len();
    let running = Arc::new(Mutex::new(Running {
        results: vec![None; count],
        open: count,
        reply: Some(job.reply),
    }));
    for (index, message) in job.messages.into_iter().enumerate() {
        let slot = Slot {
            job: running.clone(),
            index,
            timeout: job.timeout,
            wears: now,
            expires: now,
            latest: now,
        };
        waiting.push_back((slot, message));
    }
}
