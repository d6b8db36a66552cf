//! Consumers: one channel for each, rebuilt for ever by a supervisor of its own.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions,
        BasicNackOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::{
    connection::{ConnectError, OPERATION_TIMEOUT, deadline, gone},
    home::{Home, Link},
    message::Received,
    prefetch::Prefetch,
};

/// Waits between attempts to consume from a queue that cannot be consumed from.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// How long a consumer may take to start. Generous: giving up drops a channel halfway, and the
/// client library may lose the whole connection over that.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What is consumed, and how much may be unsettled at once.
#[derive(Debug, Clone)]
pub struct Options {
    /// The queue.
    pub queue: String,
    /// Messages unsettled at once, at most.
    pub prefetch: u16,
    /// What these may weigh together, about: fewer are asked for while they are large.
    pub bytes: Option<usize>,
    /// Nothing is consumed while this is false: a session ends, and what is unsettled is seen through.
    pub gate: Option<watch::Receiver<bool>>,
    /// An exchange, which a queue is made for that this consumer has for itself: bound to everything
    /// there, and gone with it.
    pub listens_to: Option<String>,
}

/// Whether a consumer is there.
pub enum Presence {
    /// It is.
    There,
    /// Its session is over.
    Gone,
    /// It cannot be, though the broker is there; and why.
    Failing(String),
}

/// Says that a consumer is there, and at its end that it is gone, whatever ends it.
struct There<'a, F: Fn(Presence)>(&'a F);

impl<'a, F: Fn(Presence)> There<'a, F> {
    fn now(present: &'a F) -> Self {
        present(Presence::There);
        Self(present)
    }
}

impl<F: Fn(Presence)> Drop for There<'_, F> {
    fn drop(&mut self) {
        (self.0)(Presence::Gone);
    }
}

