//! How many attempts of one subscriber may run at once, counted in this bridge.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::subscriber::{Subscriber, SubscriberId};

/// The attempts under way, by subscriber.
#[derive(Debug, Default)]
pub struct Limits(Mutex<HashMap<SubscriberId, (usize, Arc<Semaphore>)>>);

impl Limits {
    /// Waits until the subscriber may have one more attempt; it ends when the permit is dropped.
    pub async fn permit(&self, subscriber: &Subscriber) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let limit = subscriber.max_in_flight;
            match limits.get(&subscriber.id) {
                Some((allowed, semaphore)) if *allowed == limit => semaphore.clone(),
                _ => {
                    let semaphore = Arc::new(Semaphore::new(limit));
                    limits.insert(subscriber.id.clone(), (limit, semaphore.clone()));
                    semaphore
                }
            }
        };
        // Fails only on a closed semaphore, and none is ever closed.
        semaphore.acquire_owned().await.ok()
    }

    /// Forgets subscribers that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&SubscriberId) -> bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| wanted(id));
    }
}
