//! What can be wrong with a topology, in words that name the thing, the argument and both values.

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPSoftError},
};
use thiserror::Error;

use super::{Arguments, ConnectError};

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

    /// The same, but for what may be put right while a bridge waits for it: a password.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Connection(error) => error.is_refusal(),
            other => other.is_final(),
        }
    }
}

/// What a declaration cannot find is not missing, but out of reach.
pub(super) fn down(error: TopologyError) -> TopologyError {
    match error {
        TopologyError::Missing { kind, name } => TopologyError::Down { kind, name },
        other => other,
    }
}

pub(super) fn allowed_or_nothing(result: Result<(), TopologyError>) -> Result<(), TopologyError> {
    match result {
        Err(TopologyError::Refused { kind, name, error }) => {
            tracing::debug!("the arguments of {kind} '{name}' are not verified: {error}");
            Ok(())
        }
        other => other,
    }
}

/// Turns the broker's refusal into one that names the thing, the argument and both values.
pub(super) fn explain(
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
