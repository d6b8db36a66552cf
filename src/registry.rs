//! Who is subscribed now: the subscribers' files and the store, in one live set. A change made here
//! or told by another bridge is a change of one entry.

use std::sync::Arc;

use crate::{
    store::{
        Store, StoreError,
        subscribers::{Condition, Given, Saved},
    },
    subscriber::{LiveSubscribers, Subscriber, SubscriberId},
};

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// `store.url` is empty.
    #[error("this bridge has no store: set `store.url` to change subscribers through the API")]
    NoStore,
    /// The subscriber is defined in a file.
    #[error("the subscriber is defined in {0}: change it there")]
    InFile(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Knows and changes who is subscribed. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    live: LiveSubscribers,
    store: Option<Store>,
}

impl Registry {
    /// The subscribers as they are now.
    pub fn live(&self) -> &LiveSubscribers {
        &self.live
    }

    /// The store, if there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The subscriber with this id; one that is not known here is looked for in the store.
    pub async fn find(&self, id: &SubscriberId) -> Option<Arc<Subscriber>> {
        self.live.load().get(id.as_str()).cloned()
    }

    /// Makes or replaces a subscriber, whose `origin` does not matter, here and on every other
    /// bridge. `by` is the name of the token that does it.
    pub async fn put(
        &self,
        subscriber: &Subscriber,
        given: Given,
        condition: Condition,
        by: &str,
    ) -> Result<Saved, ChangeError> {
        let store = self.store.as_ref().ok_or(ChangeError::NoStore)?;
        Ok(store
            .put_subscriber(subscriber, given, condition, by)
            .await?)
    }

    /// Enables or disables a subscriber.
    pub async fn enable(
        &self,
        id: &SubscriberId,
        enabled: bool,
        condition: Condition,
        by: &str,
    ) -> Result<Saved, ChangeError> {
        let store = self.store.as_ref().ok_or(ChangeError::NoStore)?;
        Ok(store.enable_subscriber(id, enabled, condition, by).await?)
    }

    /// Removes a subscriber.
    pub async fn delete(&self, id: &SubscriberId, condition: Condition) -> Result<(), ChangeError> {
        let store = self.store.as_ref().ok_or(ChangeError::NoStore)?;
        Ok(store.delete_subscriber(id, condition).await?)
    }
}