/// Consumes until `stop`: whenever the home broker is there, opens a channel and hands a session on
/// it to `work`, which returns when the session is over. `present` hears whether the consumer is
/// there, and once for each outage that it cannot be.
pub async fn consume<W, F>(
    home: Arc<Home>,
    options: Options,
    stop: CancellationToken,
    present: impl Fn(Presence),
    mut work: W,
) where
    W: FnMut(Session) -> F,
    F: Future<Output = ()>,
{
    let mut gate = options.gate.clone();
    let mut link = home.link();
    let mut failures = 0;
    let mut said = false;
    while !stop.is_cancelled() {
        if let Some(gate) = &mut gate {
            tokio::select! {
                () = stop.cancelled() => return,
                open = gate.wait_for(|open| *open) => if open.is_err() {
                    return;
                },
            }
        }
        let up = tokio::select! {
            () = stop.cancelled() => return,
            up = Link::up(&mut link) => up,
        };
        let Some(connection) = up else { return };
        let ending = stop.child_token();
        match start(&connection, &options, &ending).await {
            Ok(session) => {
                if said {
                    info!(queue = options.queue, "consuming again");
                }
                (failures, said) = (0, false);
                let settler = session.settler();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = home.repaired() => {}
                }
                let there = There::now(&present);
                let mut working = std::pin::pin!(work(session));
                tokio::select! {
                    () = &mut working => {}
                    () = shut(gate.as_mut()) => {
                        ending.cancel();
                        working.await;
                    }
                }
                drop(there);
                if stop.is_cancelled() {
                    home.keep(settler);
                    return;
                }
                debug!(queue = options.queue, "the consumer ended");
            }
            Err(error) if connection.status().connected() => {
                // Said once for each outage.
                if !std::mem::replace(&mut said, true) {
                    present(Presence::Failing(error.to_string()));
                }
                let repaired = tokio::select! {
                    () = stop.cancelled() => return,
                    repaired = home.repair(&connection) => repaired,
                };
                if let Err(error) = repaired {
                    debug!(
                        queue = options.queue,
                        "cannot bring the topology back: {error}"
                    );
                }
            }
            Err(error) => debug!(queue = options.queue, "cannot consume: {error}"),
        }
        let pause = BACKOFF[failures.min(BACKOFF.len() - 1)];
        failures += 1;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Waits until the gate is shut.
async fn shut(gate: Option<&mut watch::Receiver<bool>>) {
    let shut = match gate {
        Some(gate) => gate.wait_for(|open| !*open).await.is_ok(),
        None => false,
    };
    if !shut {
        std::future::pending::<()>().await;
    }
}

/// Starts one consumer on a channel of its own, which is not brought back when it ends.
pub async fn start(
    connection: &lapin::Connection,
    options: &Options,
    stop: &CancellationToken,
) -> Result<Session, ConnectError> {
    let starting = deadline("start a consumer", START_TIMEOUT, async {
        let channel = connection.create_channel().await?;
        let queue = match &options.listens_to {
            Some(exchange) => listen(&channel, &options.queue, exchange).await?,
            None => options.queue.clone(),
        };
        let prefetch = Prefetch::new(options.prefetch, options.bytes);
        let consumer = subscribe(&channel, &queue, prefetch.now()).await?;
        Ok::<_, lapin::Error>(Session {
            consumer,
            prefetch,
            changing: false,
            ended: false,
            settler: Settler(Arc::new(Settling {
                channel,
                queue,
                used: AtomicBool::new(false),
            })),
            stop: stop.clone(),
            over: false,
        })
    });
    tokio::select! {
        started = starting => started,
        error = gone(|| connection.status().connected()) => Err(error),
    }
}

/// Makes a queue that only this connection has, bound to everything at an exchange, and gives its
/// name, which begins with `name`. It is another one each time: the one of a connection that was lost
/// stays until the broker has noticed.
async fn listen(channel: &Channel, name: &str, exchange: &str) -> Result<String, lapin::Error> {
    let queue = format!("{name}.{}", Uuid::new_v4());
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.as_str().into(), options, FieldTable::default())
        .await?;
    channel
        .queue_bind(
            queue.as_str().into(),
            exchange.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(queue)
}

async fn subscribe(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
) -> Result<lapin::Consumer, lapin::Error> {
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    channel
        .basic_consume(
            queue.into(),
            // The broker picks a tag.
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
}

/// Consuming on one channel, from its start to its end.
pub struct Session {
    consumer: lapin::Consumer,
    prefetch: Prefetch,
    /// Whether the consumer is cancelled, to go on with another prefetch once what it still has is
    /// taken: so the order of the delivery tags stays that of the messages.
    changing: bool,
    /// Whether that consumer has nothing any more.
    ended: bool,
    settler: Settler,
    stop: CancellationToken,
    over: bool,
}

impl Session {
    /// What has arrived, at least one and at most `max` messages; `None` when the session is over:
    /// stopped, cancelled by the broker, or its channel broken.
    pub async fn next(&mut self, max: usize) -> Option<Vec<Received>> {
        while !self.over {
            if self.ended {
                self.go_on().await;
                continue;
            }
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.cancel().await;
                    return None;
                }
                first = self.consumer.next() => first,
            };
            let chunk = self.collect(first, max);
            if !chunk.is_empty() {
                self.weigh(&chunk).await;
                return Some(chunk);
            }
        }
        None
    }

    /// What is there already, with the first of it.
    fn collect(
        &mut self,
        first: Option<Result<lapin::message::Delivery, lapin::Error>>,
        max: usize,
    ) -> Vec<Received> {
        let mut chunk = Vec::new();
        let mut next = first;
        loop {
            match next {
                Some(Ok(delivery)) => chunk.push(Received::new(delivery)),
                Some(Err(error)) => {
                    debug!("a consumer broke: {error}");
                    self.over = true;
                }
                None if self.changing => self.ended = true,
                None => self.over = true,
            }
            if self.over || self.ended || chunk.len() >= max {
                break;
            }
            match self.consumer.next().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        chunk
    }

    /// Has the prefetch follow the size of what comes. A consumer keeps the one that it began with, so
    /// another takes its place.
    async fn weigh(&mut self, chunk: &[Received]) {
        for received in chunk {
            self.prefetch.note(received.body.len());
        }
        if !self.over && !self.changing && self.prefetch.change().is_some() {
            self.changing = true;
            self.cancel().await;
        }
    }

    /// Consumes again after [`Self::weigh`] ended the consumer.
    async fn go_on(&mut self) {
        let Settling { channel, queue, .. } = &*self.settler.0;
        let again = subscribe(channel, queue, self.prefetch.now());
        let again = tokio::select! {
            again = deadline("start a consumer", START_TIMEOUT, again) => again,
            error = gone(|| channel.status().connected()) => Err(error),
        };
        match again {
            Ok(consumer) => {
                self.consumer = consumer;
                (self.changing, self.ended) = (false, false);
            }
            Err(error) => {
                debug!("a consumer broke: {error}");
                self.over = true;
            }
        }
    }

    /// How many messages may be unsettled at once, as it is now.
    pub fn prefetch(&self) -> u16 {
        self.prefetch.now()
    }

    /// What settles the messages of this session.
    pub fn settler(&self) -> Settler {
        self.settler.clone()
    }

    /// Ends the session before its time; what is unsettled goes back to its queue.
    pub async fn end(self) {
        let closed = self.settler.0.channel.close(200, "done".into());
        if let Err(error) = deadline("close a channel", OPERATION_TIMEOUT / 5, closed).await {
            debug!("closing a channel: {error}");
        }
    }

    /// Tells the broker to send no more. What is unsettled stays with the channel until its last
    /// settler is gone.
    async fn cancel(&self) {
        let channel = &self.settler.0.channel;
        let cancelled = channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        if let Err(error) = deadline("cancel a consumer", OPERATION_TIMEOUT / 5, cancelled).await {
            debug!("cancelling a consumer: {error}");
        }
    }
}

/// Settles messages on the channel that they came over. Cheap to clone, which the library's own
/// channel is not.
#[derive(Clone)]
pub struct Settler(Arc<Settling>);

struct Settling {
    channel: Channel,
    queue: String,
    /// Whether anything was settled.
    used: AtomicBool,
}

impl Settler {
    /// Whether messages of this session can still be settled. If not, the broker has put them back.
    pub fn alive(&self) -> bool {
        self.0.channel.status().connected()
    }

    /// Acknowledges one message.
    pub async fn ack(&self, tag: u64) {
        self.acknowledge(tag, false).await;
    }

    /// Acknowledges a message and all before it.
    pub async fn ack_up_to(&self, tag: u64) {
        self.acknowledge(tag, true).await;
    }

    /// Waits until the broker has applied what was settled here.
    ///
    /// It answers no acknowledgement, and keeps those for a quorum queue back while more than 32 are
    /// on their way to it; a channel that closes then takes them with it, and what was delivered is
    /// delivered again (measured on 3.10.8: up to 31 of 64). Taking a message goes to the queue
    /// behind them, and its answer comes after theirs; the second time it is behind those that were
    /// kept back. A message that comes is put back when the channel closes.
    pub async fn applied(&self) {
        if !self.0.used.load(Ordering::Relaxed) {
            return;
        }
        for _ in 0..2 {
            let taken = self
                .0
                .channel
                .basic_get(self.0.queue.as_str().into(), BasicGetOptions::default());
            if let Err(error) = deadline("see settled", OPERATION_TIMEOUT / 5, taken).await {
                debug!(
                    queue = self.0.queue,
                    "what was settled last may be delivered again: {error}"
                );
                return;
            }
        }
    }

    async fn acknowledge(&self, tag: u64, multiple: bool) {
        self.0.used.store(true, Ordering::Relaxed);
        let acked = self.0.channel.basic_ack(tag, BasicAckOptions { multiple });
        if let Err(error) = deadline("acknowledge", OPERATION_TIMEOUT, acked).await {
            // The channel is gone, so the broker delivers the message again.
            debug!("an acknowledgement was lost: {error}");
        }
    }

    /// Gives a message to its queue's dead-letter exchange.
    pub async fn dead_letter(&self, tag: u64) {
        self.0.used.store(true, Ordering::Relaxed);
        let options = BasicNackOptions {
            multiple: false,
            requeue: false,
        };
        if let Err(error) = deadline(
            "reject",
            OPERATION_TIMEOUT,
            self.0.channel.basic_nack(tag, options),
        )
        .await
        {
            debug!("a rejection was lost: {error}");
        }
    }
}
