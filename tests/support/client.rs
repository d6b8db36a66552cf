//! An AMQP client that speaks in whole sentences, for what a test does itself.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions,
        BasicPublishOptions, BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::{sync::Mutex, time::timeout};

use super::{
    eventually::{SOON, eventually},
    planted,
};

/// An AMQP connection for what a test does itself. It belongs to the runtime that it was opened
/// on.
pub struct Client {
    pub connection: Connection,
    channel: Channel,
    // One publish at a time: the returns and confirms of concurrent ones get mixed up.
    publisher: Mutex<Channel>,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Routed,
    Returned,
    Nacked,
}

/// A message taken from a queue.
#[derive(Debug, Clone)]
pub struct Message {
    pub exchange: String,
    pub routing_key: String,
    pub redelivered: bool,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        let message = Self {
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            properties: delivery.properties,
            body: delivery.data,
        };
        planted::shows_nothing("a message", &message.said());
        planted::shows_nothing("a message", &String::from_utf8_lossy(&message.body));
        message
    }
}

impl Message {
    /// The body as text.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a text body")
    }

    /// Everything that its headers and properties say.
    pub fn said(&self) -> String {
        let headers = self.properties.headers().as_ref();
        let headers = headers.map(texts_of).unwrap_or_default();
        format!("{headers}{:?}", self.properties)
    }

    /// A header as text, whichever of AMQP's strings or integers it is.
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.properties.headers().as_ref()?;
        match headers.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            AMQPValue::LongLongInt(number) => Some(number.to_string()),
            AMQPValue::LongInt(number) => Some(number.to_string()),
            other => panic!("header {name} is {other:?}"),
        }
    }
}

/// Every text in a header's value, however deep.
fn texts(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => format!("{text} "),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(texts).collect(),
        AMQPValue::FieldTable(table) => texts_of(table),
        other => format!("{other:?} "),
    }
}

fn texts_of(table: &FieldTable) -> String {
    let mut all = String::new();
    for (name, value) in table.inner() {
        all += name.as_str();
        all += " ";
        all += &texts(value);
    }
    all
}

impl Client {
    pub async fn connect(uri: &str) -> Self {
        let connect = Connection::connect(uri, ConnectionProperties::default());
        let connection = timeout(SOON, connect).await.expect("in time").expect(uri);
        let publisher = connection.create_channel().await.unwrap();
        publisher
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        Self {
            channel: connection.create_channel().await.unwrap(),
            connection,
            publisher: Mutex::new(publisher),
        }
    }

    /// Declares a durable quorum queue.
    pub async fn declare_quorum(&self, queue: &str) {
        let arguments = [("x-queue-type", AMQPValue::LongString("quorum".into()))];
        self.declare(queue, arguments).await;
    }

