//! Counts the messages in the bridge's queues.

use lapin::{
    Channel, Connection, ErrorKind,
    options::QueueDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};

use super::{
    connection::{ConnectError, OPERATION_TIMEOUT, deadline},
    topology::Topology,
};

/// Counts on a channel of its own, which it keeps from one count to the next.
#[derive(Debug, Default)]
pub struct QueueCounter(Option<Channel>);

impl QueueCounter {
    /// Messages ready in each group of queues, in the order of the line, and the queues that are
    /// missing. A group of which a queue could not be looked up is left out: no count is better than
    /// a wrong one.
    pub async fn count<'a>(
        &mut self,
        connection: &Connection,
        topology: &'a Topology,
    ) -> (Vec<(&'static str, u64)>, Vec<&'a str>) {
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        let mut missing = Vec::new();
        let mut unknown = Vec::new();
        for (group, queue) in topology.groups() {
            let ready = match self.ready(connection, queue).await {
                Ok(Some(ready)) => ready,
                Ok(None) => {
                    missing.push(queue);
                    0
                }
                Err(error) => {
                    tracing::debug!(queue, "cannot be looked up: {error}");
                    unknown.push(group);
                    0
                }
            };
            match counts.iter_mut().find(|(name, _)| *name == group) {
                Some((_, count)) => *count += ready,
                None => counts.push((group, ready)),
            }
        }
        counts.retain(|(group, _)| !unknown.contains(group));
        (counts, missing)
    }

    /// Messages ready in a queue; nothing if there is no such queue.
    pub async fn ready(
        &mut self,
        connection: &Connection,
        queue: &str,
    ) -> Result<Option<u64>, ConnectError> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel(connection).await?;
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        match deadline("look a queue up", OPERATION_TIMEOUT, declared).await {
            Ok(declared) => Ok(Some(declared.message_count().into())),
            Err(ConnectError::Broker(error)) if not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn channel(&mut self, connection: &Connection) -> Result<&Channel, ConnectError> {
        let channel = match self.0.take() {
            Some(channel) if channel.status().connected() => channel,
            _ => {
                deadline(
                    "open a channel",
                    OPERATION_TIMEOUT,
                    connection.create_channel(),
                )
                .await?
            }
        };
        Ok(self.0.insert(channel))
    }
}

fn not_found(error: &lapin::Error) -> bool {
    let kind = match error.kind() {
        ErrorKind::ProtocolError(amqp) => amqp.kind(),
        _ => return false,
    };
    *kind == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)
}
