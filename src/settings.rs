//! Typed settings: what the settings file and the environment say, checked. Every key with its
//! default is in `settings/keys.rs`, `loading.rs` puts the layers together, and what each section's
//! values must be is in `sections.rs`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;

pub(crate) mod checks;
pub(crate) mod document;
mod environment;
mod files;
mod keys;
mod loading;
pub mod mistakes;
mod sections;
mod tokens;
mod values;

use mistakes::Wrong;

pub use loading::{Inspection, inspect, load};
pub use mistakes::{Mistake, Mistakes, Place};

/// Everything that the settings file and the environment say, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The home broker.
    pub broker: BrokerSettings,
    /// Where domain events come from.
    pub source: SourceSettings,
    /// How deliveries are attempted.
    pub delivery: DeliverySettings,
    /// What subscribers' targets may be.
    pub targets: TargetsSettings,
    /// Where subscribers are defined.
    pub subscribers: SubscribersSettings,
    /// The store, if there is to be one.
    pub store: Option<StoreSettings>,
    /// The admin listener.
    pub admin: AdminSettings,
    /// The log.
    pub log: LogSettings,
    /// Where traces go; nowhere by default.
    pub telemetry: TelemetrySettings,
}

/// `[broker]`: the RabbitMQ that the bridge itself runs on.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// `amqp://` or `amqps://`, with the password, as it was when the settings were read.
    pub uri: SecretString,
    /// The file that it stands in, if it is in one of its own.
    pub uri_file: Option<PathBuf>,
    /// PEM file of certificate authorities trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate chain.
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file of the client's private key.
    pub client_key_file: Option<PathBuf>,
    /// What every exchange and queue name begins with.
    pub prefix: String,
    /// Whether `run` declares the topology; otherwise it only verifies it.
    pub declare: bool,
}

impl BrokerSettings {
    /// The URI as it is now: what stands in a file is read again, since passwords change. What is
    /// wrong with it is said in words without the secret.
    pub fn current_uri(&self) -> Result<SecretString, String> {
        let Some(path) = &self.uri_file else {
            return Ok(self.uri.clone());
        };
        checks::checked_secret_in(path, |uri| checks::amqp_uri(uri).map(drop))
            .map_err(|Wrong { what, remedy }| format!("`broker.uri_file` {what}. {remedy}"))
    }
}

/// `[source]`: where domain events come from.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// The exchange that backend services publish to.
    pub exchange: String,
    /// Binding keys of the events queue.
    pub bindings: Vec<String>,
    /// What happens to an event whose type the catalogue does not have.
    pub unknown_events: UnknownEvents,
    /// The largest event taken, in bytes.
    pub max_event_bytes: usize,
    /// How many events may be unacknowledged at once.
    pub prefetch: u16,
}

/// What happens to an event whose type the catalogue does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownEvents {
    /// Acknowledged and counted.
    Ignore,
    /// Sent to the `rejected` queue.
    Reject,
}

/// `[delivery]`: how deliveries are attempted.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// The wait between the first and the second attempt.
    pub retry_delay: Duration,
    /// How long one attempt may take, unless the subscriber says otherwise.
    pub timeout: Duration,
    /// How many attempts of one subscriber may run at once, unless the subscriber says otherwise.
    pub max_in_flight_per_subscriber: usize,
    /// How long a stop may wait for what is in flight.
    pub shutdown_timeout: Duration,
}

/// `[targets]`: what subscribers' targets may be.
#[derive(Debug, Clone)]
pub struct TargetsSettings {
    /// Networks that may be called although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// PEM file of certificate authorities trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate chain that is shown to subscribers' brokers.
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file of its private key.
    pub client_key_file: Option<PathBuf>,
    /// An egress proxy for HTTP targets, with its password if it has one.
    pub proxy: Option<SecretString>,
}

/// `[subscribers]`: where subscribers are defined.
#[derive(Debug, Clone)]
pub struct SubscribersSettings {
    /// The directory of the subscribers' files.
    pub directory: PathBuf,
    /// How often it is looked whether they changed, if it is.
    pub watch: Option<Duration>,
}

/// `[store]`: what keeps dead letters, and subscribers made through the API.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Which database.
    pub place: StorePlace,
    /// The file with the keys that secrets in the store are encrypted with.
    pub secret_key_file: PathBuf,
    /// How long dead letters are kept; `None` for ever.
    pub dead_letter_retention: Option<Duration>,
}

/// Which database the store is in.
#[derive(Debug, Clone)]
pub enum StorePlace {
    /// A file, for one bridge, or several on one host.
    Sqlite(PathBuf),
    /// A `postgres://` URL with its password, for bridges on several hosts.
    Postgres(SecretString),
}

impl StorePlace {
    /// What kind of database it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }
}

/// `[admin]`: the listener for probes, metrics and the API.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// Address and port; port 0 takes a free one and logs it.
    pub listen: SocketAddr,
    /// What the listener speaks TLS with; plain HTTP without.
    pub tls: Option<AdminTls>,
    /// Who may use the API; nobody when there is none.
    pub tokens: Vec<AdminToken>,
}

impl AdminSettings {
    /// The tokens as they are now: those in files are read again. The error says, for a person, what
    /// is wrong.
    pub fn current_tokens(&self) -> Result<Vec<AdminToken>, String> {
        tokens::current(&self.tokens)
    }
}

/// The listener's certificate.
#[derive(Debug, Clone)]
pub struct AdminTls {
    /// PEM file of the certificate chain.
    pub certificate_file: PathBuf,
    /// PEM file of its private key.
    pub key_file: PathBuf,
}

/// `[[admin.token]]`: one who may use the API.
#[derive(Debug, Clone)]
pub struct AdminToken {
    /// What the log calls whoever holds it.
    pub name: String,
    /// What stands behind `Bearer`.
    pub value: SecretString,
    /// The file that it was read from, if any: [`AdminSettings::current_tokens`] reads it again.
    pub value_file: Option<PathBuf>,
    /// What it allows.
    pub role: Role,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To read and to change.
    Operator,
    /// To read.
    Viewer,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// The least severe level that is logged, or a `tracing` filter.
    pub level: String,
}

/// `[telemetry]`
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// The collector that traces are sent to, over OTLP as protobuf in HTTP.
    pub otlp_endpoint: Option<Url>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests;