    /// Declares a durable queue with these arguments.
    pub async fn declare<const N: usize>(&self, queue: &str, arguments: [(&str, AMQPValue); N]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert(name.into(), value);
        }
        self.channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), table)
            .await
            .unwrap();
    }

    /// Declares a durable exchange.
    pub async fn declare_exchange(&self, exchange: &str, kind: ExchangeKind) {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        self.channel
            .exchange_declare(exchange.into(), kind, options, FieldTable::default())
            .await
            .unwrap();
    }

    /// Deletes an exchange.
    pub async fn delete_exchange(&self, exchange: &str) {
        let options = ExchangeDeleteOptions::default();
        let deleted = self.channel.exchange_delete(exchange.into(), options);
        deleted.await.unwrap();
    }

    /// Deletes a queue, whatever is in it.
    pub async fn delete_queue(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        let deleted = self.channel.queue_delete(queue.into(), options);
        deleted.await.unwrap();
    }

    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let options = QueueBindOptions::default();
        self.channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                key.into(),
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    pub async fn unbind(&self, queue: &str, exchange: &str, key: &str) {
        let arguments = FieldTable::default();
        let unbound =
            self.channel
                .queue_unbind(queue.into(), exchange.into(), key.into(), arguments);
        unbound.await.unwrap();
    }

    /// Publishes a persistent message, mandatory, and waits for its confirm.
    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> Published {
        self.publish_with(exchange, key, body, BasicProperties::default())
            .await
    }

    /// Publishes with properties of the test's own; the message is made persistent.
    pub async fn publish_with(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Published {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = properties.with_delivery_mode(2);
        let channel = self.publisher.lock().await;
        let sent = channel
            .basic_publish(exchange.into(), key.into(), options, body, properties)
            .await
            .unwrap();
        match timeout(SOON, sent)
            .await
            .expect("a confirm in time")
            .unwrap()
        {
            Confirmation::Ack(None) => Published::Routed,
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Published::Returned,
            Confirmation::Nack(None) => Published::Nacked,
            Confirmation::NotRequested => panic!("the channel confirms"),
        }
    }

    /// Takes and acknowledges the next message, if there is one now.
    pub async fn get(&self, queue: &str) -> Option<Message> {
        let options = BasicGetOptions::default();
        let got = self
            .channel
            .basic_get(queue.into(), options)
            .await
            .unwrap()?;
        got.delivery.ack(BasicAckOptions::default()).await.unwrap();
        Some(Message::from(got.delivery))
    }

    /// Takes the next message, which must be there, and has the broker dead-letter it.
    pub async fn reject(&self, queue: &str) {
        let got = self
            .channel
            .basic_get(queue.into(), BasicGetOptions::default());
        let got = got.await.unwrap().expect("a message");
        let options = BasicRejectOptions { requeue: false };
        got.delivery.reject(options).await.unwrap();
    }

    /// Takes `count` messages as a consumer and gives them back, so that they are delivered again.
    pub async fn give_back(&self, queue: &str, count: usize) {
        let channel = self.connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions::default();
        let consuming =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let mut consumer = consuming.await.unwrap();
        for taken in 0..count {
            let next = timeout(SOON, consumer.next()).await;
            next.unwrap_or_else(|_| panic!("{taken} of {count} messages came from {queue}"))
                .expect("the consumer goes on")
                .unwrap();
        }
        channel.close(200, "OK".into()).await.unwrap();
    }

    /// Takes and acknowledges `count` messages, or panics after `deadline`.
    pub async fn receive(&self, queue: &str, count: usize, deadline: Duration) -> Vec<Message> {
        let started = Instant::now();
        let mut messages = Vec::new();
        while messages.len() < count {
            let have = messages.len();
            let what = format!("{count} messages in {queue}, of which {have} came");
            let left = deadline.saturating_sub(started.elapsed());
            messages.push(eventually(&what, left, async || self.get(queue).await).await);
        }
        messages
    }

    /// Takes and acknowledges everything that is in the queue now.
    pub async fn drain(&self, queue: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.get(queue).await {
            messages.push(message);
        }
        messages
    }

    /// Takes as many messages as are in the queue now, many at a time: for long queues, where getting
    /// one after the other can be slower than what comes in. Ends early if the queue gives none for
    /// `patience`.
    pub async fn take(&self, queue: &str, patience: Duration, mut note: impl FnMut(&Message)) {
        let count = self.depth(queue).await.unwrap_or_default();
        let Ok(prefetch @ 1..) = u16::try_from(count.min(10_000)) else {
            return;
        };
        let channel = self.connection.create_channel().await.unwrap();
        let qos = BasicQosOptions::default();
        channel.basic_qos(prefetch, qos).await.unwrap();
        let (tag, options) = ("taking".into(), BasicConsumeOptions::default());
        let mut consumer = channel
            .basic_consume(queue.into(), tag, options, FieldTable::default())
            .await
            .unwrap();
        let mut last = None;
        for _ in 0..prefetch {
            let Ok(Some(delivery)) = timeout(patience, consumer.next()).await else {
                break;
            };
            let delivery = delivery.unwrap();
            last = Some(delivery.delivery_tag);
            note(&Message::from(delivery));
        }
        let cancel = BasicCancelOptions::default();
        channel.basic_cancel("taking".into(), cancel).await.unwrap();
        if let Some(last) = last {
            let all = BasicAckOptions { multiple: true };
            channel.basic_ack(last, all).await.unwrap();
        }
        // Its answer comes after the acknowledgement.
        self.depth(queue).await;
        channel.close(200, "OK".into()).await.unwrap();
    }

    /// How many messages are ready in the queue, exactly and now; `None` if there is no such
    /// queue. What a consumer holds unacknowledged is not counted.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        // A channel of its own, since a missing queue closes it.
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        let depth = declared.ok()?.message_count();
        channel.close(200, "OK".into()).await.unwrap();
        Some(depth)
    }

    /// Waits until the queue holds exactly `count` ready messages.
    pub async fn wait_for_depth(&self, queue: &str, count: u32, deadline: Duration) {
        let what = format!("{count} messages ready in {queue}");
        let reached = async || (self.depth(queue).await == Some(count)).then_some(());
        eventually(&what, deadline, reached).await;
    }
}
