//! How a subscriber is shown: the JSON form of what its file says, with `{"set": true}` in place of
//! every secret. Pure.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Destination, Interest, Subscriber, Target, address, loading::request::HIDDEN_QUERY};
use crate::webhook::WebhookType;

/// A subscriber without its secrets.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "Subscriber")]
pub struct Shown {
    /// Unique among all subscribers; ids beginning with `case-` are hooks of cases.
    pub id: String,
    /// Whether webhooks are made for it.
    pub enabled: bool,
    /// Who it is in the order hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// Only these cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<Vec<String>>,
    /// `all` for every event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<&'static str>,
    /// The webhook types that it wants.
    pub events: Vec<&'static str>,
    /// One for each secret that its webhooks are signed with, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signing_secret: Vec<Set>,
    /// How long one attempt may take.
    pub timeout: String,
    /// How many attempts each bridge runs at once.
    pub max_in_flight: usize,
    /// An HTTP endpoint; or else `amqp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<ShownHttp>,
    /// A queue or exchange; or else `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amqp: Option<ShownAmqp>,
}

/// In place of a secret: that one is set. Written back, it keeps the secret.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Set {
    /// Always true.
    pub set: bool,
}

/// In place of an AMQP URI: that one is set, and for which broker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SetUri {
    /// Always true.
    pub set: bool,
    /// Scheme, host and port.
    pub address: String,
}

/// An HTTP endpoint without its secrets.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ShownHttp {
    /// The URL; `***` stands for its query.
    pub url: String,
    /// Whether an `authorization` header is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Set>,
    /// The subscriber's own headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Set>,
}

/// A queue or exchange without its secrets.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ShownAmqp {
    /// The subscriber's own broker; the home broker without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<SetUri>,
    /// The queue that is published to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Whether the bridge declares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declare: Option<bool>,
    /// The exchange that is published to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// The routing key, with placeholders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
}

/// A subscriber as it may be shown.
pub fn shown(subscriber: &Subscriber) -> Shown {
    let (party, cases, scope) = match &subscriber.interest {
        Interest::Party { party, cases } => (Some(party.clone()), cases.clone(), None),
        Interest::Cases(cases) => (None, Some(cases.clone()), None),
        Interest::All => (None, None, Some("all")),
    };
    let (http, amqp) = match &subscriber.target {
        Target::Http(_) => (http(subscriber), None),
        Target::Amqp(_) => (None, amqp(subscriber)),
    };
    Shown {
        id: subscriber.id.to_string(),
        enabled: subscriber.enabled,
        party,
        cases: cases.map(|cases| cases.iter().map(str::to_owned).collect()),
        scope,
        events: events(subscriber),
        signing_secret: vec![Set { set: true }; subscriber.signing_secrets.len()],
        timeout: humantime::format_duration(subscriber.timeout).to_string(),
        max_in_flight: subscriber.max_in_flight,
        http,
        amqp,
    }
}

/// The webhook types, or `*` for what that means for this subscriber.
fn events(subscriber: &Subscriber) -> Vec<&'static str> {
    let wants = |kind: WebhookType| subscriber.events.contains(kind);
    let no_party = subscriber.interest.party().is_none();
    let all = WebhookType::ALL
        .into_iter()
        .all(|kind| wants(kind) || (no_party && kind == WebhookType::NewMessage));
    if all {
        return vec!["*"];
    }
    let wanted = WebhookType::ALL.into_iter().filter(|kind| wants(*kind));
    wanted.map(WebhookType::name).collect()
}

fn http(subscriber: &Subscriber) -> Option<ShownHttp> {
    let Target::Http(target) = &subscriber.target else {
        return None;
    };
    let mut url = target.url.clone();
    if url.query().is_some() {
        url.set_query(Some(HIDDEN_QUERY));
    }
    let headers = target.headers.iter();
    Some(ShownHttp {
        url: url.into(),
        authorization: target.authorization.as_ref().map(|_| Set { set: true }),
        headers: headers
            .map(|(name, _)| (name.clone(), Set { set: true }))
            .collect(),
    })
}

fn amqp(subscriber: &Subscriber) -> Option<ShownAmqp> {
    let Target::Amqp(target) = &subscriber.target else {
        return None;
    };
    let uri = target.broker.as_ref().map(|broker| SetUri {
        set: true,
        address: broker
            .uri
            .expose_secret()
            .parse()
            .map_or_else(|_| String::new(), |uri| address(&uri)),
    });
    let mut shown = ShownAmqp {
        uri,
        queue: None,
        declare: None,
        exchange: None,
        routing_key: None,
    };
    match &target.destination {
        Destination::Queue { name, declare } => {
            shown.queue = Some(name.clone());
            shown.declare = declare.then_some(true);
        }
        Destination::Exchange { name, routing_key } => {
            shown.exchange = Some(name.clone());
            shown.routing_key = Some(routing_key.0.clone());
        }
    }
    Some(shown)
}
