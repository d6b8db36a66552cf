//! Second half of the line: takes deliveries from the lanes, attempts them, and settles them. Which
//! attempt it is, the lane tells; what follows from its outcome, [`settle`](crate::delivery::settlement::settle) decides.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    broker::{
        connection::OPERATION_TIMEOUT,
        consumer::{Session, Settler},
        home::Home,
        message::{Message, Received},
        publisher::{PublishError, Publisher},
    },
    courses::{Course, Courses, LATE, Place},
    delivery::{
        self, Attempt, Delivery, Failure, Outcome, Pace, Reason,
        wire::{self, Consumed, Lanes},
    },
    lack::Shortage,
    outcomes::{Attempted, Outcomes, SessionOver},
    registry::Registry,
    subscriber::{LiveSubscribers, Subscriber, Target},
    telemetry::{
        metrics::{Metrics, Transport},
        notices::Notices,
        traces::Traces,
    },
};

pub mod amqp;
pub mod guard;
pub mod http;
mod rotation;

use amqp::AmqpSender;
use http::HttpSender;
pub use rotation::Rotation;
use rotation::{Held, Lane};

/// Deliveries taken from a lane at a time.
const CHUNK: usize = 64;
/// How long a delivery may wait for what the bridge lacks: a third of the 30 minutes after which the
/// broker takes a consumer for dead, and repeats what all others have in flight on its channel.
const LONGEST_WAIT: Duration = Duration::from_mins(10);
/// The pause before an attempt that could not be made is made again; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What delivering needs.
pub struct Deliver {
    /// The form of the bridge's own messages.
    pub lanes: Lanes,
    /// Publishes them.
    pub publisher: Publisher,
    /// Brings the topology back.
    pub broker: Arc<Home>,
    /// Where deliveries go.
    pub subscribers: LiveSubscribers,
    /// Asks the store for a subscriber that is not among these.
    pub registry: Registry,
    /// Attempts over HTTP.
    pub http: HttpSender,
    /// Attempts over AMQP.
    pub amqp: AmqpSender,
    /// Whose turn it is.
    pub courses: Arc<Courses>,
    /// At what pace those who wait for their turn let others pass.
    pub rotation: Rotation,
    /// What becomes of attempts.
    pub outcomes: Outcomes,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Where it is said.
    pub notices: Arc<Notices>,
    /// Where it is traced.
    pub traces: Traces,
    /// Knows the attempts under way.
    pub tasks: TaskTracker,
    /// Ends what has not begun.
    pub stop: CancellationToken,
}

/// Why an attempt came to nothing through no fault of the subscriber: then it was none.
pub enum Undone {
    /// The home broker was lost meanwhile.
    HomeLost,
    /// The bridge itself lacks something.
    Wanting(Shortage),
}

/// What became of a delivery's turn.
enum Turn {
    /// It was attempted.
    Taken(Attempted),
    /// It goes to a lane of this kind, in the same set: its own one's end, or its slow one. This is
    /// no attempt.
    Lane(Pace),
    /// The bridge stops, or the session is dead: the broker delivers it again.
    Given,
}

impl Deliver {
    /// Delivers what one lane holds, for one session of its consumer.
    pub async fn work(self: Arc<Self>, mut session: Session, attempt: Attempt) {
        let settler = session.settler();
        let lane = Lane::new(session.prefetch());
        while let Some(chunk) = session.next(CHUNK).await {
            for received in chunk {
                let delivering =
                    self.clone()
                        .deliver(received, attempt, settler.clone(), lane.hold());
                self.tasks.spawn(delivering);
            }
        }
    }

    async fn deliver(
        self: Arc<Self>,
        received: Received,
        attempt: Attempt,
        settler: Settler,
        held: Held,
    ) {
        let consumed = match wire::consumed(&received) {
            Ok(consumed) => Consumed {
                // A dead letter that was moved back to `first` still carries its old failure.
                first: consumed.first.filter(|_| attempt == Attempt::Second),
                ..consumed
            },
            Err(error) => {
                self.notices.malformed(&error, &received.routing_key);
                let now = jiff::Timestamp::now();
                let message = self.lanes.malformed(&received, &error, attempt, now);
                self.publish_and_ack(message, received.tag, &settler).await;
                return;
            }
        };
        if self.traces.on() {
            self.trace_wait(&consumed, attempt, &received);
        }
        let tag = received.tag;
        match self.attempt(&consumed, attempt, &settler, &held).await {
            Turn::Taken(attempted) => {
                self.settle(&consumed, attempt, attempted, tag, &settler)
                    .await;
            }
            Turn::Lane(pace) => {
                let message = self.lanes.again(&consumed, attempt, pace);
                self.send_back(message, tag, &settler).await;
            }
            Turn::Given => {}
        }
    }

