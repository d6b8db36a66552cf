//! One delivery: a webhook addressed to one subscriber, the unit that is attempted, retried,
//! dead-lettered and replayed. Pure: no I/O, no runtime.

use std::{fmt, sync::LazyLock, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{subscriber::SubscriberId, webhook::WebhookType};

pub mod addressed;
pub mod letter;
pub mod request;
pub mod settlement;
pub mod wire;

/// A webhook addressed to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The same for every attempt and replay: see [`webhook_id`].
    pub webhook_id: Uuid,
    /// Which documented webhook it is.
    pub kind: WebhookType,
    /// To whom it goes; addresses and secrets are looked up at each attempt.
    pub subscriber: SubscriberId,
    /// The documented payload.
    pub payload: Bytes,
    /// When the domain event happened.
    pub event_time: Timestamp,
    /// When the domain event reached the bridge, to the millisecond.
    pub received_at: Timestamp,
    /// 0, and one more at each replay.
    pub replay: u32,
    /// The case, for routing-key templates.
    pub case: Option<String>,
    /// W3C trace context, if the event carried one.
    pub traceparent: Option<String>,
}

impl Delivery {
    /// How long ago the domain event reached the bridge; nothing if the clock was set back since.
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.received_at)).unwrap_or_default()
    }
}

/// The id of the webhook made from the event (`source`, `id`) for `subscriber`: UUIDv5, so that a
/// repeated attempt carries the id that the receiver has seen.
pub fn webhook_id(source: &str, id: &str, subscriber: &str) -> Uuid {
    static NAMESPACE: LazyLock<Uuid> =
        LazyLock::new(|| Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:hookbridge:webhook"));
    let name = serde_json::json!([source, id, subscriber]).to_string();
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// Which try of a delivery: told by the queue that it is consumed from, and by nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// From the set `first`, or intake's own publish to a home-broker queue.
    First,
    /// From the set `second`.
    Second,
}

impl Attempt {
    /// 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::First => 1,
            Self::Second => 2,
        }
    }
}

/// Which of the two kinds of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pace {
    /// The usual lanes.
    Fast,
    /// The lanes of slow subscribers.
    Slow,
}

impl Pace {
    /// How many lanes of this kind there are in each set.
    pub fn lanes(self) -> u32 {
        match self {
            Self::Fast => 8,
            Self::Slow => 16,
        }
    }

    /// The word in queue names and routing keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

/// The routing key of a delivery: `<fast|slow>.<NN>.<ms>.<subscriber id>`. It survives every
/// dead-lettering, so the retry delay in it picks the wait queue.
pub fn routing_key(pace: Pace, retry_delay_ms: u128, subscriber: &SubscriberId) -> String {
    let lane = lane(pace, subscriber);
    format!("{}.{lane:02}.{retry_delay_ms}.{subscriber}", pace.as_str())
}

/// The number of the lane of this kind that a subscriber's deliveries are in.
pub fn lane(pace: Pace, subscriber: &SubscriberId) -> u32 {
    let digest = Sha256::digest(subscriber.as_str().as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % pace.lanes()
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The class, one of a fixed set.
    pub reason: Reason,
    /// One line for a person, without the subscriber's secrets.
    pub detail: String,
}

impl Failure {
    /// A failure with this detail, cut to one line of at most 512 bytes.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Self {
        Self {
            reason,
            detail: one_line(detail.as_ref()),
        }
    }
}

/// The class of a failed attempt, as `hookbridge-reason` and the metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A status other than 200–299.
    HttpStatus,
    /// No answer, or no confirm, in time.
    Timeout,
    /// No connection: refused, reset, unreachable.
    Connect,
    /// The name did not resolve.
    Dns,
    /// The TLS handshake failed.
    Tls,
    /// The answer is not what the protocol allows, or breaks off; or the request cannot be made.
    Protocol,
    /// The subscriber's broker refuses login or permission.
    AccessRefused,
    /// The subscriber's broker blocks its publishers (memory or disk alarm).
    Blocked,
    /// The broker returned the message: no queue is bound.
    Returned,
    /// The broker refused the message.
    Nacked,
    /// The broker closed the channel.
    ChannelClosed,
    /// The address is one that the bridge must not call.
    TargetForbidden,
    /// The subscriber is unknown here.
    SubscriberRemoved,
    /// The subscriber is disabled.
    SubscriberDisabled,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::HttpStatus,
        Self::Timeout,
        Self::Connect,
        Self::Dns,
        Self::Tls,
        Self::Protocol,
        Self::AccessRefused,
        Self::Blocked,
        Self::Returned,
        Self::Nacked,
        Self::ChannelClosed,
        Self::TargetForbidden,
        Self::SubscriberRemoved,
        Self::SubscriberDisabled,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpStatus => "http_status",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::AccessRefused => "access_refused",
            Self::Blocked => "blocked",
            Self::Returned => "returned",
            Self::Nacked => "nacked",
            Self::ChannelClosed => "channel_closed",
            Self::TargetForbidden => "target_forbidden",
            Self::SubscriberRemoved => "subscriber_removed",
            Self::SubscriberDisabled => "subscriber_disabled",
        }
    }

    /// The reason with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx, or a confirm without a return.
    Delivered,
    /// Anything else.
    Failed(Failure),
}

/// Folds control characters into spaces and cuts at 512 bytes, on a character boundary.
fn one_line(text: &str) -> String {
    const LIMIT: usize = 512;
    let mut line = String::with_capacity(text.len().min(LIMIT));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if line.len() + c.len_utf8() > LIMIT {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{Timestamp, request::tests::delivery};
    use std::time::Duration;

    #[test]
    fn a_clock_that_is_set_back_makes_a_delivery_new_and_not_old() {
        let delivery = delivery();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(delivery.age(at(3)), Duration::from_secs(3));
        assert_eq!(delivery.age(at(-3_600)), Duration::ZERO);
    }
}
