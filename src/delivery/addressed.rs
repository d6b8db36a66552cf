//! A delivery in the form that a subscriber's queue or exchange gets it, and what the broker's
//! answer to it means. Used for both halves of the line.

use jiff::Timestamp;

use super::{Attempt, Delivery, Failure, Outcome, Reason};
use crate::{
    broker::{
        message::{HeaderValue, Message},
        publisher::PublishError,
    },
    subscriber::{AmqpTarget, Destination, Subscriber},
};

/// The message for a subscriber's AMQP target.
pub fn message(
    subscriber: &Subscriber,
    target: &AmqpTarget,
    delivery: &Delivery,
    attempt: Attempt,
    now: Timestamp,
) -> Result<Message, Failure> {
    let headers = super::request::webhook_headers(subscriber, delivery, attempt, now)?;
    let (exchange, routing_key) = match &target.destination {
        Destination::Queue { name, .. } => (String::new(), name.clone()),
        Destination::Exchange { name, routing_key } => {
            let case = delivery.case.as_deref().unwrap_or_default();
            let party = subscriber.interest.party().unwrap_or_default();
            let id = delivery.subscriber.as_str();
            (
                name.clone(),
                routing_key.fill(delivery.kind, case, id, party),
            )
        }
    };
    Ok(Message {
        exchange,
        routing_key,
        message_id: delivery.webhook_id.to_string(),
        content_type: Some("application/json"),
        kind: Some(delivery.kind.name()),
        app_id: Some("hookbridge"),
        timestamp: u64::try_from(delivery.event_time.as_second()).ok(),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, HeaderValue::Text(value)))
            .collect(),
        body: delivery.payload.clone(),
    })
}

/// The queue that the bridge declares for this target, if it is asked to.
pub fn declares(target: &AmqpTarget) -> Option<&str> {
    match &target.destination {
        Destination::Queue {
            name,
            declare: true,
        } => Some(name),
        Destination::Queue { .. } | Destination::Exchange { .. } => None,
    }
}

/// What the broker's answer makes of the attempt. `None` on the home broker when the bridge lost
/// it: that is nobody's failure, and the delivery stays where it is.
pub fn outcome(
    subscriber: &Subscriber,
    home: bool,
    result: &Result<(), PublishError>,
) -> Option<Outcome> {
    let reason = match result {
        Ok(()) => return Some(Outcome::Delivered),
        Err(
            PublishError::Lost(_)
            | PublishError::NoChannel
            | PublishError::Unavailable(_)
            | PublishError::Stopped,
        ) if home => {
            return None;
        }
        Err(error) => match error {
            PublishError::Returned(_) => Reason::Returned,
            PublishError::Nacked => Reason::Nacked,
            PublishError::Timeout(_) => Reason::Timeout,
            PublishError::Blocked => Reason::Blocked,
            PublishError::ChannelClosed(_) => Reason::ChannelClosed,
            PublishError::AccessRefused(_) => Reason::AccessRefused,
            PublishError::Invalid(_) => Reason::Protocol,
            PublishError::Lost(_)
            | PublishError::NoChannel
            | PublishError::Unavailable(_)
            | PublishError::Stopped => Reason::Connect,
        },
    };
    let detail = result
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    Some(Outcome::Failed(Failure::new(
        reason,
        subscriber.redact(&detail),
    )))
}
