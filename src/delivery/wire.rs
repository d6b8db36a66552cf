//! A delivery as a message on its way through the lanes, and back: built afresh at every publish,
//! so that nothing of an incoming message travels on but what is read by name here.

use jiff::Timestamp;
use thiserror::Error;
use uuid::Uuid;

use super::{Attempt, Delivery, Failure, Pace, Reason, routing_key};
use crate::{
    broker::message::{HeaderValue, Message, Received},
    event::{Rejection, is_traceparent},
    subscriber::SubscriberId,
    webhook::WebhookType,
};

/// The longest id that an event may have.
const ID_BYTES: usize = 128;
const TYPE: &str = "webhook-type";
const TRACEPARENT: &str = "traceparent";
const SUBSCRIBER: &str = "hookbridge-subscriber";
const RECEIVED_AT: &str = "hookbridge-received-at";
const REPLAY: &str = "hookbridge-replay";
const CASE: &str = "hookbridge-case";
pub(super) const REASON: &str = "hookbridge-reason";
pub(super) const DETAIL: &str = "hookbridge-detail";
pub(super) const ATTEMPTS: &str = "hookbridge-attempts";
pub(super) const FAILED_AT: &str = "hookbridge-failed-at";
pub(super) const FIRST_REASON: &str = "hookbridge-first-reason";
pub(super) const FIRST_DETAIL: &str = "hookbridge-first-detail";

/// Where the bridge's own messages go: the names of its exchanges and the delay in its routing keys.
#[derive(Debug, Clone)]
pub struct Lanes {
    prefix: String,
    retry_delay_ms: u128,
}

/// Why a message in a lane is not a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[error("not a delivery: {what} is missing or not valid")]
pub struct Malformed {
    what: &'static str,
}

/// A delivery taken from a lane, and how its first attempt failed if this is the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// The delivery.
    pub delivery: Delivery,
    /// The kind of lane that it is in.
    pub pace: Pace,
    /// What the first attempt left; nothing if the broker dead-lettered it by itself.
    pub first: Option<Failure>,
}

impl Consumed {
    /// One that has not been in a lane yet.
    pub fn fresh(delivery: Delivery) -> Self {
        Self {
            delivery,
            pace: Pace::Fast,
            first: None,
        }
    }
}

impl Lanes {
    /// Lanes under this prefix, with the retry delay in whole milliseconds.
    pub fn new(prefix: &str, retry_delay: std::time::Duration) -> Self {
        Self {
            prefix: prefix.to_owned(),
            retry_delay_ms: retry_delay.as_millis(),
        }
    }

    /// To its first attempt.
    pub fn first(&self, delivery: &Delivery, pace: Pace) -> Message {
        self.message("first", delivery, pace, Vec::new())
    }

    /// To the end of a lane of the set that it came from, as it is: this is no attempt.
    pub fn again(&self, consumed: &Consumed, attempt: Attempt, pace: Pace) -> Message {
        let set = match attempt {
            Attempt::First => "first",
            Attempt::Second => "second",
        };
        self.unchanged(set, consumed, pace)
    }

    /// Where a message in `lost` was on its way to, if the broker moved it there by itself: it forwards
    /// what a queue dead-letters before it knows its bindings, when it has just started. As anything
    /// else that is published, it is made afresh, so that it goes on once only.
    pub fn onward(&self, lost: &Received) -> Option<Message> {
        let from = lost.dead_lettered_from()?.strip_prefix(&self.prefix)?;
        let exchange = match from.strip_prefix('.')?.split('.').next()? {
            "events" => {
                return Some(Message {
                    exchange: format!("{}.rejected", self.prefix),
                    routing_key: lost.routing_key.clone(),
                    ..foreign(lost)
                });
            }
            "first" => "retry",
            "retry" => "second",
            "second" => "dead",
            _ => return None,
        };
        let consumed = consumed(lost).ok()?;
        Some(self.unchanged(exchange, &consumed, consumed.pace))
    }

