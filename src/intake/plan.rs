//! What is to be done for events that have come: decoded, mapped, matched and addressed. Nothing is
//! done here.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::Intake;
use crate::{
    broker::{
        consumer::Settler,
        message::{Message, Received},
        publisher::Publisher,
    },
    delivery::{Delivery, Pace, addressed, webhook_id},
    event::{self, Envelope, Rejection},
    outcomes::AtOnce,
    settings::UnknownEvents,
    subscriber::{AmqpTarget, Destination, Subscriber, SubscriberId, Target},
    telemetry::{metrics::EventResult, traces::Span},
    webhook::{self, EventType, Webhook},
};

/// Deliveries of one plan, but for the last event's: it may have many subscribers.
const DELIVERIES: usize = 1_024;

/// What is to be done for the events of one batch.
#[derive(Default)]
pub(super) struct Plan {
    /// How many deliveries are made.
    pub(super) deliveries: usize,
    /// How many of them are attempted at once.
    pub(super) attempts: usize,
    /// For the bridge's own exchanges.
    pub(super) lanes: Vec<Message>,
    /// For subscribers' queues on the home broker.
    pub(super) direct: HashMap<SubscriberId, Direct>,
    /// The events that wait for more than what is published at once.
    pub(super) waiting: Vec<Waits>,
    /// The tags of the others.
    pub(super) others: Vec<u64>,
    /// What the events count as once all that is published with the plan is confirmed.
    pub(super) results: Vec<(Option<EventType>, EventResult)>,
}

/// What an event waits for, besides what is published at once.
pub(super) struct Waits {
    pub(super) tag: u64,
    /// Attempts to be made elsewhere.
    pub(super) at_once: Vec<AtOnce>,
    /// For slow lanes.
    pub(super) slow: Vec<Message>,
}

/// Deliveries handed straight to a subscriber's queue: the hand-off is their first attempt.
pub(super) struct Direct {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) target: AmqpTarget,
    pub(super) publisher: Publisher,
    pub(super) deliveries: Vec<Delivery>,
}

/// Where a delivery goes that is not published with the plan.
enum Way {
    AtOnce(AtOnce),
    SlowLane(Message),
}

impl Plan {
    /// How many messages are to be published.
    pub(super) fn messages(&self) -> usize {
        let direct = self.direct.values().map(|direct| direct.deliveries.len());
        self.lanes.len() + direct.sum::<usize>()
    }
}

impl Intake {
    /// Plans for as many of these events as go into one plan, and takes them off. The plan ends when
    /// about `attempts` are made at once; with none, everything goes to the lanes.
    pub(super) fn plan(
        &self,
        events: &mut &[Received],
        attempts: usize,
        settler: &Settler,
    ) -> Plan {
        let subscribers = self.subscribers.load();
        let mut plan = Plan::default();
        while let Some((received, rest)) = events.split_first()
            && plan.deliveries < DELIVERIES
            && (attempts == 0 || plan.attempts < attempts)
        {
            *events = rest;
            // Each its own: the same event twice, rejected twice, is known by its time.
            let now = Timestamp::now();
            let mut waits = Waits {
                tag: received.tag,
                at_once: Vec::new(),
                slow: Vec::new(),
            };
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
                    let kind = kind.map_or("other", EventType::name);
                    let span = self.traces.intake(traceparent, kind, now);
                    let own = span.as_ref().map(Span::traceparent);
                    let traceparent = own.as_deref().or(traceparent);
                    let mut matched = false;
                    let room = attempts > 0;
                    for subscriber in subscribers.matching(made.kind, &made.audience) {
                        matched = true;
                        plan.deliveries += 1;
                        let delivery = delivery(&made, &envelope, traceparent, subscriber, now);
                        let way = self.address(&mut plan, subscriber, delivery, room, settler);
                        match way {
                            Some(Way::AtOnce(attempt)) => waits.at_once.push(attempt),
                            Some(Way::SlowLane(message)) => waits.slow.push(message),
                            None => {}
                        }
                    }
                    if matched {
                        EventResult::Accepted
                    } else {
                        EventResult::Unmatched
                    }
                }
            };
            plan.results.push((kind, result));
            if waits.at_once.is_empty() && waits.slow.is_empty() {
                plan.others.push(received.tag);
            } else {
                plan.attempts += waits.at_once.len();
                plan.waiting.push(waits);
            }
        }
        plan
    }

    /// Straight to a queue on the home broker, unless that queue leaves publishes unconfirmed. At
    /// once to an endpoint or a broker elsewhere, if there is `room` and the subscriber has a place.
    /// Everything else goes to the lanes. Gives what is not published with the plan.
    fn address(
        &self,
        plan: &mut Plan,
        subscriber: &Arc<Subscriber>,
        delivery: Delivery,
        room: bool,
        settler: &Settler,
    ) -> Option<Way> {
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
            Target::Http(_) | Target::Amqp(_) => {
                if room && let Some(place) = course.place() {
                    let (subscriber, settler) = (subscriber.clone(), settler.clone());
                    let attempt = (self.at_once)(subscriber, place, delivery, settler);
                    return Some(Way::AtOnce(attempt));
                }
            }
        }
        let message = self.lanes.first(&delivery, pace);
        if pace == Pace::Slow {
            return Some(Way::SlowLane(message));
        }
        plan.lanes.push(message);
        None
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
