//! Who is to be asked about an event: subscribers by their party and case, in shards that a changed
//! set shares with the one before.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::Subscriber;
use crate::{
    subscriber::{Interest, WebhookTypes},
    webhook::WebhookType,
};

/// A change copies the shards of its keys: with 100,000 keys, about a hundred each.
const SHARDS: usize = 1024;

/// Groups of subscribers by what they have in common: party and case, either of them or neither.
#[derive(Debug, Clone)]
pub(super) struct Index {
    shards: Vec<Arc<HashMap<Box<str>, Group>>>,
    hasher: RandomState,
}

/// Subscribers of the same party and case, by the webhook types that they want: those that want
/// others are passed over together, and there are few different wishes.
#[derive(Debug, Clone, Default)]
pub(super) struct Group(Vec<(WebhookTypes, Vec<Arc<Subscriber>>)>);

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: vec![Arc::default(); SHARDS],
            hasher: RandomState::new(),
        }
    }
}

impl Index {
    pub(super) fn get(&self, party: Option<&str>, case: Option<&str>) -> Option<&Group> {
        let key = key(party, case);
        self.shards.get(self.shard(&key))?.get(&*key)
    }

    pub(super) fn insert(&mut self, subscriber: &Arc<Subscriber>) {
        let types = wanted(subscriber);
        for key in keys(&subscriber.interest) {
            let shard = self.shard(&key);
            let Some(shard) = self.shards.get_mut(shard) else {
                continue;
            };
            let group = Arc::make_mut(shard).entry(key.into()).or_default();
            let known = group.0.iter_mut().find(|(same, _)| *same == types);
            if let Some((_, members)) = known {
                members.push(Arc::clone(subscriber));
                continue;
            }
            // Nearly always the only one: without a word a vector has room for four.
            group.0.reserve_exact(1);
            group.0.push((types, vec![Arc::clone(subscriber)]));
        }
    }

    /// Removes a subscriber, which must be the one that was inserted.
    pub(super) fn remove(&mut self, subscriber: &Arc<Subscriber>) {
        let types = wanted(subscriber);
        for key in keys(&subscriber.interest) {
            let shard = self.shard(&key);
            let Some(shard) = self.shards.get_mut(shard) else {
                continue;
            };
            let shard = Arc::make_mut(shard);
            let Some(group) = shard.get_mut(&*key) else {
                continue;
            };
            if let Some((_, members)) = group.0.iter_mut().find(|(same, _)| *same == types) {
                members.retain(|member| member.id != subscriber.id);
            }
            group.0.retain(|(_, members)| !members.is_empty());
            if group.0.is_empty() {
                shard.remove(&*key);
            }
        }
    }

    fn shard(&self, key: &str) -> usize {
        // The remainder is less than the number of shards.
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default()
    }
}

impl Group {
    /// Those who want this type.
    pub(super) fn wanting(&self, kind: WebhookType) -> impl Iterator<Item = &Arc<Subscriber>> {
        self.0
            .iter()
            .filter(move |(types, _)| types.contains(kind))
            .flat_map(|(_, members)| members)
    }
}

/// Who has no party cannot be told from a message's sender.
fn wanted(subscriber: &Subscriber) -> WebhookTypes {
    let mut types = subscriber.events;
    if subscriber.interest.party().is_none() {
        types.remove(WebhookType::NewMessage);
    }
    types
}

/// What a subscriber is found by.
fn keys(interest: &Interest) -> Vec<String> {
    let (party, cases) = match interest {
        Interest::Party { party, cases } => (Some(party.as_str()), cases.as_ref()),
        Interest::Cases(cases) => (None, Some(cases)),
        Interest::All => (None, None),
    };
    match cases {
        None => vec![key(party, None)],
        Some(cases) => cases.iter().map(|case| key(party, Some(case))).collect(),
    }
}

/// No id holds the character in the middle, and none is empty.
fn key(party: Option<&str>, case: Option<&str>) -> String {
    let (party, case) = (party.unwrap_or_default(), case.unwrap_or_default());
    let mut key = String::with_capacity(party.len() + 1 + case.len());
    key.push_str(party);
    key.push('\0');
    key.push_str(case);
    key
}