    /// A delivery with what its first attempt left, and nothing new.
    fn unchanged(&self, exchange: &str, consumed: &Consumed, pace: Pace) -> Message {
        let failure = consumed.first.as_ref().map(|failure| {
            vec![
                (REASON, text(failure.reason.as_str())),
                (DETAIL, text(&failure.detail)),
            ]
        });
        let failure = failure.unwrap_or_default();
        self.message(exchange, &consumed.delivery, pace, failure)
    }

    /// To wait for its second attempt, after the first failed.
    pub fn retry(
        &self,
        delivery: &Delivery,
        pace: Pace,
        failure: &Failure,
        now: Timestamp,
    ) -> Message {
        self.message(
            "retry",
            delivery,
            pace,
            failure_headers(failure, Attempt::First, now),
        )
    }

    /// To the dead letters, after `attempt` failed for good.
    pub fn dead(
        &self,
        consumed: &Consumed,
        attempt: Attempt,
        failure: &Failure,
        now: Timestamp,
    ) -> Message {
        let mut headers = failure_headers(failure, attempt, now);
        if let Some(first) = &consumed.first {
            headers.push((FIRST_REASON, text(first.reason.as_str())));
            headers.push((FIRST_DETAIL, text(&first.detail)));
        }
        self.message("dead", &consumed.delivery, consumed.pace, headers)
    }

    /// A message in a lane that is not a delivery, to the dead letters with its body as it is.
    pub fn malformed(
        &self,
        received: &Received,
        error: &Malformed,
        attempt: Attempt,
        now: Timestamp,
    ) -> Message {
        let failure = Failure::new(Reason::Protocol, error.to_string());
        Message {
            exchange: format!("{}.dead", self.prefix),
            routing_key: received.routing_key.clone(),
            headers: failure_headers(&failure, attempt, now),
            ..foreign(received)
        }
    }

    /// A domain event that cannot be used, with its body byte for byte.
    pub fn rejected(&self, received: &Received, rejection: &Rejection, now: Timestamp) -> Message {
        Message {
            exchange: format!("{}.rejected", self.prefix),
            routing_key: received.routing_key.clone(),
            headers: vec![
                (REASON, text(rejection.reason.as_str())),
                (DETAIL, text(&rejection.detail)),
                (FAILED_AT, text(&now.to_string())),
            ],
            ..foreign(received)
        }
    }

