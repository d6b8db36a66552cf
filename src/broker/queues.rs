//! Counts the messages in the bridge's queues.

use lapin::{Channel, Connection, options::QueueDeclareOptions, types::FieldTable};

use super::{
    connection::{OPERATION_TIMEOUT, deadline},
    topology::Topology,
};

/// Counts on a channel of its own, which it keeps from one count to the next.
#[derive(Debug, Default)]
pub struct QueueCounter(Option<Channel>);

impl QueueCounter {
    /// Messages ready in each group of queues, in the order of the line, and the queues that are
    /// missing.
    pub async fn count<'a>(
        &mut self,
        connection: &Connection,
        topology: &'a Topology,
    ) -> (Vec<(&'static str, u64)>, Vec<&'a str>) {
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        let mut missing = Vec::new();
        for (group, queue) in topology.groups() {
            let ready = self.ready(connection, queue).await;
            if ready.is_none() {
                missing.push(queue);
            }
            let ready = ready.unwrap_or_default();
            match counts.iter_mut().find(|(name, _)| *name == group) {
                Some((_, count)) => *count += ready,
                None => counts.push((group, ready)),
            }
        }
        (counts, missing)
    }

    /// Messages ready in a queue, if it can be looked up.
    pub async fn ready(&mut self, connection: &Connection, queue: &str) -> Option<u64> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel(connection).await?;
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        let declared = deadline("look a queue up", OPERATION_TIMEOUT, declared)
            .await
            .ok()?;
        Some(declared.message_count().into())
    }

    async fn channel(&mut self, connection: &Connection) -> Option<&Channel> {
        if !self
            .0
            .as_ref()
            .is_some_and(|channel| channel.status().connected())
        {
            let opened = deadline(
                "open a channel",
                OPERATION_TIMEOUT,
                connection.create_channel(),
            )
            .await;
            self.0 = Some(opened.ok()?);
        }
        self.0.as_ref()
    }
}
