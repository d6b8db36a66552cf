//! **The one place that knows the exchanges and queues**, as a table and as a definitions file.
//! `declaring` brings them about on a broker.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    Channel, Connection,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use super::connection::{ConnectError, OPERATION_TIMEOUT, deadline};

mod declaring;
mod error;
pub mod passing;
mod upkeep;

pub use error::TopologyError;
pub use upkeep::Pruned;

/// No message may leave a queue by being redelivered: see the reasons in ARCHITECTURE.md.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

/// How long the broker is given to write the names of new queues to its disk, or to finish what a
/// queue that looks empty is dead-lettering. The first takes up to a second (measured on 3.10.8).
const SETTLE: Duration = Duration::from_secs(2);

/// How many lanes of each kind a set has.
pub const LANES: [(&str, u32); 2] = [("fast", 8), ("slow", 16)];

/// The value of an argument of an exchange or a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(String),
    /// An integer.
    Number(i64),
}

impl Argument {
    fn amqp(&self) -> AMQPValue {
        match self {
            Self::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Self::Number(number) => AMQPValue::LongLongInt(*number),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
        }
    }
}

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Arguments by name.
pub type Arguments = BTreeMap<&'static str, Argument>;

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// `topic` or `fanout`.
    pub kind: &'static str,
    /// Its arguments.
    pub arguments: Arguments,
    /// Whether an existing one is taken as it is, whatever its type: the source exchange belongs
    /// to the services that publish to it.
    pub foreign: bool,
}

/// A durable quorum queue and what brings messages to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
    /// The exchange that it is bound to.
    pub exchange: String,
    /// The keys that it is bound with.
    pub keys: Vec<String>,
}

/// Every exchange, queue and binding of a bridge.
#[derive(Debug, Clone)]
pub struct Topology {
    prefix: String,
    /// What is declared, in this order.
    pub exchanges: Vec<Exchange>,
    /// What is declared after the exchanges.
    pub queues: Vec<Queue>,
}

impl Topology {
    /// The topology of a bridge with this prefix, source and retry delay.
    pub fn new(prefix: &str, source: &str, bindings: &[String], retry_delay: Duration) -> Self {
        let named = |suffix: &str| format!("{prefix}.{suffix}");
        let lost = named("lost");
        let mut exchanges = vec![
            Exchange {
                name: lost.clone(),
                kind: "fanout",
                arguments: Arguments::new(),
                foreign: false,
            },
            Exchange {
                name: source.to_owned(),
                kind: "topic",
                arguments: Arguments::new(),
                foreign: true,
            },
        ];
        for suffix in ["first", "retry", "second", "dead", "rejected"] {
            exchanges.push(Exchange {
                name: named(suffix),
                kind: "topic",
                arguments: [("alternate-exchange", Argument::Text(lost.clone()))].into(),
                foreign: false,
            });
        }
        // What bridges tell each other about subscribers. Each makes a queue of its own on it.
        exchanges.push(Exchange {
            name: named("registry"),
            kind: "fanout",
            arguments: Arguments::new(),
            foreign: false,
        });
        let queue = |name: String,
                     dead_letters_to: Option<String>,
                     exchange: String,
                     keys: Vec<String>| Queue {
            name,
            arguments: queue_arguments(dead_letters_to),
            exchange,
            keys,
        };
        let mut queues = vec![queue(
            named("events"),
            Some(named("rejected")),
            source.to_owned(),
            bindings.to_vec(),
        )];
        for (set, dead_letters_to) in [("first", "retry"), ("second", "dead")] {
            for (pace, lanes) in LANES {
                for lane in 0..lanes {
                    queues.push(queue(
                        format!("{prefix}.{set}.{pace}.{lane:02}"),
                        Some(named(dead_letters_to)),
                        named(set),
                        vec![format!("{pace}.{lane:02}.#")],
                    ));
                }
            }
        }
        let milliseconds = retry_delay.as_millis();
        let mut wait = queue(
            format!("{prefix}.retry.{milliseconds}"),
            Some(named("second")),
            named("retry"),
            vec![format!("*.*.{milliseconds}.#")],
        );
        let ttl = i64::try_from(milliseconds).unwrap_or(i64::MAX);
        wait.arguments
            .insert("x-message-ttl", Argument::Number(ttl));
        queues.push(wait);
        queues.push(queue(
            named("dead"),
            Some(lost.clone()),
            named("dead"),
            vec!["#".into()],
        ));
        queues.push(queue(
            named("rejected"),
            Some(lost.clone()),
            named("rejected"),
            vec!["#".into()],
        ));
        queues.push(queue(lost.clone(), None, lost, vec![String::new()]));
        Self {
            prefix: prefix.to_owned(),
            exchanges,
            queues,
        }
    }

