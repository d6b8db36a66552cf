//! The archiver: moves dead letters from the queues `dead`, `rejected` and `lost` into the store:
//! insert, commit, then acknowledge. While the store is away it does not consume, and what it had is
//! in its queue again. It also keeps count of what the store holds, and removes what is old.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    broker::{
        consumer::{Options, Session, Settler},
        message::{Message, Received},
        publisher::PublishError,
    },
    delivery::letter::letter,
    store::{
        NewDeadLetter, Store,
        dead_letters::{Kind, Removed},
    },
    strays::{self, Strays},
    telemetry::metrics::Metrics,
};

/// Dead letters that are put into the store together: fewer where it is too slow for so many.
const BATCH: usize = 500;
const SMALLEST_BATCH: usize = 16;
/// How many wait here meanwhile, at most, and what they may weigh together.
const PREFETCH: u16 = 1_000;
const BYTES: usize = 32 * 1024 * 1024;
/// How often what the store holds is counted: the more that takes, the less often, for every bridge
/// does it. No more than for a hundredth of the time, but at least so often.
const COUNT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
const SHARE: u32 = 100;
/// How often it is told whether the store is there.
const TELL: Duration = Duration::from_secs(5);
/// After so many the database counts again what it holds. PostgreSQL does that by itself, but up to a
/// minute later, and until then a page of 100,000 can take it 50 to 80 ms.
const ANALYSE: u64 = 10_000;
/// How often what is old is removed, at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));

/// Moves dead letters into the store.
pub struct Archive {
    store: Store,
    strays: Strays,
    metrics: Arc<Metrics>,
    batch: AtomicUsize,
    /// Put into the store since that was last analysed.
    fresh: AtomicU64,
}

impl Archive {
    /// Moves dead letters into this store, and counts them there; but not strays.
    pub fn new(store: Store, strays: Strays, metrics: Arc<Metrics>) -> Self {
        let batch = AtomicUsize::new(BATCH);
        Self {
            store,
            strays,
            metrics,
            batch,
            fresh: AtomicU64::new(0),
        }
    }

    /// How the queue of this kind, under the names that begin with `prefix`, is consumed.
    pub fn options(&self, prefix: &str, kind: Kind) -> Options {
        Options {
            queue: format!("{prefix}.{}", kind.as_str()),
            prefetch: PREFETCH,
            bytes: Some(BYTES),
            gate: Some(self.store.there()),
            listens_to: None,
        }
    }

    /// Moves dead letters for one session of a consumer.
    pub async fn work(self: Arc<Self>, mut session: Session, kind: Kind) {
        let settler = session.settler();
        while let Some(chunk) = session.next(self.batch.load(Ordering::Relaxed)).await {
            let (strays, chunk) = self.sorted(kind, chunk);
            if let Err(error) = self.send_on(strays, &settler).await {
                debug!("strays wait in the queue lost: {error}");
                return session.end().await;
            }
            let Some(last) = chunk.last().map(|received| received.tag) else {
                continue;
            };
            let count = chunk.len();
            let now = Timestamp::now();
            let letters = chunk.into_iter().map(|one| new_letter(kind, one, now));
            match self.store.archive(letters.collect()).await {
                Ok(()) => {
                    self.metrics.store.archived(kind.as_str(), count);
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    self.fresh.fetch_add(count, Ordering::Relaxed);
                    let batch = self.batch.load(Ordering::Relaxed);
                    self.batch.store((2 * batch).min(BATCH), Ordering::Relaxed);
                    settler.ack_up_to(last).await;
                }
                Err(error) => {
                    debug!(
                        queue = kind.as_str(),
                        "dead letters wait in their queue: {error}"
                    );
                    self.batch
                        .store((count / 2).max(SMALLEST_BATCH), Ordering::Relaxed);
                    // Not one after the other: its end gives all of them back at once.
                    return session.end().await;
                }
            }
        }
    }

    /// Sends strays on, and acknowledges them at once: they must not come again with the rest if the
    /// store does not take that.
    async fn send_on(
        &self,
        strays: Vec<(u64, Message)>,
        settler: &Settler,
    ) -> Result<(), PublishError> {
        let (tags, strays): (Vec<_>, Vec<_>) = strays.into_iter().unzip();
        self.strays.send_on(strays).await?;
        strays::say(tags.len());
        for tag in tags {
            settler.ack(tag).await;
        }
        Ok(())
    }

