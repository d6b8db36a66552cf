//! Looking through a queue: one message after the other, each of them settled or left there.

use lapin::{
    Channel, Connection,
    options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{
    connection::{ConnectError, OPERATION_TIMEOUT, deadline},
    message::Received,
};

/// A look through the messages that are in a queue when it begins. What is not acknowledged is in the
/// queue again, in its order, once this is over.
pub struct Browsing {
    channel: Channel,
    queue: String,
    left: u32,
}

impl Browsing {
    /// Begins, on a channel of its own.
    pub async fn start(connection: &Connection, queue: &str) -> Result<Self, ConnectError> {
        let opening = connection.create_channel();
        let channel = deadline("open a channel", OPERATION_TIMEOUT, opening).await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
        let declared = deadline("look a queue up", OPERATION_TIMEOUT, declared).await?;
        Ok(Self {
            channel,
            queue: queue.to_owned(),
            left: declared.message_count(),
        })
    }

    /// The next message; nothing if no more are there.
    pub async fn next(&mut self) -> Result<Option<Received>, ConnectError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let got = self
            .channel
            .basic_get(self.queue.as_str().into(), BasicGetOptions::default());
        let got = deadline("take a message", OPERATION_TIMEOUT, got).await?;
        Ok(got.map(|message| Received::new(message.delivery)))
    }

    /// How many were there and have not been seen.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Acknowledges a message.
    pub async fn ack(&self, tag: u64) -> Result<(), ConnectError> {
        let acked = self.channel.basic_ack(tag, BasicAckOptions::default());
        deadline("acknowledge", OPERATION_TIMEOUT, acked).await
    }

    /// Ends, and waits until the broker has put the rest back.
    pub async fn end(self) -> Result<(), ConnectError> {
        let closed = self.channel.close(200, "done".into());
        deadline("close a channel", OPERATION_TIMEOUT, closed).await
    }
}