    /// The name of the queue that domain events wait in.
    pub fn events_queue(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The name of the queue of what no other queue took.
    pub fn lost_queue(&self) -> String {
        format!("{}.lost", self.prefix)
    }

    /// The name of the exchange over which bridges tell each other about subscribers.
    pub fn registry_exchange(&self) -> String {
        format!("{}.registry", self.prefix)
    }

    /// The queues of a set, `first` or `second`.
    pub fn lanes(&self, set: &str) -> impl Iterator<Item = &str> {
        let begins = format!("{}.{set}.", self.prefix);
        self.queues
            .iter()
            .map(|q| q.name.as_str())
            .filter(move |name| name.starts_with(&begins))
    }

    /// Queues by the group that `hookbridge_queue_messages` reports them under.
    pub fn groups(&self) -> impl Iterator<Item = (&'static str, &str)> {
        const GROUPS: [&str; 7] = [
            "events", "first", "retry", "second", "dead", "rejected", "lost",
        ];
        let skip = self.prefix.len() + 1;
        self.queues.iter().filter_map(move |queue| {
            let word = queue.name.get(skip..)?.split('.').next()?;
            GROUPS
                .into_iter()
                .find(|group| *group == word)
                .map(|group| (group, queue.name.as_str()))
        })
    }

    /// A definitions file that RabbitMQ imports, for this virtual host.
    pub fn definitions(&self, vhost: &str) -> Value {
        let json = |arguments: &Arguments| -> Value {
            arguments
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.json()))
                .collect()
        };
        let exchanges: Vec<Value> = self
            .exchanges
            .iter()
            .filter(|exchange| !exchange.name.starts_with("amq."))
            .map(|exchange| {
                json!({
                    "name": exchange.name, "vhost": vhost, "type": exchange.kind, "durable": true,
                    "auto_delete": false, "internal": false, "arguments": json(&exchange.arguments),
                })
            })
            .collect();
        let queues: Vec<Value> = self
            .queues
            .iter()
            .map(|queue| {
                json!({
                    "name": queue.name, "vhost": vhost, "durable": true, "auto_delete": false,
                    "arguments": json(&queue.arguments),
                })
            })
            .collect();
        let bindings: Vec<Value> = self
            .queues
            .iter()
            .flat_map(|queue| queue.keys.iter().map(move |key| (queue, key)))
            .map(|(queue, key)| {
                json!({
                    "source": queue.exchange, "vhost": vhost, "destination": queue.name,
                    "destination_type": "queue", "routing_key": key, "arguments": {},
                })
            })
            .collect();
        json!({ "exchanges": exchanges, "queues": queues, "bindings": bindings })
    }
}

fn queue_arguments(dead_letters_to: Option<String>) -> Arguments {
    let text = |text: &str| Argument::Text(text.to_owned());
    let mut arguments = Arguments::from([
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-delivery-limit", Argument::Number(DELIVERY_LIMIT)),
    ]);
    if let Some(exchange) = dead_letters_to {
        arguments.insert("x-dead-letter-exchange", Argument::Text(exchange));
    }
    arguments
}

fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.amqp());
    }
    table
}

async fn open(connection: &Connection) -> Result<Channel, ConnectError> {
    deadline(
        "open a channel",
        OPERATION_TIMEOUT,
        connection.create_channel(),
    )
    .await
}