    /// Traces how long a delivery lay in queues: since its event came, or since its first attempt
    /// failed. For one that is replayed, or that the broker moved on by itself, nobody knows.
    fn trace_wait(&self, consumed: &Consumed, attempt: Attempt, received: &Received) {
        let delivery = &consumed.delivery;
        let since = match attempt {
            Attempt::First => (delivery.replay == 0).then_some(delivery.received_at),
            Attempt::Second => wire::failed_at(received),
        };
        if let Some(since) = since {
            self.traces.waited(delivery, attempt, since);
        }
    }

    /// Makes a first attempt outside the lanes, as soon as it is the subscriber's turn.
    pub async fn at_once(
        self: Arc<Self>,
        subscriber: Arc<Subscriber>,
        place: Place,
        delivery: Delivery,
        settler: Settler,
    ) -> Result<Option<Message>, SessionOver> {
        let attempt = self.first(&subscriber, &delivery, &place, &settler);
        let attempted = match attempt.await {
            Turn::Taken(attempted) => attempted,
            Turn::Lane(kind) => return Ok(Some(self.lanes.first(&delivery, kind))),
            Turn::Given => return Err(SessionOver),
        };
        if !settler.alive() {
            self.outcomes.count(&delivery, Attempt::First, &attempted);
            return Err(SessionOver);
        }
        let consumed = Consumed::fresh(delivery);
        let message = self.outcomes.settle(&consumed, Attempt::First, attempted);
        Ok(message)
    }

