//! What settles a delivery: **the one place where a retry is decided**.

use super::{Attempt, Failure, Outcome, Reason};

/// What is done with a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It arrived: acknowledge it.
    Done,
    /// Publish it to `retry`, whose dead-letter exchange brings it to `second`.
    Retry(Failure),
    /// Publish it to `dead`.
    Dead(Failure),
}

/// Decides by the attempt, which the queue tells, and by its outcome.
///
/// A first failure waits for the second attempt, and a second one is final. Two reasons do not
/// wait: nothing will make a forbidden address allowed or a disabled subscriber wanted by then.
pub fn settle(attempt: Attempt, outcome: Outcome) -> Settlement {
    match outcome {
        Outcome::Delivered => Settlement::Done,
        Outcome::Failed(failure) => match (attempt, failure.reason) {
            (_, Reason::TargetForbidden | Reason::SubscriberDisabled) | (Attempt::Second, _) => {
                Settlement::Dead(failure)
            }
            (Attempt::First, _) => Settlement::Retry(failure),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_failure_is_retried_and_a_second_is_dead() {
        for reason in Reason::ALL {
            let failed = || Outcome::Failed(Failure::new(reason, "x"));
            let failure = Failure::new(reason, "x");
            let at_once = matches!(reason, Reason::TargetForbidden | Reason::SubscriberDisabled);
            let first = if at_once {
                Settlement::Dead(failure.clone())
            } else {
                Settlement::Retry(failure.clone())
            };
            assert_eq!(settle(Attempt::First, failed()), first, "{reason}");
            assert_eq!(
                settle(Attempt::Second, failed()),
                Settlement::Dead(failure),
                "{reason}"
            );
        }
        for attempt in [Attempt::First, Attempt::Second] {
            assert_eq!(settle(attempt, Outcome::Delivered), Settlement::Done);
        }
    }
}
