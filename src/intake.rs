//! First half of the line: takes domain events in, makes the deliveries of each, and hands these on.
//! An event is acknowledged only when every delivery made of it is confirmed by the broker.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        connection::OPERATION_TIMEOUT,
        consumer::{Session, Settler},
        home::Home,
        message::{Message, Received},
        publisher::{PublishError, Publisher},
        publishers::Publishers,
    },
    delivery::{
        Attempt, Delivery, Outcome, Pace, addressed, webhook_id,
        wire::{Consumed, Lanes},
    },
    event::{self, Envelope, Rejection},
    outcomes::{AtOnce, AttemptAtOnce, Attempted, Outcomes},
    settings::{SourceSettings, UnknownEvents},
    subscriber::{AmqpTarget, Destination, LiveSubscribers, Subscriber, SubscriberId, Target},
    telemetry::{
        metrics::{EventResult, Metrics, Transport},
        notices::Notices,
    },
    webhook::{self, EventType, Webhook},
};

mod trouble;
mod window;

pub use trouble::Trouble;
use window::Window;

/// Events dealt with together: a quarter of the usual prefetch, so that four batches overlap.
const BATCH: usize = 256;
/// The pause before the broker is asked again to take what it did not confirm.
const PAUSE: Duration = Duration::from_millis(500);
/// How long intake waits while half of what it may hold waits for attempts. Subscribers that are
/// quick make room sooner; if there is none, what comes goes to the lanes.
const ROOM: Duration = Duration::from_millis(100);

/// What intake needs.
pub struct Intake {
    /// What is taken in.
    pub source: SourceSettings,
    /// How long a subscriber's queue may take to confirm.
    pub timeout: Duration,
    /// The form of the bridge's own messages.
    pub lanes: Lanes,
    /// Publishes them.
    pub publisher: Publisher,
    /// Brings the topology back.
    pub broker: Arc<Home>,
    /// Publish to subscribers' queues on the home broker.
    pub home: Arc<Publishers<SubscriberId>>,
    /// Makes attempts elsewhere.
    pub at_once: AttemptAtOnce,
    /// What becomes of attempts.
    pub outcomes: Outcomes,
    /// Who gets what.
    pub subscribers: LiveSubscribers,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Where it is said.
    pub notices: Arc<Notices>,
    /// Whether the broker takes what is published.
    pub trouble: Trouble,
    /// Knows the batches under way.
    pub tasks: TaskTracker,
}

/// What is to be done for the events of one batch.
#[derive(Default)]
struct Plan {
    /// For the bridge's own exchanges.
    lanes: Vec<Message>,
    /// For subscribers' queues on the home broker.
    direct: HashMap<SubscriberId, Direct>,
    /// Attempts to be made elsewhere, with the tags of their events.
    at_once: Vec<(u64, Vec<AtOnce>)>,
    /// The tags of the events that wait for none.
    others: Vec<u64>,
    /// What the events count as once all of it is confirmed.
    results: Vec<(Option<EventType>, EventResult)>,
}

/// Deliveries handed straight to a subscriber's queue: the hand-off is their first attempt.
struct Direct {
    subscriber: Arc<Subscriber>,
    target: AmqpTarget,
    publisher: Publisher,
    deliveries: Vec<Delivery>,
}

impl Intake {
    /// Takes events in for one session of the consumer.
    pub async fn work(self: Arc<Self>, mut session: Session) {
        let window = Arc::new(Window::new(session.settler()));
        while let Some(chunk) = session.next(BATCH).await {
            let most = usize::from(session.prefetch()).div_ceil(2);
            let room = window.room(most, ROOM).await;
            window.take(chunk.iter().map(|received| received.tag));
            let plan = self.plan(&chunk, room, window.settler());
            self.tasks.spawn(self.clone().see_to(plan, window.clone()));
        }
    }

    /// Carries out what is planned, and has the events acknowledged as they are settled.
    async fn see_to(self: Arc<Self>, mut plan: Plan, window: Arc<Window>) {
        let mut holding = Vec::with_capacity(plan.at_once.len());
        for (tag, attempts) in plan.at_once.drain(..) {
            let held = window.hold(tag, attempts.len());
            for attempt in attempts {
                let (intake, window, held) = (self.clone(), window.clone(), held.clone());
                self.tasks.spawn(async move {
                    let Ok(message) = attempt.await else { return };
                    let messages = message.into_iter().collect();
                    if intake
                        .publish_until_confirmed(messages, window.settler())
                        .await
                    {
                        window.part_settled(&held).await;
                    }
                });
            }
            holding.push(held);
        }
        let others = std::mem::take(&mut plan.others);
        if self.carry_out(plan, window.settler()).await {
            window.settled(others).await;
            for held in holding {
                window.part_settled(&held).await;
            }
        }
    }