    /// The attempt of [`Self::at_once`]. What cannot be attempted now goes to the lanes: its event
    /// waits for it, and so for nothing but the attempt itself.
    async fn first(
        &self,
        subscriber: &Arc<Subscriber>,
        delivery: &Delivery,
        place: &Place,
        settler: &Settler,
    ) -> Turn {
        let course = place.course();
        let permit = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            permit = place.turn() => permit,
        };
        if !settler.alive() {
            return Turn::Given;
        }
        if permit.is_none() || self.stop.is_cancelled() {
            let slow = course.slow();
            return Turn::Lane(if slow { Pace::Slow } else { Pace::Fast });
        }
        if !self.is_still(subscriber) {
            return Turn::Lane(Pace::Fast);
        }
        match self
            .make(subscriber, delivery, Attempt::First, course)
            .await
        {
            Ok(attempted) => Turn::Taken(attempted),
            Err(_) => Turn::Lane(Pace::Fast),
        }
    }

    /// Waits for the subscriber's turn, and makes one attempt. What is undone is no attempt: it is
    /// made again, by the subscriber as it is by then.
    async fn attempt(
        &self,
        consumed: &Consumed,
        attempt: Attempt,
        settler: &Settler,
        held: &Held,
    ) -> Turn {
        let delivery = &consumed.delivery;
        let slow_lane = consumed.pace == Pace::Slow;
        let waits_until = Instant::now() + LONGEST_WAIT;
        let mut pause = PAUSE;
        let lane = delivery::lane(Pace::Slow, &delivery.subscriber);
        let mut lets_pass = pin!(held.lets_pass(&self.rotation, || self.courses.share(lane)));
        loop {
            let found = self.registry.find(&delivery.subscriber).await;
            let subscriber = match found {
                Ok(Some(subscriber)) => subscriber,
                Ok(None) => return unknown("no subscriber has this id"),
                Err(error) => return unknown(&format!("no subscriber has this id here: {error}")),
            };
            if !subscriber.enabled {
                return not_made(
                    Reason::SubscriberDisabled,
                    "the subscriber is disabled",
                    Transport::from(&subscriber.target),
                );
            }
            let course = self.courses.of(&subscriber);
            if !slow_lane && course.slow() {
                return Turn::Lane(Pace::Slow);
            }
            let permit = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Turn::Given,
                permit = course.turn() => permit,
                () = &mut lets_pass, if slow_lane => return Turn::Lane(Pace::Slow),
            };
            if !settler.alive() || self.stop.is_cancelled() {
                return Turn::Given;
            }
            let Some(permit) = permit else {
                if slow_lane && Instant::now() < waits_until {
                    continue;
                }
                return Turn::Lane(Pace::Slow);
            };
            // The wait may have been long, and the subscriber another one since.
            if !self.is_still(&subscriber) {
                continue;
            }
            match self.make(&subscriber, delivery, attempt, &course).await {
                Ok(attempted) => return Turn::Taken(attempted),
                Err(_) if Instant::now() >= waits_until => return Turn::Lane(consumed.pace),
                Err(_) => drop(permit),
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Turn::Given,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Makes an attempt, and says why if it came to nothing.
    async fn make(
        &self,
        subscriber: &Subscriber,
        delivery: &Delivery,
        attempt: Attempt,
        course: &Course,
    ) -> Result<Attempted, Undone> {
        let transport = Transport::from(&subscriber.target);
        let in_flight = self.metrics.attempt_begins(transport);
        let span = self.traces.attempt(delivery, attempt, transport);
        let traced = span.as_ref().map(|span| span.within(delivery));
        let carried = traced.as_deref().unwrap_or(delivery);
        let began = Instant::now();
        let mut sending = pin!(self.send(subscriber, carried, attempt));
        let sent = if let Ok(sent) = timeout(LATE, &mut sending).await {
            course.quick(began.elapsed());
            sent
        } else {
            let _late = course.late();
            sending.await
        };
        drop(in_flight);
        match &sent {
            Ok(outcome) => {
                if let Some(span) = span {
                    span.ended(outcome);
                }
            }
            Err(Undone::HomeLost) => {
                debug!(delivery = %delivery.webhook_id, "the home broker was lost during an attempt");
            }
            Err(Undone::Wanting(shortage)) => self.notices.wanting(delivery, shortage.clone()),
        }
        sent.map(|outcome| Attempted {
            outcome,
            transport,
            took: Some(began.elapsed()),
        })
    }

    /// Whether a reload has left this subscriber as it is.
    fn is_still(&self, subscriber: &Arc<Subscriber>) -> bool {
        let subscribers = self.subscribers.load();
        let now = subscribers.get(subscriber.id.as_str());
        now.is_some_and(|now| Arc::ptr_eq(now, subscriber))
    }

    /// Makes one attempt outside the line: nothing is settled, retried or counted. The error says
    /// what kept the bridge itself from it.
    pub async fn try_out(
        &self,
        subscriber: &Subscriber,
        delivery: &Delivery,
    ) -> Result<Outcome, String> {
        let sent = self.send(subscriber, delivery, Attempt::First).await;
        sent.map_err(|undone| match undone {
            Undone::HomeLost => "the home broker is away".to_owned(),
            Undone::Wanting(Shortage { lack, detail }) => {
                format!("the bridge itself lacks {lack}: {detail}")
            }
        })
    }

    async fn send(
        &self,
        subscriber: &Subscriber,
        delivery: &Delivery,
        attempt: Attempt,
    ) -> Result<Outcome, Undone> {
        match &subscriber.target {
            Target::Http(target) => {
                let sent = self.http.send(subscriber, target, delivery, attempt).await;
                sent.map_err(Undone::Wanting)
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
        if !settler.alive() {
            debug!(delivery = %consumed.delivery.webhook_id, "an attempt outlived its session; it will be repeated");
            return self.outcomes.count(&consumed.delivery, attempt, &attempted);
        }
        match self.outcomes.settle(consumed, attempt, attempted) {
            None => settler.ack(tag).await,
            Some(message) => self.publish_and_ack(message, tag, settler).await,
        }
    }

    /// Publishes to the bridge's own exchanges; if somebody deleted one, brings it back first.
    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let _spans = self
            .traces
            .publish(wire::traced(std::slice::from_ref(&message)));
        let first = self
            .publisher
            .publish_one(message.clone(), OPERATION_TIMEOUT)
            .await;
        if !matches!(first, Err(PublishError::ChannelClosed(_))) {
            return first;
        }
        self.broker.repair_now().await;
        self.publisher.publish_one(message, OPERATION_TIMEOUT).await
    }

    /// Brings a delivery to the end of its lane. That is tried for as long as it can be settled: it
    /// must not count as an attempt, so the lane's dead-letter exchange is no way out.
    async fn send_back(&self, message: Message, tag: u64, settler: &Settler) {
        while settler.alive() && !self.stop.is_cancelled() {
            match self.publish(message.clone()).await {
                Ok(()) => return settler.ack(tag).await,
                Err(error) => debug!("cannot bring a delivery to the end of its lane: {error}"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(LONGEST_PAUSE) => {}
            }
        }
    }

    /// Moves a delivery on: publishes it, confirmed, and then acknowledges it where it was. If that
    /// cannot be confirmed, the lane's own dead-letter exchange takes it on.
    async fn publish_and_ack(&self, message: Message, tag: u64, settler: &Settler) {
        match self.publish(message).await {
            Ok(()) => settler.ack(tag).await,
            Err(error) => {
                debug!("the broker moves a delivery on by itself: {error}");
                settler.dead_letter(tag).await;
            }
        }
    }
}

fn unknown(detail: &str) -> Turn {
    not_made(Reason::SubscriberRemoved, detail, Transport::Unknown)
}

fn not_made(reason: Reason, detail: &str, transport: Transport) -> Turn {
    Turn::Taken(Attempted {
        outcome: Outcome::Failed(Failure::new(reason, detail)),
        transport,
        took: None,
    })
}
