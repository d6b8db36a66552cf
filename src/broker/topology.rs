//! **The one place that knows the exchanges and queues**: as a table, as a definitions file, and
//! declared on or verified against a broker.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    connection::{ConnectError, OPERATION_TIMEOUT, deadline},
    queues::QueueCounter,
};

pub mod passing;

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

/// What became of a wait queue that is not in use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruned {
    /// It was empty and is deleted.
    Deleted,
    /// There is none.
    Absent,
    /// It holds this many messages, and stays.
    Holds(u64),
}

/// Why the topology is not what it must be.
#[derive(Debug, Error)]
pub enum TopologyError {
    /// It exists, with another argument.
    #[error(
        "{kind} '{name}' exists with {argument} = {existing}, but hookbridge needs {wanted}: delete it \
         when it is empty, or choose another broker.prefix"
    )]
    Mismatch {
        /// `queue` or `exchange`.
        kind: &'static str,
        /// Which one.
        name: String,
        /// Which argument.
        argument: String,
        /// What it has.
        existing: String,
        /// What it must have.
        wanted: String,
    },
    /// It does not exist, and `broker.declare` is off.
    #[error(
        "{kind} '{name}' does not exist, and broker.declare is false: run `hookbridge topology --apply` \
         as a user that may configure it, or import `hookbridge topology --format definitions`"
    )]
    Missing {
        /// `queue` or `exchange`.
        kind: &'static str,
        /// Which one.
        name: String,
    },
    /// The broker cannot dead-letter without losing messages.
    #[error(
        "this RabbitMQ does not dead-letter at least once, so it may lose deliveries while they wait for \
         their retry: enable the feature flag with `rabbitmqctl enable_feature_flag stream_queue` ({0})"
    )]
    AtMostOnce(String),
    /// The broker refuses.
    #[error("cannot declare {kind} '{name}': {error}")]
    Refused {
        /// `queue` or `exchange`.
        kind: &'static str,
        /// Which one.
        name: String,
        /// The broker's words.
        error: String,
    },
    /// It is declared, and the broker does not find it: a node of the cluster is down.
    #[error("{kind} '{name}' is not there after it was declared: a node of the broker may be down")]
    Down {
        /// `queue` or `exchange`.
        kind: &'static str,
        /// Which one.
        name: String,
    },
    /// The connection, not the topology.
    #[error(transparent)]
    Connection(#[from] ConnectError),
}