    /// What only strayed into this queue, with its tags, on to where it belongs; and what is to be
    /// kept.
    fn sorted(&self, kind: Kind, chunk: Vec<Received>) -> (Vec<(u64, Message)>, Vec<Received>) {
        if kind != Kind::Lost {
            return (Vec::new(), chunk);
        }
        let (mut strays, mut kept) = (Vec::new(), Vec::new());
        for received in chunk {
            match self.strays.onward(&received) {
                Some(stray) => strays.push((received.tag, stray)),
                None => kept.push(received),
            }
        }
        (strays, kept)
    }

    /// Counts what the store holds, and tells whether it is there, until `stop`.
    pub async fn keep_count(&self, stop: CancellationToken) {
        let mut due = Instant::now();
        loop {
            let there = self.store.away().is_none();
            if !there {
                due = Instant::now();
            } else if due <= Instant::now() {
                due = Instant::now() + self.count().await;
            }
            if there && self.fresh.load(Ordering::Relaxed) >= ANALYSE {
                self.analyse().await;
            }
            self.metrics.store.there(self.store.away().is_none());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TELL) => {}
            }
        }
    }

    /// Counts what the store holds, and gives the time until that may be done again.
    async fn count(&self) -> Duration {
        let began = Instant::now();
        match self.store.open_dead_letters().await {
            Ok(open) => self.metrics.store.held(open),
            Err(error) => debug!("what the store holds is counted later: {error}"),
        }
        (began.elapsed() * SHARE).clamp(COUNT.0, COUNT.1)
    }

    /// Keeps what the store holds quick to find.
    async fn analyse(&self) {
        self.fresh.store(0, Ordering::Relaxed);
        if let Err(error) = self.store.analyse().await {
            debug!("the store is not analysed: {error}");
        }
    }

    /// Removes what was kept for `store.dead_letter_retention`, and keeps the rest quick to find, until
    /// `stop`.
    pub async fn sweep(&self, stop: CancellationToken) {
        let retention = self.store.retention();
        let pause = retention.map_or(SWEEP.1, |kept| (kept / 10).clamp(SWEEP.0, SWEEP.1));
        loop {
            let there = self.store.away().is_none();
            if there {
                self.analyse().await;
            }
            if there && let Some(retention) = retention {
                let before = Timestamp::now().checked_sub(retention);
                let before = before.unwrap_or(Timestamp::UNIX_EPOCH);
                let Removed { count, ended } = self.store.delete_older(before).await;
                if count > 0 {
                    self.metrics.store.removed(count);
                    info!(
                        removed = count,
                        "dead letters older than store.dead_letter_retention are removed"
                    );
                }
                if let Err(error) = ended {
                    debug!("old dead letters stay for now: {error}");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

fn new_letter(kind: Kind, received: Received, now: Timestamp) -> NewDeadLetter {
    let letter = letter(&received, kind == Kind::Rejected);
    let message_id = received.message_id().unwrap_or_default().to_owned();
    let (first_reason, first_detail) = letter.first.unzip();
    let delivery = letter.consumed.map(|consumed| consumed.delivery);
    let routing_key = received.routing_key;
    let detail = match kind {
        Kind::Lost if delivery.is_some() => {
            format!(
                "no queue took it (routing key {routing_key}); {}",
                letter.detail
            )
        }
        _ => letter.detail,
    };
    NewDeadLetter {
        kind,
        message_id,
        webhook_id: delivery.as_ref().map(|one| one.webhook_id.to_string()),
        replay: delivery.as_ref().map_or(0, |one| one.replay.into()),
        subscriber: delivery.as_ref().map(|one| one.subscriber.to_string()),
        webhook: delivery.as_ref().map(|one| one.kind.name().to_owned()),
        case: delivery.as_ref().and_then(|one| one.case.clone()),
        reason: letter.reason,
        detail,
        attempts: letter.attempts,
        first_reason,
        first_detail,
        event_time: delivery.as_ref().map(|one| one.event_time),
        received_at: delivery.as_ref().map(|one| one.received_at),
        failed_at: letter.failed_at.unwrap_or(now),
        routing_key,
        redelivered: received.redelivered,
        traceparent: delivery.and_then(|one| one.traceparent),
        payload: received.body.into(),
    }
}
