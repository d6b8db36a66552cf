//! How a publisher comes to its channel: on one of the connections of all, or on one of its own.

use std::sync::{Arc, atomic::AtomicUsize};

use lapin::{
    Channel, ConnectionStatus,
    options::{ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    PublishError, TICK, WINDOW, channel_error,
    session::{Opened, Terms},
};
use crate::broker::{
    connection::{ConnectError, OPERATION_TIMEOUT, deadline},
    pool::{Leased, Source},
};

/// Connections on which a channel is asked for, where each has all that the broker allows already:
/// others may be quicker to fill up a new one.
const CONNECTIONS_TRIED: usize = 8;

/// Opens a publisher's channels.
pub(super) struct Opening {
    source: Source,
    declare: Option<String>,
    line: Line,
}

/// On whose connections a publisher's channels are.
enum Line {
    /// On those of all.
    Shared,
    /// On those of all, since the broker allowed no further one.
    Confined,
    /// On its own.
    Own { _right: OwnedSemaphorePermit },
}

impl Opening {
    /// On the connections of `source`; each channel declares the queue `declare`.
    pub(super) fn new(source: Source, declare: Option<String>) -> Self {
        Self {
            source,
            declare,
            line: Line::Shared,
        }
    }

    /// From now on, on a connection of its own.
    pub(super) fn alone(&mut self, right: OwnedSemaphorePermit) {
        self.line = Line::Own { _right: right };
    }

    /// From now on, on the connections of all.
    pub(super) fn with_all(&mut self) {
        self.line = Line::Shared;
    }

    /// Something broke: so may the connection that could not be had have done.
    pub(super) fn may_ask_again(&mut self) {
        if let Line::Confined = self.line {
            self.line = Line::Shared;
        }
    }

    /// These terms, as they are on the next channel.
    pub(super) fn fit(&self, mut terms: Terms) -> Terms {
        if let Line::Own { .. } = self.line {
            terms.window = WINDOW;
        }
        if !matches!(self.line, Line::Shared) {
            terms.own_connections = None;
        }
        terms
    }

    /// Opens a channel, on another connection if one has all that the broker allows.
    pub(super) async fn open(&mut self, declared: bool) -> Result<Opened, PublishError> {
        for _ in 0..CONNECTIONS_TRIED {
            match self.open_on_one(declared).await {
                Err(PublishError::NoChannel) => {}
                opened => return opened,
            }
        }
        Err(PublishError::NoChannel)
    }

    /// Opens a channel on the connection whose turn it is, or on one of its own, and declares the
    /// queue unless it is `declared`. What goes wrong on a live connection is not the connection's
    /// fault.
    async fn open_on_one(&mut self, declared: bool) -> Result<Opened, PublishError> {
        let shared = connected(self.source.connection()).await?;
        let mut own = None;
        if let Line::Own { .. } = self.line {
            own = connected(self.source.own_connection()).await.ok();
            if own.is_none() {
                self.line = Line::Confined;
            }
        }
        let home = self.source.is_home();
        let declare = self.declare.as_ref().filter(|_| !declared);
        let connection = own.as_ref().unwrap_or(&shared);
        let status = connection.status().clone();
        let opening = async {
            let declaring = match declare {
                Some(_) => Some(connection.create_channel().await?),
                None => None,
            };
            let asking = if home {
                Some(shared.asking().await?)
            } else {
                None
            };
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok::<_, lapin::Error>((declaring, asking, channel))
        };
        let opened = in_time(&[&status, shared.status()], home, opening).await;
        if matches!(opened, Err(PublishError::NoChannel)) {
            shared.retire();
            return Err(PublishError::NoChannel);
        }
        let (declaring, asking, channel) = opened.map_err(|error| match error {
            // A subscriber's queue has no part in this.
            PublishError::Timeout(limit) if home => {
                let limit = humantime::format_duration(limit);
                PublishError::Lost(format!("no channel within {limit}"))
            }
            error => error,
        })?;
        // Others may use the connection while the queue takes its time.
        let lease = own.unwrap_or(shared).lease();
        if let (Some(declaring), Some(queue)) = (declaring, declare) {
            in_time(&[&status], home, declare_queue(&declaring, queue)).await?;
        }
        let unwritten = Arc::new(AtomicUsize::new(0));
        Ok(Opened {
            channel,
            asking,
            status,
            unwritten,
            _lease: lease,
        })
    }
}

/// Gives a connection [`OPERATION_TIMEOUT`] to be made.
async fn connected(
    connecting: impl Future<Output = Result<Leased, ConnectError>>,
) -> Result<Leased, PublishError> {
    deadline("connect", OPERATION_TIMEOUT, Box::pin(connecting))
        .await
        .map_err(|error| PublishError::Unavailable(Arc::new(error)))
}

/// Gives an operation [`OPERATION_TIMEOUT`], or less if one of its connections breaks. The time stands
/// still while a broker that is waited for blocks one: it reads nothing from it, and answers once the
/// alarm is over.
async fn in_time<T>(
    connections: &[&ConnectionStatus],
    waits: bool,
    operation: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, PublishError> {
    let mut operation = Box::pin(operation);
    let mut expires = Instant::now() + OPERATION_TIMEOUT;
    loop {
        match tokio::time::timeout(TICK, &mut operation).await {
            Ok(result) => return result.map_err(|error| channel_error(&error)),
            // The client library may have forgotten who asks: see `gone`.
            Err(_) if !connections.iter().all(|status| status.connected()) => {
                return Err(PublishError::Lost("the connection is gone".into()));
            }
            Err(_) if waits && connections.iter().any(|status| status.blocked()) => {
                expires = Instant::now() + OPERATION_TIMEOUT;
            }
            Err(_) if Instant::now() >= expires => {
                return Err(PublishError::Timeout(OPERATION_TIMEOUT));
            }
            Err(_) => {}
        }
    }
}

/// Declares a durable quorum queue. One that exists otherwise is taken as it is, and what the user
/// may not declare may exist all the same: the publish will tell.
async fn declare_queue(channel: &Channel, queue: &str) -> Result<(), lapin::Error> {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    match channel
        .queue_declare(queue.into(), options, arguments)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if matches!(channel_error(&error), PublishError::Lost(_)) => Err(error),
        Err(error) => {
            tracing::debug!(queue, "the queue is not declared: {error}");
            Ok(())
        }
    }
}
