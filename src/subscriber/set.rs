//! All subscribers, and who of them gets an event. Pure. Intake asks this for every event, so the
//! answer is looked up: subscribers that do not match cost nothing.

use std::{collections::HashMap, sync::Arc};

use crate::webhook::{Audience, WebhookType};

use super::{Interest, Subscriber};

/// All subscribers, indexed for [`matching`](Self::matching).
#[derive(Debug, Default)]
pub struct SubscriberSet {
    /// In the order of their ids.
    subscribers: Vec<Arc<Subscriber>>,
    /// One index for each webhook type.
    indexes: [Index; WebhookType::ALL.len()],
}

/// The enabled subscribers that want one webhook type, as positions in the set; each is in one
/// place only.
#[derive(Debug, Default)]
struct Index {
    all: Vec<usize>,
    by_case: HashMap<Arc<str>, Vec<usize>>,
    by_party: HashMap<Arc<str>, PartyIndex>,
}

/// The subscribers of one party.
#[derive(Debug, Default)]
struct PartyIndex {
    any_case: Vec<usize>,
    by_case: HashMap<Arc<str>, Vec<usize>>,
}

impl SubscriberSet {
    /// The set of these subscribers, whose ids must differ.
    pub fn new(subscribers: Vec<Subscriber>) -> Self {
        let mut subscribers: Vec<_> = subscribers.into_iter().map(Arc::new).collect();
        subscribers.sort_by(|a, b| a.id.cmp(&b.id));
        let mut indexes: [Index; WebhookType::ALL.len()] = Default::default();
        for (position, subscriber) in subscribers.iter().enumerate() {
            if subscriber.enabled {
                let keys = Keys::of(&subscriber.interest);
                for kind in WebhookType::ALL {
                    if subscriber.events.contains(kind) {
                        indexes[kind as usize].insert(kind, &keys, position);
                    }
                }
            }
        }
        Self {
            subscribers,
            indexes,
        }
    }

    /// The subscriber with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Subscriber>> {
        let position = self
            .subscribers
            .binary_search_by(|subscriber| subscriber.id.as_str().cmp(id))
            .ok()?;
        self.subscribers.get(position)
    }

    /// All subscribers, in the order of their ids.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Subscriber>> {
        self.subscribers.iter()
    }

    /// How many subscribers are enabled, and how many disabled.
    pub fn counts(&self) -> (usize, usize) {
        let enabled = self.iter().filter(|subscriber| subscriber.enabled).count();
        (enabled, self.subscribers.len() - enabled)
    }

    /// The enabled subscribers entitled to a webhook of this type and audience, each once, provided
    /// that the audience names no party twice.
    ///
    /// A `NewMessage` goes only to parties of the case that did not send it; without a sender
    /// nobody can be told from the sender, and nobody gets it.
    pub fn matching<'a>(
        &'a self,
        kind: WebhookType,
        audience: &'a Audience,
    ) -> impl Iterator<Item = &'a Arc<Subscriber>> {
        let index = &self.indexes[kind as usize];
        let case = audience.case.as_deref();
        let of_case = case.and_then(|case| index.by_case.get(case));
        let of_parties = audience
            .parties
            .iter()
            .filter(move |party| may_receive(kind, audience, party))
            .filter_map(|party| index.by_party.get(party.as_str()))
            .flat_map(move |party| {
                let of_case = case.and_then(|case| party.by_case.get(case));
                party.any_case.iter().chain(of_case.into_iter().flatten())
            });
        index
            .all
            .iter()
            .chain(of_case.into_iter().flatten())
            .chain(of_parties)
            .filter_map(|position| self.subscribers.get(*position))
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

impl<'a> IntoIterator for &'a SubscriberSet {
    type Item = &'a Arc<Subscriber>;
    type IntoIter = std::slice::Iter<'a, Arc<Subscriber>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What a subscriber is found by, shared by the indexes of all types.
struct Keys {
    party: Option<Arc<str>>,
    cases: Option<Vec<Arc<str>>>,
}

impl Keys {
    fn of(interest: &Interest) -> Self {
        let (party, cases) = match interest {
            Interest::Party { party, cases } => (Some(party.as_str().into()), cases.as_ref()),
            Interest::Cases(cases) => (None, Some(cases)),
            Interest::All => (None, None),
        };
        Self {
            party,
            cases: cases.map(|cases| cases.iter().map(|case| case.as_str().into()).collect()),
        }
    }
}

impl Index {
    fn insert(&mut self, kind: WebhookType, keys: &Keys, position: usize) {
        let (any_case, by_case) = match &keys.party {
            // Who has no party cannot be told from a message's sender.
            None if kind == WebhookType::NewMessage => return,
            None => (&mut self.all, &mut self.by_case),
            Some(party) => {
                let party = self.by_party.entry(Arc::clone(party)).or_default();
                (&mut party.any_case, &mut party.by_case)
            }
        };
        match &keys.cases {
            None => any_case.push(position),
            Some(cases) => {
                for case in cases {
                    by_case.entry(Arc::clone(case)).or_default().push(position);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
