//! A subscriber as it stands in the store: what may be read in one JSON text, every secret by itself,
//! encrypted, in another.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::{
    StoreError,
    keys::{Keyring, SealError},
    subscribers::Given,
};
use crate::{
    settings::checks,
    subscriber::{
        AmqpTarget, Cases, Destination, HttpTarget, Interest, Origin, OutsideBroker,
        RoutingKeyTemplate, Subscriber, SubscriberId, Target, WebhookTypes, loading::Rules,
    },
    webhook::WebhookType,
};

const URL: &str = "http.url";
const AUTHORIZATION: &str = "http.authorization";
const URI: &str = "amqp.uri";

/// What of a subscriber is no secret.
#[derive(Debug, Serialize, Deserialize)]
struct Definition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    party: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cases: Option<Cases>,
    /// `*` alone for all, those of later versions, too.
    events: Vec<String>,
    /// Absent where `delivery.timeout` is to be followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    /// Absent where `delivery.max_in_flight_per_subscriber` is to be followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<usize>,
    #[serde(default)]
    signing_secrets: usize,
    target: Place,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Http {
        /// The names of the subscriber's own headers.
        #[serde(default)]
        headers: Vec<String>,
    },
    Queue {
        name: String,
        declare: bool,
    },
    Exchange {
        name: String,
        routing_key: String,
    },
}

/// What a subscriber's row says of it.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) enabled: bool,
    pub(super) definition: String,
    pub(super) secrets: String,
    pub(super) key_id: String,
    pub(super) version: i64,
}

/// A subscriber as its two texts.
pub(super) struct Written {
    pub(super) definition: String,
    pub(super) secrets: String,
}

impl Written {
    /// Writes a subscriber down.
    pub(super) fn new(
        subscriber: &Subscriber,
        given: Given,
        keys: &Keyring,
    ) -> Result<Self, StoreError> {
        let mut secrets = BTreeMap::new();
        let mut keep = |field: String, secret: &SecretString| {
            secrets.insert(field, secret.clone());
        };
        for (index, secret) in subscriber.signing_secrets.iter().enumerate() {
            keep(signing_secret(index), secret);
        }
        let target = match &subscriber.target {
            Target::Http(target) => {
                keep(URL.to_owned(), &target.url.as_str().into());
                if let Some(authorization) = &target.authorization {
                    keep(AUTHORIZATION.to_owned(), authorization);
                }
                for (name, value) in &target.headers {
                    keep(header(name), value);
                }
                let headers = target.headers.iter().map(|(name, _)| name.clone());
                Place::Http {
                    headers: headers.collect(),
                }
            }
            Target::Amqp(target) => {
                if let Some(broker) = &target.broker {
                    keep(URI.to_owned(), &broker.uri);
                }
                match target.destination.clone() {
                    Destination::Queue { name, declare } => Place::Queue { name, declare },
                    Destination::Exchange { name, routing_key } => Place::Exchange {
                        name,
                        routing_key: routing_key.0,
                    },
                }
            }
        };
        let (party, cases) = match subscriber.interest.clone() {
            Interest::Party { party, cases } => (Some(party), cases),
            Interest::Cases(cases) => (None, Some(cases)),
            Interest::All => (None, None),
        };
        let events = if subscriber.events == all_events(party.as_deref()) {
            vec!["*".to_owned()]
        } else {
            let wanted = |kind: &WebhookType| subscriber.events.contains(*kind);
            let kinds = WebhookType::ALL.into_iter().filter(wanted);
            kinds.map(|kind| kind.name().to_owned()).collect()
        };
        let timeout = u64::try_from(subscriber.timeout.as_millis()).unwrap_or(u64::MAX);
        let definition = Definition {
            party,
            cases,
            events,
            timeout_ms: given.timeout.then_some(timeout),
            max_in_flight: given.max_in_flight.then_some(subscriber.max_in_flight),
            signing_secrets: subscriber.signing_secrets.len(),
            target,
        };
        Ok(Self {
            definition: json(&definition)?,
            secrets: seal(subscriber.id.as_str(), &secrets, keys)?,
        })
    }
}

impl Row {
    /// The subscriber; what was not given follows the settings as they are now.
    pub(super) fn read(self, keys: &Keyring, rules: &Rules) -> Result<Subscriber, StoreError> {
        let id = self.id.clone();
        self.understand(keys, rules)
            .map_err(|why| StoreError::Unreadable(format!("the subscriber \"{id}\": {why}")))
    }

