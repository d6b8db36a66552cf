//! Declares a topology on a broker, or verifies that it is there.

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{
    Argument, Arguments, Exchange, Queue, SETTLE, Topology, TopologyError,
    error::{allowed_or_nothing, down, explain},
    open, table,
};
use crate::broker::connection::{ConnectError, OPERATION_TIMEOUT, deadline};

impl Topology {
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
}

/// A channel for declarations; a refusal closes it, and the next operation opens another.
pub(super) struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
}

impl<'a> Declaring<'a> {
    pub(super) async fn open(connection: &'a Connection) -> Result<Self, ConnectError> {
        Ok(Self {
            connection,
            channel: open(connection).await?,
        })
    }

    pub(super) async fn channel(&mut self) -> Result<&Channel, ConnectError> {
        if !self.channel.status().connected() {
            self.channel = open(self.connection).await?;
        }
        Ok(&self.channel)
    }

    pub(super) async fn exchange_exists(&mut self, name: &str) -> Result<(), TopologyError> {
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

    pub(super) async fn queue_exists(&mut self, name: &str) -> Result<(), TopologyError> {
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

    pub(super) async fn exchange(&mut self, exchange: &Exchange) -> Result<(), TopologyError> {
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

    pub(super) async fn queue(&mut self, queue: &Queue) -> Result<(), TopologyError> {
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

    pub(super) async fn bind(&mut self, queue: &Queue, key: &str) -> Result<(), TopologyError> {
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
