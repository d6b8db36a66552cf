//! All subscribers, and who of them gets an event. Pure. Intake asks this for every event, so the
//! answer is looked up: subscribers that do not match cost nothing.
//!
//! A set is cheap to clone, and a clone that is changed copies the small part that holds the change:
//! so one of 100,000 subscribers is changed by making the next set, while the others read this one.

use std::sync::Arc;

use crate::webhook::{Audience, WebhookType};

use super::Subscriber;

mod index;
mod ordered;

use index::Index;
use ordered::Ordered;

/// All subscribers, indexed for [`matching`](Self::matching).
#[derive(Debug, Clone, Default)]
pub struct SubscriberSet {
    by_id: Ordered,
    enabled: usize,
    index: Index,
}

impl SubscriberSet {
    /// The set of these subscribers; of two with the same id, the latter.
    pub fn new(subscribers: Vec<Subscriber>) -> Self {
        let mut set = Self::default();
        for subscriber in subscribers {
            set.insert(Arc::new(subscriber));
        }
        set
    }

    /// Adds a subscriber, in place of the one with its id.
    pub fn insert(&mut self, subscriber: Arc<Subscriber>) {
        self.remove(subscriber.id.as_str());
        if subscriber.enabled {
            self.enabled += 1;
            self.index.insert(&subscriber);
        }
        self.by_id.insert(subscriber);
    }

    /// Removes the subscriber with this id, and gives it.
    pub fn remove(&mut self, id: &str) -> Option<Arc<Subscriber>> {
        let removed = self.by_id.remove(id)?;
        if removed.enabled {
            self.enabled -= 1;
            self.index.remove(&removed);
        }
        Some(removed)
    }

    /// The subscriber with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Subscriber>> {
        self.by_id.get(id)
    }

    /// All subscribers, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subscriber>> {
        self.by_id.after("")
    }

    /// The subscribers behind this id, in the order of theirs: a list that is cut into pages.
    pub fn after(&self, id: &str) -> impl Iterator<Item = &Arc<Subscriber>> {
        self.by_id.after(id)
    }

    /// How many subscribers are enabled, and how many disabled.
    pub fn counts(&self) -> (usize, usize) {
        (self.enabled, self.by_id.len() - self.enabled)
    }

    /// The enabled subscribers entitled to a webhook of this type and audience, each once, provided
    /// that the audience names no party twice.
    ///
    /// A `NewMessage` goes only to parties of the case that did not send it; without a sender
    /// nobody can be told from the sender, and nobody gets it.
    pub fn matching<'a>(
        &'a self,
        kind: WebhookType,
        audience: &Audience,
    ) -> impl Iterator<Item = &'a Arc<Subscriber>> {
        let case = audience.case.as_deref();
        let parties = audience.parties.iter().map(String::as_str);
        let parties = parties.filter(|party| may_receive(kind, audience, party));
        let mut groups = Vec::with_capacity(2 + 2 * audience.parties.len());
        for party in std::iter::once(None).chain(parties.map(Some)) {
            groups.extend(self.index.get(party, None));
            if case.is_some() {
                groups.extend(self.index.get(party, case));
            }
        }
        groups
            .into_iter()
            .flat_map(move |group| group.wanting(kind))
    }
}

/// Whether a party of the case is one that this webhook may go to.
fn may_receive(kind: WebhookType, audience: &Audience, party: &str) -> bool {
    kind != WebhookType::NewMessage
        || audience
            .sender
            .as_deref()
            .is_some_and(|sender| sender != party)
}

#[cfg(test)]
mod tests;