impl TopologyError {
    /// Whether trying again cannot help: somebody has to change something first.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Connection(_) | Self::Down { .. })
    }
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

    /// Declares everything that is missing; fails on what exists otherwise.
    ///
    /// An exchange that somebody deleted takes messages again from the moment that it is declared,
    /// and gives them to `lost` until its queues are bound: so its bindings follow it at once. Events
    /// are let in last, and not before new queues have outlived the moment in which a killed broker
    /// would bring them back empty.
    pub async fn declare(&self, connection: &Connection) -> Result<(), TopologyError> {
        let mut channel = Declaring::open(connection).await?;
        let mut new = false;
        for queue in &self.queues {
            match channel.queue_exists(&queue.name).await {
                Err(TopologyError::Missing { .. }) => new = true,
                found => found?,
            }
            channel.queue(queue).await.map_err(down)?;
        }
        if new {
            tokio::time::sleep(SETTLE).await;
        }
        let (source, own): (Vec<_>, Vec<_>) = self.exchanges.iter().partition(|e| e.foreign);
        for exchange in own.into_iter().chain(source) {
            channel.exchange(exchange).await.map_err(down)?;
            for queue in self.queues.iter().filter(|q| q.exchange == exchange.name) {
                for key in &queue.keys {
                    channel.bind(queue, key).await.map_err(down)?;
                }
            }
        }
        Ok(())
    }

    /// Changes nothing: fails on what is missing and, where the user may configure it, on what
    /// exists with other arguments. Bindings cannot be looked up over AMQP.
    pub async fn verify(&self, connection: &Connection) -> Result<(), TopologyError> {
        let mut channel = Declaring::open(connection).await?;
        for exchange in &self.exchanges {
            channel.exchange_exists(&exchange.name).await?;
            if !exchange.foreign {
                allowed_or_nothing(channel.exchange(exchange).await)?;
            }
        }
        for queue in &self.queues {
            channel.queue_exists(&queue.name).await?;
            allowed_or_nothing(channel.queue(queue).await)?;
        }
        Ok(())
    }

    /// Deletes the wait queue of a retry delay that is not in use any more, if it is empty.
    ///
    /// It is unbound first, so that nothing new comes; a delivery that somebody still sends there is
    /// kept in `lost`. A conditional delete would close the connection, so the queue is looked at
    /// instead: twice, since what is just being dead-lettered is not counted as ready.
    pub async fn prune(
        &self,
        connection: &Connection,
        delay: Duration,
    ) -> Result<(String, Pruned), TopologyError> {
        let milliseconds = delay.as_millis();
        let queue = format!("{}.retry.{milliseconds}", self.prefix);
        let mut counter = QueueCounter::default();
        match counter.ready(connection, &queue).await? {
            None => return Ok((queue, Pruned::Absent)),
            Some(0) => {}
            Some(messages) => return Ok((queue, Pruned::Holds(messages))),
        }
        let channel = open(connection).await?;
        let unbound = channel.queue_unbind(
            queue.as_str().into(),
            format!("{}.retry", self.prefix).into(),
            format!("*.*.{milliseconds}.#").into(),
            FieldTable::default(),
        );
        deadline("unbind a queue", OPERATION_TIMEOUT, unbound).await?;
        tokio::time::sleep(SETTLE).await;
        if let Some(messages) = counter.ready(connection, &queue).await?
            && messages > 0
        {
            return Ok((queue, Pruned::Holds(messages)));
        }
        let deleted = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default());
        deadline("delete a queue", OPERATION_TIMEOUT, deleted).await?;
        Ok((queue, Pruned::Deleted))
    }

    /// Makes sure that at-least-once dead-lettering is really on. Brokers before 3.12 fall back to
    /// at-most-once, with only a line in their own log, unless the feature flag `stream_queue` is
    /// enabled; whether it is shows when a stream is declared. Needs a connection of its own, which a
    /// refusal closes.
    pub async fn require_at_least_once(
        &self,
        connection: &Connection,
    ) -> Result<(), TopologyError> {
        // One name, so that a probe which was cut off leaves nothing that the next does not remove.
        let name = format!("{}.probe", self.prefix);
        let channel = open(connection).await?;
        let arguments = table(&[("x-queue-type", Argument::Text("stream".into()))].into());
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = deadline(
            "declare a stream",
            OPERATION_TIMEOUT,
            channel.queue_declare(name.as_str().into(), options, arguments),
        )
        .await;
        match declared {
            Ok(_) => {
                let deleted =
                    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default());
                deadline("delete a stream", OPERATION_TIMEOUT, deleted).await?;
                Ok(())
            }
            Err(ConnectError::Broker(error)) => match error.kind() {
                ErrorKind::ProtocolError(amqp)
                    if amqp.get_message().as_str().contains("feature flag") =>
                {
                    Err(TopologyError::AtMostOnce(amqp.get_message().to_string()))
                }
                // No permission, a limit of the virtual host, …
                ErrorKind::ProtocolError(amqp) if matches!(amqp.kind(), AMQPErrorKind::Soft(_)) => {
                    tracing::warn!(
                        "cannot check that dead-lettering is at least once, for which the stream '{name}' \
                         would be declared for a moment: {}; make sure that the feature flag stream_queue \
                         is enabled",
                        amqp.get_message()
                    );
                    Ok(())
                }
                _ => Err(ConnectError::Broker(error).into()),
            },
            Err(error) => Err(error.into()),
        }
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

/// What a declaration cannot find is not missing, but out of reach.
fn down(error: TopologyError) -> TopologyError {
    match error {
        TopologyError::Missing { kind, name } => TopologyError::Down { kind, name },
        other => other,
    }
}

fn allowed_or_nothing(result: Result<(), TopologyError>) -> Result<(), TopologyError> {
    match result {
        Err(TopologyError::Refused { kind, name, error }) => {
            tracing::debug!("the arguments of {kind} '{name}' are not verified: {error}");
            Ok(())
        }
        other => other,
    }
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

/// A channel for declarations; a refusal closes it, and the next operation opens another.
struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
}

impl<'a> Declaring<'a> {
    async fn open(connection: &'a Connection) -> Result<Self, ConnectError> {
        Ok(Self {
            connection,
            channel: open(connection).await?,
        })
    }

    async fn channel(&mut self) -> Result<&Channel, ConnectError> {
        if !self.channel.status().connected() {
            self.channel = open(self.connection).await?;
        }
        Ok(&self.channel)
    }

    async fn exchange_exists(&mut self, name: &str) -> Result<(), TopologyError> {
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let kind = ExchangeKind::Topic;
        let declared = self.channel().await?.exchange_declare(
            name.into(),
            kind,
            options,
            FieldTable::default(),
        );
        let result = deadline("look an exchange up", OPERATION_TIMEOUT, declared).await;
        explain("exchange", name, &Arguments::new(), result)
    }

