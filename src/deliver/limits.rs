//! How many attempts of one subscriber may run at once, counted in this bridge.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::subscriber::{Subscriber, SubscriberId};

/// The attempts under way, by subscriber.
#[derive(Debug, Default)]
pub struct Limits(Mutex<HashMap<SubscriberId, Limit>>);

#[derive(Debug)]
struct Limit {
    allowed: usize,
    permits: Arc<Semaphore>,
    /// Permits in use that are too many since the limit was lowered: each goes when it comes back.
    surplus: usize,
}

impl Limits {
    /// Waits until the subscriber may have one more attempt; it ends when the permit is dropped.
    /// `None` says to ask again, with the subscriber as it is by then: its limit was lowered
    /// meanwhile.
    pub async fn permit(&self, subscriber: &Subscriber) -> Option<OwnedSemaphorePermit> {
        let permits = self.permits(subscriber);
        // Fails only on a closed semaphore, and none is ever closed.
        let permit = permits.acquire_owned().await.ok()?;
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match limits.get_mut(&subscriber.id) {
            Some(limit) if limit.surplus > 0 => {
                limit.surplus -= 1;
                permit.forget();
                None
            }
            Some(_) | None => Some(permit),
        }
    }

    /// The subscriber's permits, as many as it is allowed now.
    fn permits(&self, subscriber: &Subscriber) -> Arc<Semaphore> {
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = subscriber.max_in_flight;
        let limit = limits
            .entry(subscriber.id.clone())
            .or_insert_with(|| Limit {
                allowed,
                permits: Arc::new(Semaphore::new(allowed)),
                surplus: 0,
            });
        if allowed > limit.allowed {
            let more = allowed - limit.allowed;
            let kept = more.min(limit.surplus);
            limit.surplus -= kept;
            limit.permits.add_permits(more - kept);
        } else if allowed < limit.allowed {
            let fewer = limit.allowed - allowed;
            limit.surplus += fewer - limit.permits.forget_permits(fewer);
        }
        limit.allowed = allowed;
        limit.permits.clone()
    }

    /// Forgets subscribers that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&SubscriberId) -> bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| wanted(id));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::delivery::request::tests::subscriber;

    fn allowing(max_in_flight: usize) -> Subscriber {
        Subscriber {
            max_in_flight,
            ..subscriber(&[])
        }
    }

    #[test]
    fn a_limit_that_changes_counts_what_is_under_way() {
        let limits = Limits::default();
        // As often as a lowered limit may say to ask again.
        let now =
            |limit| (0..4).find_map(|_| limits.permit(&allowing(limit)).now_or_never().flatten());
        let mut under_way: Vec<_> = (0..3).filter_map(|_| now(3)).collect();
        assert_eq!(under_way.len(), 3);
        assert!(now(3).is_none());

        assert!(now(1).is_none(), "three are under way, and one may be");
        under_way.truncate(1);
        assert!(now(1).is_none(), "one is still under way");
        under_way.clear();
        under_way.extend(now(1));
        assert_eq!(under_way.len(), 1);
        assert!(now(1).is_none());

        under_way.extend(now(2));
        assert_eq!(under_way.len(), 2, "one more may be now");
        assert!(now(2).is_none());
    }
}
