//! Subscribers: who they are, which webhooks they want, and where these go. Pure, but for
//! [`loading`], which reads the subscribers' files. Who gets an event is decided in [`set`].

use std::{fmt, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use secrecy::SecretString;
use url::Url;

mod cases;
pub mod form;
pub mod loading;
mod redaction;
pub mod set;
pub mod watching;

pub use cases::Cases;
pub use set::SubscriberSet;

use crate::webhook::WebhookType;

/// The subscribers as they are now: a reload replaces them all at once.
pub type LiveSubscribers = Arc<ArcSwap<SubscriberSet>>;

/// A subscriber's id: `[a-z0-9][a-z0-9._-]{0,62}`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(Arc<str>);

impl SubscriberId {
    /// Wraps an id that has been checked, or one read back from a delivery.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// Whether a subscriber may have this id. Nothing else is worth asking the store about, and some
    /// of it no database can be asked about.
    pub fn is_sound(&self) -> bool {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let first = |c: char| inner(c) && c.is_ascii_alphanumeric();
        (1..=63).contains(&self.0.len()) && self.0.starts_with(first) && self.0.chars().all(inner)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubscriberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One receiver of webhooks.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Unique among all subscribers.
    pub id: SubscriberId,
    /// Nothing new is made for a disabled subscriber.
    pub enabled: bool,
    /// Which events it may see.
    pub interest: Interest,
    /// Which webhook types it wants.
    pub events: WebhookTypes,
    /// Secrets that its webhooks are signed with, newest first; empty for unsigned webhooks.
    pub signing_secrets: Vec<SecretString>,
    /// How long one attempt may take, connect to last byte.
    pub timeout: Duration,
    /// How many attempts may run at once, in this bridge.
    pub max_in_flight: usize,
    /// Where its webhooks go.
    pub target: Target,
    /// Where it is defined.
    pub origin: Origin,
}

/// Which events a subscriber may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Events of which `party` is a party; with `cases`, only those of these cases.
    Party {
        /// Who the subscriber is.
        party: String,
        /// Only these cases, if any are given.
        cases: Option<Cases>,
    },
    /// Events of these cases.
    Cases(Cases),
    /// Every event (`scope = "all"`).
    All,
}

impl Interest {
    /// Who the subscriber is in the order hub, if it said so.
    pub fn party(&self) -> Option<&str> {
        match self {
            Self::Party { party, .. } => Some(party),
            Self::Cases(_) | Self::All => None,
        }
    }
}

/// A set of webhook types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebhookTypes(u16);

impl WebhookTypes {
    /// Adds a type.
    pub fn insert(&mut self, kind: WebhookType) {
        self.0 |= 1 << kind as u16;
    }

    /// Removes a type.
    pub fn remove(&mut self, kind: WebhookType) {
        self.0 &= !(1 << kind as u16);
    }

    /// Whether the type is in the set.
    pub fn contains(self, kind: WebhookType) -> bool {
        self.0 & (1 << kind as u16) != 0
    }
}

impl FromIterator<WebhookType> for WebhookTypes {
    fn from_iter<I: IntoIterator<Item = WebhookType>>(kinds: I) -> Self {
        let mut types = Self::default();
        kinds.into_iter().for_each(|kind| types.insert(kind));
        types
    }
}

/// Where a subscriber's webhooks go.
#[derive(Debug, Clone)]
pub enum Target {
    /// An HTTP endpoint.
    Http(HttpTarget),
    /// A queue or exchange on the home broker or on the subscriber's own.
    Amqp(AmqpTarget),
}

/// An HTTP endpoint.
#[derive(Clone)]
pub struct HttpTarget {
    /// `http://` or `https://`, without userinfo. Its query is a secret.
    pub url: Url,
    /// The `authorization` header, sent verbatim.
    pub authorization: Option<SecretString>,
    /// The subscriber's own headers: lower-case name and secret value.
    pub headers: Vec<(String, SecretString)>,
}

/// A queue or exchange.
#[derive(Clone)]
pub struct AmqpTarget {
    /// The subscriber's own broker; `None` is the home broker.
    pub broker: Option<OutsideBroker>,
    /// What is published to there.
    pub destination: Destination,
}

/// A subscriber's own broker.
#[derive(Clone)]
pub struct OutsideBroker {
    /// `amqp://` or `amqps://`, with the password.
    pub uri: SecretString,
}

/// What an AMQP target publishes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue, through the default exchange.
    Queue {
        /// The queue's name.
        name: String,
        /// Whether the bridge declares it (durable quorum).
        declare: bool,
    },
    /// An exchange of the subscriber's.
    Exchange {
        /// The exchange's name.
        name: String,
        /// The routing key, with `{type}`, `{case}`, `{subscriber}` and `{party}` still to fill in.
        routing_key: RoutingKeyTemplate,
    },
}

/// A routing key with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingKeyTemplate(pub String);

impl RoutingKeyTemplate {
    /// Fills the placeholders in, in one pass: a value that looks like a placeholder stays as it is.
    pub fn fill(&self, kind: WebhookType, case: &str, subscriber: &str, party: &str) -> String {
        let mut key = String::with_capacity(self.0.len() + case.len());
        let mut rest = self.0.as_str();
        while let Some(start) = rest.find('{') {
            key.push_str(&rest[..start]);
            rest = &rest[start..];
            let values = [
                ("{type}", kind.name()),
                ("{case}", case),
                ("{subscriber}", subscriber),
                ("{party}", party),
            ];
            if let Some((name, value)) = values.into_iter().find(|(name, _)| rest.starts_with(name))
            {
                key.push_str(value);
                rest = &rest[name.len()..];
            } else {
                key.push('{');
                rest = &rest[1..];
            }
        }
        key.push_str(rest);
        key
    }
}

/// Where a subscriber is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// The file, which many subscribers may be in.
        file: Arc<Path>,
        /// The line of its table in the file, from 1.
        line: usize,
    },
    /// In the store.
    Store {
        /// Changes with every change; none is ever used twice.
        version: i64,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Store { .. } => f.write_str("the store"),
        }
    }
}

/// Scheme, host and port: all of a URL that a log or an error may show.
pub fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url
        .port_or_known_default()
        .or(default_amqp_port(url.scheme()))
    {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

fn default_amqp_port(scheme: &str) -> Option<u16> {
    match scheme {
        "amqp" => Some(5672),
        "amqps" => Some(5671),
        _ => None,
    }
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTarget")
            .field("url", &address(&self.url))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AmqpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpTarget")
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}