    async fn queue_exists(&mut self, name: &str) -> Result<(), TopologyError> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared =
            self.channel()
                .await?
                .queue_declare(name.into(), options, FieldTable::default());
        let result = deadline("look a queue up", OPERATION_TIMEOUT, declared).await;
        explain("queue", name, &Arguments::new(), result.map(drop))
    }

    async fn exchange(&mut self, exchange: &Exchange) -> Result<(), TopologyError> {
        if exchange.foreign {
            match self.exchange_exists(&exchange.name).await {
                Err(TopologyError::Missing { .. }) => {}
                found => return found,
            }
        }
        let kind = if exchange.kind == "fanout" {
            ExchangeKind::Fanout
        } else {
            ExchangeKind::Topic
        };
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let arguments = table(&exchange.arguments);
        let declared = self.channel().await?.exchange_declare(
            exchange.name.as_str().into(),
            kind,
            options,
            arguments,
        );
        let result = deadline("declare an exchange", OPERATION_TIMEOUT, declared).await;
        let mut wanted = exchange.arguments.clone();
        wanted.insert("type", Argument::Text(exchange.kind.to_owned()));
        explain("exchange", &exchange.name, &wanted, result)
    }

    async fn queue(&mut self, queue: &Queue) -> Result<(), TopologyError> {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let arguments = table(&queue.arguments);
        let declared =
            self.channel()
                .await?
                .queue_declare(queue.name.as_str().into(), options, arguments);
        let result = deadline("declare a queue", OPERATION_TIMEOUT, declared).await;
        explain("queue", &queue.name, &queue.arguments, result.map(drop))
    }

    async fn bind(&mut self, queue: &Queue, key: &str) -> Result<(), TopologyError> {
        let bound = self.channel().await?.queue_bind(
            queue.name.as_str().into(),
            queue.exchange.as_str().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        let result = deadline("bind a queue", OPERATION_TIMEOUT, bound).await;
        explain("queue", &queue.name, &queue.arguments, result)
    }
}

/// Turns the broker's refusal into one that names the thing, the argument and both values.
fn explain(
    kind: &'static str,
    name: &str,
    wanted: &Arguments,
    result: Result<(), ConnectError>,
) -> Result<(), TopologyError> {
    let error = match result {
        Ok(()) => return Ok(()),
        Err(ConnectError::Broker(error)) => error,
        Err(error) => return Err(error.into()),
    };
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return Err(ConnectError::Broker(error).into());
    };
    let words = amqp.get_message().to_string();
    let name = name.to_owned();
    Err(match amqp.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => TopologyError::Missing { kind, name },
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => match inequivalent(&words) {
            Some((argument, existing)) => TopologyError::Mismatch {
                kind,
                name,
                wanted: wanted
                    .get(argument.as_str())
                    .map_or_else(|| default_of(&argument).to_owned(), ToString::to_string),
                argument,
                existing,
            },
            None => TopologyError::Refused {
                kind,
                name,
                error: words,
            },
        },
        AMQPErrorKind::Soft(_) => TopologyError::Refused {
            kind,
            name,
            error: words,
        },
        AMQPErrorKind::Hard(_) => return Err(ConnectError::Broker(error).into()),
    })
}

/// What a declaration says when the argument is not among its arguments.
fn default_of(argument: &str) -> &'static str {
    match argument {
        "durable" => "true",
        "auto_delete" | "exclusive" | "internal" => "false",
        _ => "none",
    }
}

/// Reads `inequivalent arg 'NAME' for … : received … but current is …`: the argument, and what the
/// existing queue or exchange has.
fn inequivalent(words: &str) -> Option<(String, String)> {
    let (_, rest) = words.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once('\'')?;
    let existing = rest.split_once("but current is ")?.1.trim();
    let existing = existing.strip_prefix("the value ").unwrap_or(existing);
    let existing = existing.split(" of type").next().unwrap_or(existing);
    let existing = match (argument, existing.trim_matches('\'')) {
        // What a queue is that says nothing about it.
        ("x-queue-type", "none") => "classic",
        (_, existing) => existing,
    };
    Some((argument.to_owned(), existing.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_give_the_argument_and_its_value() {
        for (words, expected) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': \
                 received the value '30000' of type 'signedint' but current is the value '5000' of type 'signedint'",
                ("x-message-ttl", "5000"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received \
                 'quorum' but current is 'classic'",
                ("x-queue-type", "classic"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received \
                 the value 'quorum' of type 'longstr' but current is none",
                ("x-queue-type", "classic"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' \
                 but current is 'false'",
                ("durable", "false"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'e' in vhost '/': \
                 received the value 'x' of type 'longstr' but current is none",
                ("alternate-exchange", "none"),
            ),
        ] {
            let (argument, existing) = inequivalent(words).unwrap();
            assert_eq!((argument.as_str(), existing.as_str()), expected, "{words}");
        }
    }
}
