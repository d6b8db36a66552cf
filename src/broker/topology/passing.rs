//! Exchanges and queues that stand for a while only and are then taken away again: the demo's.

use lapin::{
    Connection,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

use super::{
    super::connection::{ConnectError, OPERATION_TIMEOUT, deadline},
    Exchange, Queue, TopologyError,
    declaring::Declaring,
    open,
};

/// Declares what is missing of these; fails on what exists otherwise.
pub async fn declare(
    connection: &Connection,
    exchanges: &[Exchange],
    queues: &[Queue],
) -> Result<(), TopologyError> {
    let mut channel = Declaring::open(connection).await?;
    for exchange in exchanges {
        channel.exchange(exchange).await?;
    }
    for queue in queues {
        channel.queue(queue).await?;
        for key in &queue.keys {
            channel.bind(queue, key).await?;
        }
    }
    Ok(())
}

/// Deletes these with all that is in them; what is not there is no failure.
pub async fn delete(
    connection: &Connection,
    exchanges: &[Exchange],
    queues: &[Queue],
) -> Result<(), ConnectError> {
    let channel = open(connection).await?;
    for queue in queues {
        let deleted =
            channel.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default());
        deadline("delete a queue", OPERATION_TIMEOUT, deleted).await?;
    }
    for exchange in exchanges {
        let deleted = channel.exchange_delete(
            exchange.name.as_str().into(),
            ExchangeDeleteOptions::default(),
        );
        deadline("delete an exchange", OPERATION_TIMEOUT, deleted).await?;
    }
    Ok(())
}
