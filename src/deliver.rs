//! Second half of the line: takes deliveries from the lanes, attempts them, and settles them. Which
//! attempt it is, the lane tells; what follows from its outcome, [`settle`] decides.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    broker::{
        connection::OPERATION_TIMEOUT,
        consumer::{Session, Settler},
        message::{Message, Received},
        publisher::Publisher,
    },
    delivery::{
        Attempt, Delivery, Failure, Outcome, Reason,
        settlement::{Settlement, settle},
        wire::{self, Consumed, Lanes},
    },
    subscriber::{LiveSubscribers, Subscriber, Target},
    telemetry::{
        log_failure,
        metrics::{Metrics, Transport},
    },
};

pub mod amqp;
pub mod guard;
pub mod http;
pub mod limits;

use amqp::AmqpSender;
use http::HttpSender;
use limits::Limits;

/// Deliveries taken from a lane at a time.
const CHUNK: usize = 64;
/// The pause before an attempt that the home broker's absence undid is made again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// What delivering needs.
pub struct Deliver {
    /// The form of the bridge's own messages.
    pub lanes: Lanes,
    /// Publishes them.
    pub publisher: Publisher,
    /// Where deliveries go.
    pub subscribers: LiveSubscribers,
    /// Attempts over HTTP.
    pub http: HttpSender,
    /// Attempts over AMQP.
    pub amqp: AmqpSender,
    /// How many attempts a subscriber may have under way.
    pub limits: Limits,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Knows the attempts under way.
    pub tasks: TaskTracker,
    /// Ends what has not begun.
    pub stop: CancellationToken,
}

/// What an attempt led to.
struct Attempted {
    outcome: Outcome,
    transport: Transport,
    /// Absent where nothing was sent.
    took: Option<std::time::Duration>,
}

impl Deliver {
    /// Delivers what one lane holds, for one session of its consumer.
    pub async fn work(self: Arc<Self>, mut session: Session, attempt: Attempt) {
        let settler = session.settler();
        while let Some(chunk) = session.next(CHUNK).await {
            for received in chunk {
                self.tasks
                    .spawn(self.clone().deliver(received, attempt, settler.clone()));
            }
        }
    }

    async fn deliver(self: Arc<Self>, received: Received, attempt: Attempt, settler: Settler) {
        let consumed = match wire::consumed(&received) {
            Ok(consumed) => Consumed {
                // A dead letter that was moved back to `first` still carries its old failure.
                first: consumed.first.filter(|_| attempt == Attempt::Second),
                ..consumed
            },
            Err(error) => {
                warn!(
                    key = received.routing_key,
                    "a message in a lane is {error}; it goes to the dead letters"
                );
                let message = self
                    .lanes
                    .malformed(&received, &error, attempt, Timestamp::now());
                self.publish_and_ack(message, received.tag, &settler).await;
                return;
            }
        };
        let Some(attempted) = self.attempt(&consumed.delivery, attempt, &settler).await else {
            return;
        };
        self.settle(&consumed, attempt, attempted, received.tag, &settler)
            .await;
    }

    /// Makes one attempt. `None` if the bridge stops before it begins, or the session is dead: the
    /// broker delivers it again.
    async fn attempt(
        &self,
        delivery: &Delivery,
        attempt: Attempt,
        settler: &Settler,
    ) -> Option<Attempted> {
        let (subscriber, _permit) = loop {
            let Some(subscriber) = self.subscriber(delivery) else {
                return Some(not_made(
                    Reason::SubscriberRemoved,
                    "no subscriber has this id",
                    Transport::Unknown,
                ));
            };
            if !subscriber.enabled {
                return Some(not_made(
                    Reason::SubscriberDisabled,
                    "the subscriber is disabled",
                    Transport::from(&subscriber.target),
                ));
            }
            let permit = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                permit = self.limits.permit(&subscriber) => permit,
            };
            // The wait may have been long, and the subscriber another one since.
            let now = self.subscriber(delivery);
            if now.is_some_and(|now| Arc::ptr_eq(&now, &subscriber)) {
                break (subscriber, permit);
            }
        };
        let transport = Transport::from(&subscriber.target);
        loop {
            if !settler.alive() {
                return None;
            }
            let in_flight = self.metrics.attempt_begins(transport);
            let began = Instant::now();
            let outcome = self.send(&subscriber, delivery, attempt).await;
            drop(in_flight);
            if let Some(outcome) = outcome {
                return Some(Attempted {
                    outcome,
                    transport,
                    took: Some(began.elapsed()),
                });
            }
            debug!(delivery = %delivery.webhook_id, "the home broker was lost during an attempt");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The subscriber as it is now.
    fn subscriber(&self, delivery: &Delivery) -> Option<Arc<Subscriber>> {
        let subscribers = self.subscribers.load();
        subscribers.get(delivery.subscriber.as_str()).cloned()
    }

    async fn send(
        &self,
        subscriber: &Subscriber,
        delivery: &Delivery,
        attempt: Attempt,
    ) -> Option<Outcome> {
        match &subscriber.target {
            Target::Http(target) => {
                Some(self.http.send(subscriber, target, delivery, attempt).await)
            }
            Target::Amqp(target) => self.amqp.send(subscriber, target, delivery, attempt).await,
        }
    }

    async fn settle(
        &self,
        consumed: &Consumed,
        attempt: Attempt,
        attempted: Attempted,
        tag: u64,
        settler: &Settler,
    ) {
        let Attempted {
            outcome,
            transport,
            took,
        } = attempted;
        let delivery = &consumed.delivery;
        self.metrics
            .attempt(&delivery.subscriber, transport, attempt, &outcome, took);
        if !settler.alive() {
            // The broker has put it back: what would be published now would be a second one.
            debug!(delivery = %delivery.webhook_id, "an attempt outlived its session; it will be repeated");
            return;
        }
        let now = Timestamp::now();
        let settlement = settle(attempt, outcome);
        log_failure(delivery, attempt, &settlement);
        match settlement {
            Settlement::Done => {
                let latency = now.duration_since(delivery.received_at).unsigned_abs();
                self.metrics.delivered(delivery.kind, transport, latency);
                settler.ack(tag).await;
            }
            Settlement::Retry(failure) => {
                let message = self.lanes.retry(delivery, consumed.pace, &failure, now);
                self.publish_and_ack(message, tag, settler).await;
            }
            Settlement::Dead(failure) => {
                self.metrics.dead(delivery.kind, transport);
                let message = self.lanes.dead(consumed, attempt, &failure, now);
                self.publish_and_ack(message, tag, settler).await;
            }
        }
    }

    /// Moves a delivery on: publishes it, confirmed, and then acknowledges it where it was. If that
    /// cannot be confirmed, the lane's own dead-letter exchange takes it on.
    async fn publish_and_ack(&self, message: Message, tag: u64, settler: &Settler) {
        match self.publisher.publish_one(message, OPERATION_TIMEOUT).await {
            Ok(()) => settler.ack(tag).await,
            Err(error) => {
                debug!("the broker moves a delivery on by itself: {error}");
                settler.dead_letter(tag).await;
            }
        }
    }
}

fn not_made(reason: Reason, detail: &str, transport: Transport) -> Attempted {
    Attempted {
        outcome: Outcome::Failed(Failure::new(reason, detail)),
        transport,
        took: None,
    }
}
