//! Messages as the rest of the product sees them: without the client library's types.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::publisher::PublishError;

/// A message to publish: mandatory, persistent, confirmed, always.
#[derive(Debug, Clone)]
pub struct Message {
    /// The exchange; empty for the default exchange.
    pub exchange: String,
    /// At most 255 bytes.
    pub routing_key: String,
    /// Tells a returned message from the others in flight on its channel: give each its own.
    pub message_id: String,
    /// The AMQP `content_type`.
    pub content_type: Option<&'static str>,
    /// The AMQP `type`.
    pub kind: Option<&'static str>,
    /// The AMQP `app_id`.
    pub app_id: Option<&'static str>,
    /// The AMQP `timestamp`, seconds since 1970.
    pub timestamp: Option<u64>,
    /// Headers, in order.
    pub headers: Vec<(&'static str, HeaderValue)>,
    /// The payload.
    pub body: Bytes,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// A string.
    Text(String),
    /// A 64-bit integer.
    Number(i64),
}

impl Message {
    /// A message without further properties.
    pub fn plain(
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
        message_id: impl Into<String>,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            message_id: message_id.into(),
            content_type: None,
            kind: None,
            app_id: None,
            timestamp: None,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// A header that is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(known, value)| match value {
            HeaderValue::Text(text) if *known == name => Some(text.as_str()),
            _ => None,
        })
    }
}

/// A message taken from a queue. Nothing of it is copied into an outgoing message but what is read
/// by name here.
#[derive(Debug)]
pub struct Received {
    /// Settles it on the channel that it came over.
    pub tag: u64,
    /// The key that it was published with, and keeps when dead-lettered.
    pub routing_key: String,
    /// Whether the broker has delivered it before.
    pub redelivered: bool,
    /// The payload.
    pub body: Bytes,
    properties: BasicProperties,
}

impl Received {
    pub(super) fn new(delivery: lapin::message::Delivery) -> Self {
        Self {
            tag: delivery.delivery_tag,
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            body: delivery.data.into(),
            properties: delivery.properties,
        }
    }

    /// The AMQP `message_id`.
    pub fn message_id(&self) -> Option<&str> {
        self.properties
            .message_id()
            .as_ref()
            .map(ShortString::as_str)
    }

    /// The AMQP `timestamp`, seconds since 1970.
    pub fn timestamp(&self) -> Option<u64> {
        *self.properties.timestamp()
    }

    /// A header that is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.header(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            AMQPValue::ShortString(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// A header that is an integer of any width.
    pub fn number(&self, name: &str) -> Option<i64> {
        match *self.header(name)? {
            AMQPValue::ShortShortInt(n) => Some(n.into()),
            AMQPValue::ShortShortUInt(n) => Some(n.into()),
            AMQPValue::ShortInt(n) => Some(n.into()),
            AMQPValue::ShortUInt(n) => Some(n.into()),
            AMQPValue::LongInt(n) => Some(n.into()),
            AMQPValue::LongUInt(n) => Some(n.into()),
            AMQPValue::LongLongInt(n) => Some(n),
            _ => None,
        }
    }

    /// The queue that the broker last dead-lettered it from, if it did.
    pub fn dead_lettered_from(&self) -> Option<&str> {
        let AMQPValue::FieldArray(deaths) = self.header("x-death")? else {
            return None;
        };
        // The latest is the first.
        let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else {
            return None;
        };
        match latest.inner().get("queue")? {
            AMQPValue::LongString(queue) => std::str::from_utf8(queue.as_bytes()).ok(),
            _ => None,
        }
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }
}

/// The message as the client library takes it: exchange, routing key, properties, body.
pub(super) struct Wire {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Wire {
    /// Fails with `Invalid` when a name does not fit into AMQP's 255 bytes.
    pub(super) fn new(message: Message) -> Result<Self, PublishError> {
        let short = |what: &str, text: String| {
            let length = text.len();
            ShortString::try_new(text).map_err(|_| {
                PublishError::Invalid(format!("the {what} has {length} bytes; AMQP allows 255"))
            })
        };
        let mut headers = FieldTable::default();
        for (name, value) in message.headers {
            let value = match value {
                HeaderValue::Text(text) => AMQPValue::LongString(text.into()),
                HeaderValue::Number(number) => AMQPValue::LongLongInt(number),
            };
            headers.insert(name.into(), value);
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(short("message id", message.message_id)?)
            .with_headers(headers);
        if let Some(content_type) = message.content_type {
            properties = properties.with_content_type(content_type.into());
        }
        if let Some(kind) = message.kind {
            properties = properties.with_type(kind.into());
        }
        if let Some(app_id) = message.app_id {
            properties = properties.with_app_id(app_id.into());
        }
        if let Some(timestamp) = message.timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        Ok(Self {
            exchange: short("exchange", message.exchange)?,
            routing_key: short("routing key", message.routing_key)?,
            properties,
            body: message.body,
        })
    }

    /// The same message as a consumer would get it. For tests of what is written and read back.
    #[cfg(test)]
    pub(super) fn received(self) -> Received {
        Received {
            tag: 1,
            routing_key: self.routing_key.to_string(),
            redelivered: false,
            body: self.body,
            properties: self.properties,
        }
    }
}

#[cfg(test)]
impl Received {
    /// The same, as the broker dead-letters it from this queue.
    pub(crate) fn dead_letter_of(mut self, queue: &str) -> Self {
        let mut death = FieldTable::default();
        death.insert("queue".into(), AMQPValue::LongString(queue.into()));
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        let deaths = vec![AMQPValue::FieldTable(death)];
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
        self.properties = self.properties.with_headers(headers);
        self
    }
}

#[cfg(test)]
impl From<Message> for Received {
    fn from(message: Message) -> Self {
        Wire::new(message)
            .expect("a message with short names")
            .received()
    }
}