    fn message(
        &self,
        exchange: &str,
        delivery: &Delivery,
        pace: Pace,
        failure: Vec<(&'static str, HeaderValue)>,
    ) -> Message {
        let mut headers = vec![
            (TYPE, text(delivery.kind.name())),
            (SUBSCRIBER, text(delivery.subscriber.as_str())),
            (
                RECEIVED_AT,
                HeaderValue::Number(delivery.received_at.as_millisecond()),
            ),
            (REPLAY, HeaderValue::Number(delivery.replay.into())),
        ];
        if let Some(case) = &delivery.case {
            headers.push((CASE, text(case)));
        }
        if let Some(traceparent) = &delivery.traceparent {
            headers.push((TRACEPARENT, text(traceparent)));
        }
        headers.extend(failure);
        Message {
            exchange: format!("{}.{exchange}", self.prefix),
            routing_key: routing_key(pace, self.retry_delay_ms, &delivery.subscriber),
            message_id: delivery.webhook_id.to_string(),
            content_type: Some("application/json"),
            kind: None,
            app_id: None,
            timestamp: u64::try_from(delivery.event_time.as_second()).ok(),
            headers,
            body: delivery.payload.clone(),
        }
    }
}

/// Reads a delivery from a lane. What it carries on is no longer than the bridge itself would have
/// made it: a header that does not fit into a frame would cost the publishing connection.
pub fn consumed(received: &Received) -> Result<Consumed, Malformed> {
    let missing = |what| Malformed { what };
    let webhook_id = received
        .message_id()
        .and_then(|id| Uuid::try_parse(id).ok())
        .ok_or_else(|| missing("message_id"))?;
    let kind = received
        .text(TYPE)
        .and_then(WebhookType::from_name)
        .ok_or_else(|| missing(TYPE))?;
    let subscriber = received
        .text(SUBSCRIBER)
        .ok_or_else(|| missing(SUBSCRIBER))?;
    let received_at = received
        .number(RECEIVED_AT)
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .ok_or_else(|| missing(RECEIVED_AT))?;
    let event_time = received
        .timestamp()
        .and_then(|s| Timestamp::from_second(i64::try_from(s).ok()?).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let replay = match received.number(REPLAY) {
        Some(replay) => u32::try_from(replay).map_err(|_| missing(REPLAY))?,
        None => 0,
    };
    let first = received
        .text(REASON)
        .and_then(Reason::from_name)
        .map(|reason| Failure::new(reason, received.text(DETAIL).unwrap_or_default()));
    let pace = if received.routing_key.starts_with("slow.") {
        Pace::Slow
    } else {
        Pace::Fast
    };
    Ok(Consumed {
        delivery: Delivery {
            webhook_id,
            kind,
            subscriber: SubscriberId::new(subscriber),
            payload: received.body.clone(),
            event_time,
            received_at,
            replay,
            case: received
                .text(CASE)
                .filter(|case| case.len() <= ID_BYTES)
                .map(str::to_owned),
            traceparent: received
                .text(TRACEPARENT)
                .filter(|text| is_traceparent(text))
                .map(str::to_owned),
        },
        pace,
        first,
    })
}

/// When the last attempt of a delivery in a lane failed, if the bridge itself brought it there.
pub fn failed_at(received: &Received) -> Option<Timestamp> {
    received.text(FAILED_AT)?.parse().ok()
}

/// What a trace is told of messages that are published: the `traceparent` and the exchange of each.
pub fn traced(messages: &[Message]) -> impl Iterator<Item = (Option<&str>, &str)> {
    let each = messages.iter();
    each.map(|message| (message.text(TRACEPARENT), message.exchange.as_str()))
}

fn failure_headers(
    failure: &Failure,
    attempt: Attempt,
    now: Timestamp,
) -> Vec<(&'static str, HeaderValue)> {
    vec![
        (REASON, text(failure.reason.as_str())),
        (DETAIL, text(&failure.detail)),
        (ATTEMPTS, HeaderValue::Number(attempt.number().into())),
        (FAILED_AT, text(&now.to_string())),
    ]
}

/// What of a message that is not ours goes on: its body, under an id made from it, so that a
/// redelivered one is the same again.
fn foreign(received: &Received) -> Message {
    Message::plain(
        "",
        "",
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &received.body).to_string(),
        received.body.clone(),
    )
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::Text(value.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn delivery() -> Delivery {
        Delivery {
            webhook_id: super::super::webhook_id("/order-hub", "evt-01", "fixit"),
            kind: WebhookType::StatusUpdate,
            subscriber: SubscriberId::new("fixit"),
            payload: "{}".into(),
            event_time: "2019-01-22T11:29:38Z".parse().unwrap(),
            received_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            replay: 2,
            case: Some("c-1".into()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        }
    }

    #[test]
    fn a_delivery_reads_back_as_it_was_written() {
        let lanes = Lanes::new("hb", Duration::from_secs(30));
        let message = lanes.first(&delivery(), Pace::Fast);
        assert_eq!(message.exchange, "hb.first");
        let back = consumed(&message.into()).unwrap();
        assert_eq!(
            back,
            Consumed {
                delivery: delivery(),
                pace: Pace::Fast,
                first: None
            }
        );
    }

    #[test]
    fn a_dead_letter_tells_both_failures() {
        let lanes = Lanes::new("hb", Duration::from_millis(1500));
        let failure = Failure::new(Reason::Timeout, "no answer\nwithin 15s");
        let now = Timestamp::UNIX_EPOCH;
        let retry = lanes.retry(&delivery(), Pace::Slow, &failure, now);
        assert!(
            retry.routing_key.starts_with("slow."),
            "{}",
            retry.routing_key
        );
        assert!(
            retry.routing_key.ends_with(".1500.fixit"),
            "{}",
            retry.routing_key
        );
        let consumed = consumed(&retry.into()).unwrap();
        assert_eq!(
            consumed.first,
            Some(Failure::new(Reason::Timeout, "no answer within 15s"))
        );
        let second = Failure::new(Reason::HttpStatus, "500");
        let dead: Received = lanes.dead(&consumed, Attempt::Second, &second, now).into();
        assert_eq!(dead.text(REASON), Some("http_status"));
        assert_eq!(dead.text(FIRST_REASON), Some("timeout"));
        assert_eq!(dead.text(FIRST_DETAIL), Some("no answer within 15s"));
        assert_eq!(dead.number(ATTEMPTS), Some(2));
        assert_eq!(dead.number(REPLAY), Some(2));
    }

    #[test]
    fn what_the_broker_forwarded_too_early_goes_where_it_was_going() {
        let lanes = Lanes::new("hb", Duration::from_secs(1));
        let failure = Failure::new(Reason::Timeout, "no answer");
        let lost = || -> Received {
            let retry = lanes.retry(&delivery(), Pace::Slow, &failure, Timestamp::UNIX_EPOCH);
            retry.into()
        };
        for (from, to) in [
            ("hb.first.slow.03", "hb.retry"),
            ("hb.retry.30000", "hb.second"),
            ("hb.second.slow.03", "hb.dead"),
        ] {
            let onward = lanes.onward(&lost().dead_letter_of(from)).unwrap();
            assert_eq!(onward.exchange, to);
            let onward = Received::from(onward);
            assert_eq!(onward.routing_key, lost().routing_key);
            assert_eq!(onward.dead_lettered_from(), None, "it goes on once");
            let consumed = consumed(&onward).unwrap();
            assert_eq!(consumed.delivery, delivery());
            assert_eq!(consumed.first.as_ref(), Some(&failure));
        }
        let event = Message::plain("", "orders.placed", "1", "{");
        let event = Received::from(event).dead_letter_of("hb.events");
        let onward = lanes.onward(&event).unwrap();
        assert_eq!(onward.exchange, "hb.rejected");
        assert_eq!(onward.routing_key, "orders.placed");
        assert_eq!(onward.body, event.body);
    }

    #[test]
    fn what_the_broker_did_not_move_stays() {
        let lanes = Lanes::new("hb", Duration::from_secs(1));
        let lost = || Received::from(lanes.first(&delivery(), Pace::Fast));
        assert!(lanes.onward(&lost()).is_none());
        for from in [
            "",
            "hb",
            "hb.lost",
            "hb.dead",
            "hb2.retry.1",
            "other.retry.1",
        ] {
            assert!(lanes.onward(&lost().dead_letter_of(from)).is_none());
        }
        let not_ours = Received::from(Message::plain("", "k", "1", "{}"));
        assert!(
            lanes
                .onward(&not_ours.dead_letter_of("hb.retry.1"))
                .is_none()
        );
    }

    #[test]
    fn headers_that_somebody_else_made_large_do_not_travel_on() {
        let lanes = Lanes::new("hb", Duration::from_secs(1));
        let large = "x".repeat(100_000);
        let failure = Failure::new(Reason::Timeout, "no answer");
        let mut message = lanes.retry(&delivery(), Pace::Fast, &failure, Timestamp::UNIX_EPOCH);
        for (name, value) in &mut message.headers {
            if [DETAIL, CASE, TRACEPARENT].contains(name) {
                *value = text(&large);
            }
        }
        let consumed = consumed(&message.into()).unwrap();
        assert_eq!(consumed.delivery.case, None);
        assert_eq!(consumed.delivery.traceparent, None);
        assert_eq!(consumed.first.unwrap().detail.len(), 512);
    }

    #[test]
    fn what_is_not_a_delivery_names_what_is_missing() {
        let mut message = Lanes::new("hb", Duration::from_secs(1)).first(&delivery(), Pace::Fast);
        message.headers.retain(|(name, _)| *name != SUBSCRIBER);
        assert_eq!(
            consumed(&message.into()),
            Err(Malformed { what: SUBSCRIBER })
        );
    }
}
