//! What the bridge tells about itself.

pub mod logs;
pub mod metrics;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    delivery::{Attempt, Delivery, settlement::Settlement},
    event::{Rejection, RejectionReason},
};

/// How often rejections for one reason are said.
const REJECTIONS_EVERY: Duration = Duration::from_secs(10);

/// Says why domain events are rejected: the first for each reason at once, and then one line in ten
/// seconds with how many there were. The events themselves are all in the queue `rejected`.
#[derive(Debug, Default)]
pub struct RejectionLog(Mutex<HashMap<RejectionReason, (Instant, u64)>>);

impl RejectionLog {
    /// Notes a rejection.
    pub fn log(&self, rejection: &Rejection) {
        let now = Instant::now();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unsaid = match said.get_mut(&rejection.reason) {
            Some((at, unsaid)) if now.duration_since(*at) < REJECTIONS_EVERY => {
                *unsaid += 1;
                return;
            }
            Some((_, unsaid)) => *unsaid,
            None => 0,
        };
        said.insert(rejection.reason, (now, 0));
        tracing::warn!(
            reason = rejection.reason.as_str(),
            unsaid,
            "a domain event is rejected: {}",
            rejection.detail
        );
    }
}

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