    /// `room` is whether events may wait for attempts.
    fn plan(&self, chunk: &[Received], room: bool, settler: &Settler) -> Plan {
        let now = Timestamp::now();
        let subscribers = self.subscribers.load();
        let mut plan = Plan::default();
        for received in chunk {
            let mut at_once = Vec::new();
            let decoded = event::decode(&received.body, self.source.max_event_bytes);
            let (kind, result) = match decoded {
                Ok(envelope) => match EventType::from_name(&envelope.event_type) {
                    Some(kind) => (
                        Some(kind),
                        webhook::map(kind, &envelope).map(|made| Some((made, envelope))),
                    ),
                    None if self.source.unknown_events == UnknownEvents::Ignore => (None, Ok(None)),
                    None => (None, Err(Rejection::unknown_type(&envelope.event_type))),
                },
                Err(rejection) => (None, Err(rejection)),
            };
            let result = match result {
                Err(rejection) => {
                    self.notices.rejected(&rejection);
                    plan.lanes
                        .push(self.lanes.rejected(received, &rejection, now));
                    EventResult::Rejected
                }
                Ok(None) => EventResult::Ignored,
                Ok(Some((made, envelope))) => {
                    let traceparent = received
                        .text("traceparent")
                        .filter(|text| event::is_traceparent(text))
                        .or(envelope.traceparent.as_deref());
                    let mut matched = false;
                    for subscriber in subscribers.matching(made.kind, &made.audience) {
                        matched = true;
                        let delivery = delivery(&made, &envelope, traceparent, subscriber, now);
                        let attempt = self.address(&mut plan, subscriber, delivery, room, settler);
                        at_once.extend(attempt);
                    }
                    if matched {
                        EventResult::Accepted
                    } else {
                        EventResult::Unmatched
                    }
                }
            };
            plan.results.push((kind, result));
            if at_once.is_empty() {
                plan.others.push(received.tag);
            } else {
                plan.at_once.push((received.tag, at_once));
            }
        }
        plan
    }

    /// Straight to a queue on the home broker, unless that queue leaves publishes unconfirmed. At
    /// once to an endpoint or a broker elsewhere, if the subscriber is quick and there is `room`.
    /// Everything else goes to the lanes.
    fn address(
        &self,
        plan: &mut Plan,
        subscriber: &Arc<Subscriber>,
        delivery: Delivery,
        room: bool,
        settler: &Settler,
    ) -> Option<AtOnce> {
        let course = self.outcomes.courses.of(subscriber);
        let pace = if course.slow() {
            Pace::Slow
        } else {
            Pace::Fast
        };
        match &subscriber.target {
            Target::Amqp(
                target @ AmqpTarget {
                    broker: None,
                    destination: Destination::Queue { .. },
                },
            ) => {
                let publisher = self.home.get(&subscriber.id, addressed::declares(target));
                if !publisher.stalled() {
                    let direct = plan.direct.entry(subscriber.id.clone());
                    let direct = direct.or_insert_with(|| Direct {
                        subscriber: subscriber.clone(),
                        target: target.clone(),
                        publisher,
                        deliveries: Vec::new(),
                    });
                    direct.deliveries.push(delivery);
                    return None;
                }
            }
            // A channel that a missing exchange closes must be the subscriber's own.
            Target::Amqp(AmqpTarget { broker: None, .. }) => {}
            Target::Http(_) | Target::Amqp(_) if room && pace == Pace::Fast => {
                let (subscriber, settler) = (subscriber.clone(), settler.clone());
                return Some((self.at_once)(subscriber, course, delivery, settler));
            }
            Target::Http(_) | Target::Amqp(_) => {}
        }
        plan.lanes.push(self.lanes.first(&delivery, pace));
        None
    }

