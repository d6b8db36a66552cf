//! The broker that everything runs on, and a virtual host of it for each part.

use std::sync::atomic::{AtomicU32, Ordering};

use hookbridge::cli::demo::node::{NodeOptions, Plugin, PrivateNode};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::json;

static QUEUES: AtomicU32 = AtomicU32::new(0);

/// Starts the broker with these virtual hosts and plugins.
pub(crate) fn start_node(vhosts: &[&str], plugins: Vec<Plugin>) -> PrivateNode {
    let hosts: Vec<_> = vhosts.iter().map(|name| json!({ "name": name })).collect();
    let options = NodeOptions {
        plugins,
        definitions: Some(json!({ "vhosts": hosts }).to_string()),
        ..NodeOptions::default()
    };
    PrivateNode::start(&options).expect("a private RabbitMQ")
}

/// Connects as any client does.
pub(crate) async fn connect(uri: &str) -> Connection {
    Connection::connect(uri, ConnectionProperties::default())
        .await
        .expect("a connection to the broker")
}

/// A virtual host, and a client of it.
pub(crate) struct Ground {
    /// Its name.
    pub(crate) vhost: String,
    /// Its address.
    pub(crate) uri: String,
    /// For what the benchmark itself publishes and consumes.
    pub(crate) connection: Connection,
    channel: Channel,
}

impl Ground {
    /// Connects to a virtual host of the node.
    pub(crate) async fn new(node: &PrivateNode, vhost: &str) -> Self {
        let uri = node.amqp_uri(vhost);
        let connection = connect(&uri).await;
        Self {
            vhost: vhost.to_owned(),
            channel: connection.create_channel().await.expect("a channel"),
            connection,
            uri,
        }
    }

    /// A new durable quorum queue.
    pub(crate) async fn queue(&self) -> String {
        self.queue_with(&[]).await
    }

    /// Several of them.
    pub(crate) async fn queues(&self, count: usize) -> Vec<String> {
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            names.push(self.queue().await);
        }
        names
    }

    /// A new durable quorum queue with these arguments besides.
    pub(crate) async fn queue_with(&self, arguments: &[(&str, AMQPValue)]) -> String {
        let name = format!("bench.{}", QUEUES.fetch_add(1, Ordering::Relaxed));
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), text("quorum"));
        for (key, value) in arguments {
            table.insert(ShortString::from(*key), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = self
            .channel
            .queue_declare(name.as_str().into(), options, table);
        declared.await.expect("a queue");
        name
    }

    /// Empties a queue. It is deleted with the virtual host: where one is that has just been used,
    /// RabbitMQ 3.10.8 may find its files gone, and restarts all quorum queues.
    pub(crate) async fn purge(&self, queue: &str) {
        let purged = self
            .channel
            .queue_purge(queue.into(), QueuePurgeOptions::default());
        purged.await.expect("a queue emptied");
    }

    /// Messages ready in these queues together.
    pub(crate) async fn ready(&self, queues: &[String]) -> u64 {
        let mut ready = 0;
        for queue in queues {
            ready += u64::from(self.look_up(queue).await.message_count());
        }
        ready
    }

    /// How many consumers a queue has.
    pub(crate) async fn consumers(&self, queue: &str) -> u32 {
        self.look_up(queue).await.consumer_count()
    }

    async fn look_up(&self, queue: &str) -> lapin::Queue {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let looked_up = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        looked_up.await.expect("a queue")
    }

    /// A channel that confirms.
    pub(crate) async fn confirming(&self) -> Channel {
        confirming(&self.connection).await
    }

    /// What arrives in a queue, acknowledged by being sent.
    pub(crate) async fn drain(&self, queue: &str) -> lapin::Consumer {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await
            .expect("a consumer")
    }
}

/// A channel of this connection that confirms.
pub(crate) async fn confirming(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    channel
}

/// An argument that is text.
pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
