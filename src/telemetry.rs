//! What the bridge tells about itself.

pub mod logs;
pub mod metrics;

use crate::delivery::{Attempt, Delivery, settlement::Settlement};

/// One line for a failed attempt: which delivery, for whom, why, and what comes next.
pub fn log_failure(delivery: &Delivery, attempt: Attempt, settlement: &Settlement) {
    let (failure, next) = match settlement {
        Settlement::Done => return,
        Settlement::Retry(failure) => (failure, "retry"),
        Settlement::Dead(failure) => (failure, "dead"),
    };
    tracing::warn!(
        delivery = %delivery.webhook_id,
        subscriber = delivery.subscriber.as_str(),
        webhook = delivery.kind.name(),
        attempt = attempt.number(),
        reason = failure.reason.as_str(),
        next,
        "attempt failed: {}",
        failure.detail
    );
}
