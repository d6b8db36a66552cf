//! What the messages in the queues `dead`, `rejected` and `lost` tell: who they were for, and why
//! they are there.

use jiff::Timestamp;

use super::{
    Reason,
    wire::{self, ATTEMPTS, Consumed, DETAIL, FAILED_AT, FIRST_DETAIL, FIRST_REASON, REASON},
};
use crate::broker::message::Received;

/// How what the broker dead-lettered by itself is shown.
pub const BY_THE_BROKER: &str = "broker";

/// A dead letter as its message tells it.
#[derive(Debug)]
pub struct Letter {
    /// The delivery that it was, if it was one.
    pub consumed: Option<Consumed>,
    /// Why it failed in the end: a delivery's or a rejection's reason, or [`BY_THE_BROKER`].
    pub reason: String,
    /// One line about that.
    pub detail: String,
    /// The attempt that it ended on.
    pub attempts: Option<i64>,
    /// Why the first attempt failed, if another followed.
    pub first: Option<(String, String)>,
    /// When it failed, if it says so.
    pub failed_at: Option<Timestamp>,
}

/// Reads a dead letter.
///
/// A delivery that the broker moved on by itself, from the lane of the second attempt, still carries
/// what the first left: then that is the reason of the first, and the broker's is the last. A domain
/// event is no delivery, whatever it looks like.
pub fn letter(received: &Received, is_event: bool) -> Letter {
    let consumed = wire::consumed(received).ok().filter(|_| !is_event);
    let text = |name: &str| received.text(name).map(str::to_owned);
    let attempts = received.number(ATTEMPTS);
    let reason = received.text(REASON);
    let told = (text(REASON), text(DETAIL).unwrap_or_default());
    let of_first = consumed.is_some()
        && match attempts {
            None => true,
            Some(1) => !reason.and_then(Reason::from_name).is_some_and(is_final),
            Some(_) => false,
        };
    let failed_at = text(FAILED_AT).and_then(|time| time.parse().ok());
    match told {
        (Some(reason), detail) if !of_first => Letter {
            consumed,
            reason,
            detail,
            attempts,
            first: text(FIRST_REASON).map(|first| (first, text(FIRST_DETAIL).unwrap_or_default())),
            failed_at,
        },
        (first, detail) => Letter {
            consumed,
            reason: BY_THE_BROKER.to_owned(),
            detail: "the broker moved it here by itself, and says no reason".to_owned(),
            attempts: None,
            first: first.map(|first| (first, detail)),
            failed_at: None,
        },
    }
}

/// Whether a first attempt that fails so is the last.
fn is_final(reason: Reason) -> bool {
    matches!(
        super::settlement::settle(
            super::Attempt::First,
            super::Outcome::Failed(super::Failure::new(reason, ""))
        ),
        super::settlement::Settlement::Dead(_)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::{Attempt, Failure, Pace, request::tests::delivery, wire::Lanes};

    fn lanes() -> Lanes {
        Lanes::new("hb", Duration::from_secs(1))
    }

    #[test]
    fn a_dead_letter_tells_both_attempts() {
        let first = Failure::new(Reason::Timeout, "slow");
        let consumed = Consumed {
            delivery: delivery(),
            pace: Pace::Fast,
            first: Some(first),
        };
        let now: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let last = Failure::new(Reason::HttpStatus, "500");
        let dead = lanes().dead(&consumed, Attempt::Second, &last, now);
        let letter = letter(&dead.into(), false);
        assert_eq!(letter.reason, "http_status");
        assert_eq!(letter.detail, "500");
        assert_eq!(letter.attempts, Some(2));
        assert_eq!(letter.first, Some(("timeout".into(), "slow".into())));
        assert_eq!(letter.failed_at, Some(now));
    }

    #[test]
    fn what_the_broker_moved_by_itself_does_not_pass_for_the_last_attempt() {
        let first = Failure::new(Reason::Timeout, "slow");
        let retry = lanes().retry(&delivery(), Pace::Fast, &first, Timestamp::UNIX_EPOCH);
        let letter = letter(&retry.into(), false);
        assert_eq!(letter.reason, BY_THE_BROKER);
        assert_eq!(letter.first, Some(("timeout".into(), "slow".into())));
        assert_eq!((letter.attempts, letter.failed_at), (None, None));
    }

    #[test]
    fn a_first_attempt_that_is_the_last_keeps_its_reason() {
        let consumed = Consumed {
            delivery: delivery(),
            pace: Pace::Fast,
            first: None,
        };
        let disabled = Failure::new(Reason::SubscriberDisabled, "it is disabled");
        let now = Timestamp::UNIX_EPOCH;
        let dead = lanes().dead(&consumed, Attempt::First, &disabled, now);
        assert_eq!(letter(&dead.into(), false).reason, "subscriber_disabled");
    }
}