    /// Publishes everything, until all of it is confirmed or the session is dead and the broker
    /// delivers the events again. Tells which.
    async fn carry_out(&self, plan: Plan, settler: &Settler) -> bool {
        let hand_offs = join_all(
            plan.direct
                .into_values()
                .map(|direct| self.hand_off(direct, settler)),
        );
        let (laned, follow_ups) =
            tokio::join!(self.publish_until_confirmed(plan.lanes, settler), hand_offs);
        let follow_ups: Option<Vec<Vec<Message>>> = follow_ups.into_iter().collect();
        let Some(follow_ups) = follow_ups else {
            return false;
        };
        let follow_ups = follow_ups.into_iter().flatten().collect();
        if !laned || !self.publish_until_confirmed(follow_ups, settler).await {
            return false;
        }
        for (kind, result) in plan.results {
            self.metrics.event(kind, result);
        }
        true
    }

    /// Attempts deliveries to a queue on the home broker. Gives the messages that settle those that
    /// failed, or nothing if the session died first.
    async fn hand_off(&self, direct: Direct, settler: &Settler) -> Option<Vec<Message>> {
        let Direct {
            subscriber,
            target,
            publisher,
            mut deliveries,
        } = direct;
        let mut follow_ups = Vec::new();
        while !deliveries.is_empty() {
            let began = Instant::now();
            let now = Timestamp::now();
            let mut messages = Vec::with_capacity(deliveries.len());
            let mut published = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                match addressed::message(&subscriber, &target, &delivery, Attempt::First, now) {
                    Ok(message) => {
                        messages.push(message);
                        published.push(delivery);
                    }
                    Err(failure) => {
                        let outcome = Outcome::Failed(failure);
                        follow_ups.extend(self.settle(delivery, outcome, None));
                    }
                }
            }
            let results = publisher.publish(messages, self.timeout).await;
            let took = began.elapsed();
            deliveries = Vec::new();
            for (delivery, result) in published.into_iter().zip(&results) {
                if let Some(outcome) = addressed::outcome(&subscriber, true, result) {
                    follow_ups.extend(self.settle(delivery, outcome, Some(took)));
                    continue;
                }
                if let Err(error) = result
                    && let Some(shortage) = error.shortage()
                {
                    self.notices.wanting(&delivery, shortage);
                }
                deliveries.push(delivery);
            }
            if !deliveries.is_empty() {
                if !settler.alive() {
                    return None;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Some(follow_ups)
    }

    /// Settles a first attempt that was made here; gives the message that moves a failed delivery on.
    fn settle(
        &self,
        delivery: Delivery,
        outcome: Outcome,
        took: Option<Duration>,
    ) -> Option<Message> {
        let attempted = Attempted {
            outcome,
            transport: Transport::Amqp,
            took,
        };
        let consumed = Consumed::fresh(delivery);
        self.outcomes.settle(&consumed, Attempt::First, attempted)
    }

    /// Publishes to the bridge's own exchanges until every message is confirmed, or the session is
    /// dead. Tells which.
    async fn publish_until_confirmed(&self, mut messages: Vec<Message>, settler: &Settler) -> bool {
        let mut stuck = None;
        while !messages.is_empty() {
            let results = self
                .publisher
                .publish(messages.clone(), OPERATION_TIMEOUT)
                .await;
            let mut error = None;
            let mut results = results.into_iter();
            messages.retain(|_| match results.next() {
                Some(Ok(())) => false,
                Some(Err(why)) => {
                    error = Some(why);
                    true
                }
                None => true,
            });
            let Some(error) = error else { break };
            if !settler.alive() {
                return false;
            }
            match &stuck {
                None => stuck = Some(self.trouble.stuck(&error)),
                Some(stuck) => stuck.still(&error),
            }
            if matches!(
                error,
                PublishError::ChannelClosed(_) | PublishError::Returned(_)
            ) {
                // Somebody deleted an exchange or a queue.
                self.broker.repair_now().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(stuck) = stuck {
            stuck.taken();
        }
        true
    }
}

fn delivery(
    made: &Webhook,
    envelope: &Envelope<'_>,
    traceparent: Option<&str>,
    subscriber: &Subscriber,
    now: Timestamp,
) -> Delivery {
    Delivery {
        webhook_id: webhook_id(&envelope.source, &envelope.id, subscriber.id.as_str()),
        kind: made.kind,
        subscriber: subscriber.id.clone(),
        payload: made.payload.clone(),
        event_time: made.time,
        received_at: now,
        replay: 0,
        case: made.audience.case.clone(),
        traceparent: traceparent.map(str::to_owned),
    }
}
