//! Replays dead letters in the background: each starts again at its first attempt, with the same
//! webhook id. It is published and confirmed before it is marked, so that a restart repeats at most
//! the batch in flight.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    broker::{
        connection::OPERATION_TIMEOUT,
        home::Home,
        message::Message,
        publisher::{PublishError, Publisher},
    },
    delivery::{Delivery, Pace, wire::Lanes},
    registry::Registry,
    store::{
        Store, StoreError,
        dead_letters::{DeadLetter, Kind},
        filter::Filter,
        replays::{Batch, Count, Progress, RENEWAL, Replay, Seen, Skipped},
    },
    subscriber::SubscriberId,
    webhook::WebhookType,
};

/// How many a second, unless somebody says otherwise.
pub const DEFAULT_RATE: u32 = 500;
/// The most a second that may be asked for.
pub const HIGHEST_RATE: u32 = 10_000;
/// How often it is looked for replays that other bridges have begun, or left.
const LOOK: Duration = Duration::from_secs(2);
/// The pause before something is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Begins, watches and stops replays. Cheap to clone.
#[derive(Clone)]
pub struct Replays(Arc<Inner>);

struct Inner {
    store: Store,
    registry: Registry,
    lanes: Lanes,
    publisher: Publisher,
    broker: Arc<Home>,
    events_queue: String,
    /// Tells this bridge from the others.
    owner: String,
    begun: Notify,
}

/// What becomes of one dead letter of a batch.
enum Plan {
    Publish(Message),
    Gone,
    Disabled,
    Unusable,
}

impl Replays {
    /// Replays for this store. Nothing is done before [`Self::run`].
    pub fn new(
        store: Store,
        registry: Registry,
        lanes: Lanes,
        publisher: Publisher,
        broker: Arc<Home>,
        events_queue: String,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            registry,
            lanes,
            publisher,
            broker,
            events_queue,
            owner: Uuid::new_v4().to_string(),
            begun: Notify::new(),
        }))
    }

    /// Has every dead letter that `filter` lets through, and that is not replayed yet, replayed in the
    /// background, at most `rate` a second. Replays run one after the other.
    pub async fn begin(&self, filter: Filter, rate: u32, by: &str) -> Result<Replay, StoreError> {
        let rate = rate.clamp(1, HIGHEST_RATE);
        let replay = self.0.store.begin_replay(&filter, rate, by).await?;
        info!(
            replay = replay.id,
            total = replay.total,
            by,
            "a replay begins"
        );
        self.0.begun.notify_one();
        Ok(replay)
    }

    /// What [`Self::begin`] would do.
    pub async fn count(&self, filter: &Filter) -> Result<Count, StoreError> {
        let subscribers = self.0.registry.live().load();
        let mut count = Count::default();
        for (kind, subscriber, letters) in self.0.store.count_replay(filter).await? {
            let letters = u64::try_from(letters).unwrap_or(0);
            count.total += letters;
            let Some(id) = subscriber else {
                if kind == Kind::Dead.as_str() {
                    count.skipped.unusable += letters;
                }
                continue;
            };
            match subscribers.get(&id) {
                Some(subscriber) if subscriber.enabled => {}
                found => count.skipped.add(&id, found.is_none(), letters),
            }
        }
        Ok(count)
    }

    /// The latest replays, the last begun first, at most `limit`; older than `before` if given.
    pub async fn list(&self, before: Option<i64>, limit: usize) -> Result<Vec<Replay>, StoreError> {
        self.0.store.replays(before, limit).await
    }

    /// One replay.
    pub async fn get(&self, id: i64) -> Result<Replay, StoreError> {
        self.0.store.replay(id).await
    }

    /// Stops a replay after the batch in flight. One that has ended stays as it is.
    pub async fn stop(&self, id: i64) -> Result<Replay, StoreError> {
        self.0.store.stop_replay(id).await?;
        self.get(id).await
    }

    /// Does the replays whose turn it is, those that other bridges left, too, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.0;
        while !stop.is_cancelled() {
            let ended = match inner.store.claim_replay(&inner.owner).await {
                Ok(Some(replay)) => inner.replay(replay, &stop).await,
                Ok(None) => {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = inner.begun.notified() => {}
                        () = tokio::time::sleep(LOOK) => {}
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                debug!("replays wait: {error}");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        }
        if let Err(error) = inner.store.leave_replays(&inner.owner).await {
            debug!("replays are left to the next bridge only in a while: {error}");
        }
    }
}

