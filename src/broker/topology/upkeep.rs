//! What else a broker is asked about its topology: whether it dead-letters safely, and whether an old
//! wait queue can go.

use std::time::Duration;

use lapin::{
    Connection, ErrorKind,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    protocol::AMQPErrorKind,
    types::FieldTable,
};

use super::{Argument, SETTLE, Topology, TopologyError, open, table};
use crate::broker::{
    connection::{ConnectError, OPERATION_TIMEOUT, deadline},
    queues::QueueCounter,
};

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

impl Topology {
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