    fn understand(self, keys: &Keyring, rules: &Rules) -> Result<Subscriber, String> {
        let definition: Definition =
            serde_json::from_str(&self.definition).map_err(|error| error.to_string())?;
        let mut secrets = self.open(keys).map_err(|error| error.to_string())?;
        let mut secret = |field: &str| {
            secrets
                .remove(field)
                .ok_or_else(|| format!("`{field}` is missing"))
        };
        let signing_secrets: Result<_, _> = (0..definition.signing_secrets)
            .map(|index| secret(&signing_secret(index)))
            .collect();
        let target = match definition.target {
            Place::Http { headers } => Target::Http(HttpTarget {
                url: checks::http_url(secret(URL)?.expose_secret()).map_err(|wrong| wrong.what)?,
                authorization: secret(AUTHORIZATION).ok(),
                headers: headers
                    .into_iter()
                    .map(|name| Ok((name.clone(), secret(&header(&name))?)))
                    .collect::<Result<_, String>>()?,
            }),
            Place::Queue { name, declare } => Target::Amqp(AmqpTarget {
                broker: secret(URI).ok().map(|uri| OutsideBroker { uri }),
                destination: Destination::Queue { name, declare },
            }),
            Place::Exchange { name, routing_key } => Target::Amqp(AmqpTarget {
                broker: secret(URI).ok().map(|uri| OutsideBroker { uri }),
                destination: Destination::Exchange {
                    name,
                    routing_key: RoutingKeyTemplate(routing_key),
                },
            }),
        };
        let events = if definition.events == ["*"] {
            all_events(definition.party.as_deref())
        } else {
            let known = |name: &String| WebhookType::from_name(name);
            definition.events.iter().filter_map(known).collect()
        };
        let interest = match (definition.party, definition.cases) {
            (Some(party), cases) => Interest::Party { party, cases },
            (None, Some(cases)) => Interest::Cases(cases),
            (None, None) => Interest::All,
        };
        let timeout = definition.timeout_ms.map(std::time::Duration::from_millis);
        Ok(Subscriber {
            id: SubscriberId::new(self.id),
            enabled: self.enabled,
            interest,
            events,
            signing_secrets: signing_secrets?,
            timeout: timeout.unwrap_or(rules.timeout),
            max_in_flight: definition.max_in_flight.unwrap_or(rules.max_in_flight),
            target,
            origin: Origin::Store {
                version: self.version,
            },
        })
    }

    /// Its secrets, by field.
    fn open(&self, keys: &Keyring) -> Result<BTreeMap<String, SecretString>, SealError> {
        if self.secrets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sealed: BTreeMap<String, String> =
            serde_json::from_str(&self.secrets).map_err(|_| SealError::Damaged)?;
        sealed
            .into_iter()
            .map(|(field, sealed)| {
                let secret = keys.open(&self.key_id, &self.id, &field, &sealed)?;
                Ok((field, secret))
            })
            .collect()
    }

    /// Its secrets, encrypted with the key that encrypts now; and the URL, if it has one.
    pub(super) fn encrypted_anew(
        &self,
        keys: &Keyring,
    ) -> Result<(String, Option<SecretString>), StoreError> {
        let mut secrets = self.open(keys).map_err(|error| {
            StoreError::Unreadable(format!("the subscriber \"{}\": {error}", self.id))
        })?;
        let sealed = seal(&self.id, &secrets, keys)?;
        Ok((sealed, secrets.remove(URL)))
    }
}

fn seal(
    id: &str,
    secrets: &BTreeMap<String, SecretString>,
    keys: &Keyring,
) -> Result<String, StoreError> {
    if secrets.is_empty() {
        return Ok(String::new());
    }
    let sealed: Result<BTreeMap<&str, String>, SealError> = secrets
        .iter()
        .map(|(field, secret)| Ok((field.as_str(), keys.seal(id, field, secret)?)))
        .collect();
    json(&sealed.map_err(|error| StoreError::Unreadable(error.to_string()))?)
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

/// What `*` means: a subscriber without a party gets no messages.
fn all_events(party: Option<&str>) -> WebhookTypes {
    let mut all: WebhookTypes = WebhookType::ALL.into_iter().collect();
    if party.is_none() {
        all.remove(WebhookType::NewMessage);
    }
    all
}

fn signing_secret(index: usize) -> String {
    format!("signing_secret.{index}")
}

fn header(name: &str) -> String {
    format!("http.headers.{name}")
}