impl Inner {
    /// Goes on with a replay until it is done, stopped, another bridge's, or the store is away.
    async fn replay(&self, mut replay: Replay, stop: &CancellationToken) -> Result<(), StoreError> {
        debug!(replay = replay.id, "goes on");
        while !stop.is_cancelled() {
            let began = Instant::now();
            let Some(batch) = self.store.replay_batch(&replay).await? else {
                self.store.replay_done(&replay, &self.owner).await?;
                let replay = self.store.replay(replay.id).await?;
                info!(
                    replay = replay.id,
                    replayed = replay.replayed,
                    gone = replay.skipped.gone,
                    disabled = replay.skipped.disabled,
                    unusable = replay.skipped.unusable,
                    "a replay is done"
                );
                return Ok(());
            };
            let batch = Box::pin(async {
                let Some(progress) = self.publish(&replay, batch, stop).await? else {
                    return Ok(None);
                };
                let goes_on = self.note(&replay, &progress, stop).await;
                Ok::<_, StoreError>(goes_on.then_some(progress))
            });
            let done = tokio::select! {
                done = batch => done?,
                () = self.renewing(&replay) => None,
            };
            let Some(progress) = done else {
                return Ok(());
            };
            let published = u32::try_from(progress.replayed.len()).unwrap_or(u32::MAX);
            let lasts = Duration::from_secs(1) * published / replay.rate.max(1);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep_until(began + lasts) => {}
            }
            replay = self.store.replay(replay.id).await?;
        }
        Ok(())
    }

    /// Keeps the replay while a batch takes long: a broker that blocks its publishers holds a publish up
    /// for as long as it likes, and another bridge would publish the same. Never ends.
    async fn renewing(&self, replay: &Replay) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = self.store.renew_replay(replay, &self.owner, None).await {
                debug!(replay = replay.id, "may become another bridge's: {error}");
            }
        }
    }

    /// Publishes a batch until all of it is confirmed. Nothing if the bridge stops before.
    async fn publish(
        &self,
        replay: &Replay,
        batch: Batch,
        stop: &CancellationToken,
    ) -> Result<Option<Progress>, StoreError> {
        let mut skipped = Skipped::default();
        let mut waiting = Vec::with_capacity(batch.letters.len());
        let mut replayed = Vec::with_capacity(batch.letters.len());
        for (letter, payload) in batch.letters {
            let subscriber = letter.subscriber.clone().unwrap_or_default();
            match self.plan(&letter, payload).await? {
                Plan::Publish(message) => waiting.push((Seen::from(&letter), message)),
                Plan::Gone => skipped.add(&subscriber, true, 1),
                Plan::Disabled => skipped.add(&subscriber, false, 1),
                Plan::Unusable => skipped.unusable += 1,
            }
        }
        while !waiting.is_empty() {
            let messages = waiting.iter().map(|(_, message)| message.clone()).collect();
            let results = self.publisher.publish(messages, OPERATION_TIMEOUT).await;
            let mut failed = None;
            let mut left = Vec::new();
            for ((seen, message), result) in waiting.into_iter().zip(results) {
                match result {
                    Ok(()) => replayed.push(seen),
                    // It will never be anything else.
                    Err(PublishError::Invalid(_)) => skipped.unusable += 1,
                    Err(error) => {
                        failed = Some(error);
                        left.push((seen, message));
                    }
                }
            }
            waiting = left;
            let Some(error) = failed else { break };
            self.wait_for_broker(replay, &error, stop).await;
            if stop.is_cancelled() {
                // What was confirmed is marked all the same.
                let at = replay.position();
                let progress = Progress {
                    replayed,
                    skipped: Skipped::default(),
                    at,
                };
                self.note(replay, &progress, stop).await;
                return Ok(None);
            }
        }
        Ok(Some(Progress {
            replayed,
            skipped,
            at: batch.at,
        }))
    }

    async fn wait_for_broker(
        &self,
        replay: &Replay,
        error: &PublishError,
        stop: &CancellationToken,
    ) {
        let why = format!("the home broker does not take what is published: {error}");
        if replay.trouble.as_ref() != Some(&why) {
            debug!(replay = replay.id, "{why}");
        }
        if let Err(error) = self
            .store
            .renew_replay(replay, &self.owner, Some(&why))
            .await
        {
            debug!("cannot say so in the store: {error}");
        }
        if matches!(
            error,
            PublishError::ChannelClosed(_) | PublishError::Returned(_)
        ) {
            self.broker.repair_now().await;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }

    /// Marks what was published. It is not to be published again because the store is away just now,
    /// so this waits for it. Tells whether the replay is to go on.
    async fn note(&self, replay: &Replay, progress: &Progress, stop: &CancellationToken) -> bool {
        loop {
            match self
                .store
                .replay_progress(replay, &self.owner, progress)
                .await
            {
                Ok(goes_on) => return goes_on,
                Err(error) => debug!("what was replayed cannot be marked yet: {error}"),
            }
            if stop.is_cancelled() {
                warn!(
                    replay = replay.id,
                    letters = progress.replayed.len(),
                    "replayed dead letters could not be marked, and will be replayed once more"
                );
                return false;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// What becomes of a dead letter. The error says why that cannot be told now.
    async fn plan(&self, letter: &DeadLetter, payload: Vec<u8>) -> Result<Plan, StoreError> {
        let delivery = match delivery(letter, payload) {
            Ok(delivery) => delivery,
            // A lost message that is no delivery can only have been an event.
            Err(payload) if letter.kind != Kind::Dead => {
                return Ok(Plan::Publish(self.event(payload)));
            }
            Err(_) => return Ok(Plan::Unusable),
        };
        Ok(match self.registry.find(&delivery.subscriber).await? {
            None => Plan::Gone,
            Some(subscriber) if !subscriber.enabled => Plan::Disabled,
            Some(_) => Plan::Publish(self.lanes.first(&delivery, Pace::Fast)),
        })
    }

    /// A domain event on its way back to the queue that it came from.
    fn event(&self, payload: Vec<u8>) -> Message {
        Message::plain(
            "",
            self.events_queue.clone(),
            Uuid::new_v4().to_string(),
            payload,
        )
    }
}

/// The delivery that a dead letter was, replayed once more; or its payload, if it was none.
fn delivery(letter: &DeadLetter, payload: Vec<u8>) -> Result<Delivery, Vec<u8>> {
    let webhook_id = letter.webhook_id.as_deref();
    let (Some(webhook_id), Some(kind), Some(subscriber)) = (
        webhook_id.and_then(|id| Uuid::try_parse(id).ok()),
        letter.webhook.as_deref().and_then(WebhookType::from_name),
        letter.subscriber.as_deref(),
    ) else {
        return Err(payload);
    };
    Ok(Delivery {
        webhook_id,
        kind,
        subscriber: SubscriberId::new(subscriber),
        payload: payload.into(),
        event_time: letter.event_time.unwrap_or(Timestamp::UNIX_EPOCH),
        received_at: letter.received_at.unwrap_or(letter.failed_at),
        replay: u32::try_from(letter.replay.saturating_add(1)).unwrap_or(u32::MAX),
        case: letter.case.clone(),
        traceparent: letter.traceparent.clone(),
    })
}
