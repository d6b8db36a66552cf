//! What can go wrong with a private node, and what to do about it.

use std::io;

/// Why a private node cannot be started or used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A program is missing.
    #[error("{0} not found: install RabbitMQ, for example with `apt-get install rabbitmq-server`")]
    NotInstalled(&'static str),
    /// Something that the system was asked for failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The node did not come up.
    #[error("the private RabbitMQ {what}; its log says:\n{log}")]
    NotReady {
        /// What happened instead.
        what: String,
        /// What of its log tells why.
        log: String,
    },
    /// `rabbitmqctl` failed.
    #[error("`rabbitmqctl {arguments}` failed: {output}")]
    Ctl {
        /// What it was called with.
        arguments: String,
        /// What it said.
        output: String,
    },
}

impl NodeError {
    pub(super) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }
}
