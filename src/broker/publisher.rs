//! Publishing, mandatory and confirmed: one task for each channel, which others reach through a
//! bounded queue. Two tasks that publish on one channel would be given each other's confirms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation, ErrorKind, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::task::TaskTracker;

use super::{
    connection::{ConnectError, OPERATION_TIMEOUT, Source, deadline},
    message::{Message, Wire},
};

mod returns;

use returns::{Answer, Ledger};

/// Publishes outstanding on one channel. More than about a thousand gain nothing.
const WINDOW: usize = 1_024;
/// Jobs that may wait for the task.
const JOBS: usize = 64;
/// A channel without work for this long is closed.
const IDLE: Duration = Duration::from_mins(1);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Why a publish did not succeed.
#[derive(Debug, Clone, Error)]
pub enum PublishError {
    /// No queue took the message.
    #[error("the broker returned the message: {0}")]
    Returned(String),
    /// The broker refused the message.
    #[error(
        "the broker refused the message (a full queue with reject-publish, or a queue in trouble)"
    )]
    Nacked,
    /// No confirm in time.
    #[error("no confirm within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// No confirm in time, and the broker blocks its publishers.
    #[error("the broker blocks its publishers (memory or disk alarm)")]
    Blocked,
    /// The broker closed the channel.
    #[error("the broker closed the channel: {0}")]
    ChannelClosed(String),
    /// The broker refuses the permission to publish there.
    #[error("the broker refuses access: {0}")]
    AccessRefused(String),
    /// The connection broke while the message was in flight.
    #[error("the connection to the broker was lost: {0}")]
    Lost(String),
    /// No connection could be made.
    #[error(transparent)]
    Unavailable(Arc<ConnectError>),
    /// The message cannot be written in AMQP.
    #[error("the message cannot be published: {0}")]
    Invalid(String),
    /// The bridge is stopping.
    #[error("the publisher has stopped")]
    Stopped,
}

/// What became of each message of a publish, in order.
pub type PublishResults = Vec<Result<(), PublishError>>;

/// A handle on one publishing channel. Cheap to clone; the channel is opened when there is
/// something to publish, and again after it broke.
#[derive(Debug, Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    stalled: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Job {
    messages: Vec<Message>,
    timeout: Duration,
    reply: oneshot::Sender<PublishResults>,
}

impl Publisher {
    /// Starts the task of a publisher that takes its connections from `source` and declares the
    /// queue `declare` whenever its channel opens. It ends when the last handle is dropped.
    pub fn start(source: Source, declare: Option<String>, tasks: &TaskTracker) -> Self {
        let (jobs, receiver) = mpsc::channel(JOBS);
        let stalled = Arc::new(AtomicBool::new(false));
        let task = Task {
            source,
            declare,
            jobs: receiver,
            stalled: stalled.clone(),
        };
        tasks.spawn(task.run());
        Self { jobs, stalled }
    }

    /// Publishes messages and waits until each is confirmed or failed. `timeout` is how long a
    /// message may be without a confirm while the broker takes messages at all.
    pub async fn publish(&self, messages: Vec<Message>, timeout: Duration) -> PublishResults {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let (reply, results) = oneshot::channel();
        if self
            .jobs
            .send(Job {
                messages,
                timeout,
                reply,
            })
            .await
            .is_err()
        {
            return vec![Err(PublishError::Stopped); count];
        }
        results
            .await
            .unwrap_or_else(|_| vec![Err(PublishError::Stopped); count])
    }

    /// [`Self::publish`] for one message.
    pub async fn publish_one(
        &self,
        message: Message,
        timeout: Duration,
    ) -> Result<(), PublishError> {
        self.publish(vec![message], timeout)
            .await
            .pop()
            .unwrap_or(Err(PublishError::Stopped))
    }

    /// Whether the last publish here went without a confirm: the next one may have to wait, too.
    pub fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }
}

struct Task {
    source: Source,
    declare: Option<String>,
    jobs: mpsc::Receiver<Job>,
    stalled: Arc<AtomicBool>,
}

/// A job whose messages are in flight.
struct Running {
    results: Vec<Option<Result<(), PublishError>>>,
    open: usize,
    reply: Option<oneshot::Sender<PublishResults>>,
}

/// Where the answer to one publish goes.
struct Slot {
    job: Arc<std::sync::Mutex<Running>>,
    index: usize,
    timeout: Duration,
    expires: Instant,
}

impl Slot {
    fn fill(self, result: Result<(), PublishError>) {
        let mut job = self
            .job
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(slot) = job.results.get_mut(self.index)
            && slot.is_none()
        {
            *slot = Some(result);
            job.open -= 1;
        }
        if job.open == 0
            && let Some(reply) = job.reply.take()
        {
            // Nobody waits any more when the caller was stopped: its source stays unacknowledged.
            let results = std::mem::take(&mut job.results);
            let _ = reply.send(
                results
                    .into_iter()
                    .map(|r| r.unwrap_or(Err(PublishError::Stopped)))
                    .collect(),
            );
        }
    }
}

/// Why a session on a channel ended.
enum End {
    Idle,
    HandlesGone,
    Broken,
}

impl Task {
    async fn run(mut self) {
        while let Some(job) = self.jobs.recv().await {
            let opened = match deadline(
                "open a publishing channel",
                OPERATION_TIMEOUT,
                Box::pin(self.open()),
            )
            .await
            {
                Ok(opened) => opened,
                Err(error) => {
                    let error = PublishError::Unavailable(Arc::new(error));
                    fail(job, &error);
                    while let Ok(job) = self.jobs.try_recv() {
                        fail(job, &error);
                    }
                    continue;
                }
            };
            match self.session(&opened, job).await {
                End::HandlesGone => break,
                End::Idle | End::Broken => {}
            }
        }
    }

    async fn open(&self) -> Result<Opened, ConnectError> {
        let connection = self.source.connection().await?;
        let status = connection.status().clone();
        if let Some(queue) = &self.declare {
            declare_queue(&connection, queue).await?;
        }
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Opened {
            channel,
            status,
            _lease: connection.lease(),
        })
    }

    /// Publishes on one channel until it breaks, stalls, idles, or nobody is left to ask for more.
    async fn session(&mut self, opened: &Opened, first: Job) -> End {
        let mut confirms = FuturesUnordered::new();
        let mut ledger = Ledger::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = Instant::now();
        let mut handles_gone = false;
        let mut next = Some(first);
        loop {
            if let Some(job) = next.take() {
                for (sequence, wire) in enter(&mut ledger, job) {
                    confirms.push(publish(opened.channel.clone(), sequence, wire));
                }
                idle_since = Instant::now();
            }
            if confirms.is_empty() && handles_gone {
                return End::HandlesGone;
            }
            tokio::select! {
                biased;
                Some(complete) = confirms.next(), if !confirms.is_empty() => {
                    let mut broken = report(&mut ledger, complete).err();
                    // Every confirm that is complete, before any is decided: see `returns`.
                    while let Some(Some(complete)) = confirms.next().now_or_never() {
                        broken = report(&mut ledger, complete).err().or(broken);
                    }
                    let mut missing = false;
                    ledger.decide(|slot: Slot, answer| {
                        missing |= matches!(answer, Answer::Returned(_));
                        self.stalled.store(false, Ordering::Relaxed);
                        slot.fill(match answer {
                            Answer::Confirmed => Ok(()),
                            Answer::Nacked => Err(PublishError::Nacked),
                            Answer::Returned(words) => Err(PublishError::Returned(words)),
                        });
                    });
                    if let Some(error) = broken {
                        ledger.drain().for_each(|slot| slot.fill(Err(error.clone())));
                        return End::Broken;
                    }
                    if missing && self.declare.is_some() && ledger.is_empty() {
                        // Somebody deleted the queue: opening the channel again declares it again.
                        return End::Broken;
                    }
                }
                job = self.jobs.recv(), if !handles_gone && ledger.len() < WINDOW => match job {
                    Some(job) => next = Some(job),
                    None => handles_gone = true,
                },
                _ = tick.tick() => {
                    if !opened.status.connected() {
                        let error = PublishError::Lost("the connection is gone".into());
                        ledger.drain().for_each(|slot| slot.fill(Err(error.clone())));
                        return End::Broken;
                    }
                    if ledger.is_empty() {
                        if idle_since.elapsed() >= IDLE {
                            return End::Idle;
                        }
                    } else if let Some(end) = self.expire(opened, &mut ledger) {
                        return end;
                    }
                }
            }
        }
    }

    /// Fails what has waited too long. One message without a confirm condemns the channel: what
    /// else is in flight on it goes to the same place.
    fn expire(&self, opened: &Opened, ledger: &mut Ledger<Slot>) -> Option<End> {
        let now = Instant::now();
        let expired = ledger.undecided().find(|slot| slot.expires <= now)?.timeout;
        let blocked = opened.status.blocked();
        if blocked && self.source.waits_while_blocked() {
            // Given up now, the messages would still be published when the alarm clears, and so
            // be published twice.
            return None;
        }
        let error = if blocked {
            PublishError::Blocked
        } else {
            PublishError::Timeout(expired)
        };
        self.stalled.store(true, Ordering::Relaxed);
        ledger
            .drain()
            .for_each(|slot| slot.fill(Err(error.clone())));
        Some(End::Broken)
    }
}

/// Declares a durable quorum queue on a channel of its own. One that exists otherwise is taken as it
/// is, and what the user may not declare may exist all the same: the publish will tell.
async fn declare_queue(connection: &lapin::Connection, queue: &str) -> Result<(), ConnectError> {
    let channel = connection.create_channel().await?;
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
        Err(error) if matches!(channel_error(&error), PublishError::Lost(_)) => Err(error.into()),
        Err(error) => {
            tracing::debug!(queue, "the queue is not declared: {error}");
            Ok(())
        }
    }
}

/// A channel to publish on, and what keeps its connection in use.
struct Opened {
    channel: Channel,
    status: lapin::ConnectionStatus,
    _lease: super::connection::Lease,
}

/// Notes the messages of a job as in flight. What cannot be written in AMQP fails at once; what
/// nobody waits for any more has been given up, and is not published after all.
fn enter(ledger: &mut Ledger<Slot>, job: Job) -> Vec<(u64, Wire)> {
    if job.reply.is_closed() {
        return Vec::new();
    }
    let count = job.messages.len();
    let running = Arc::new(std::sync::Mutex::new(Running {
        results: vec![None; count],
        open: count,
        reply: Some(job.reply),
    }));
    let expires = Instant::now() + job.timeout;
    let mut wires = Vec::with_capacity(count);
    for (index, message) in job.messages.into_iter().enumerate() {
        let slot = Slot {
            job: running.clone(),
            index,
            timeout: job.timeout,
            expires,
        };
        let message_id = message.message_id.clone();
        match Wire::new(message) {
            Ok(wire) => wires.push((ledger.add(message_id, slot), wire)),
            Err(error) => slot.fill(Err(error)),
        }
    }
    wires
}

type Complete = (u64, Result<Confirmation, lapin::Error>);

async fn publish(channel: Channel, sequence: u64, wire: Wire) -> Complete {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let written: Result<PublisherConfirm, _> = channel
        .basic_publish(
            wire.exchange,
            wire.routing_key,
            options,
            &wire.body,
            wire.properties,
        )
        .await;
    let confirmation = match written {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (sequence, confirmation)
}

/// Tells the ledger of a completed confirm; an error is the channel's end.
fn report(
    ledger: &mut Ledger<Slot>,
    (sequence, confirmation): Complete,
) -> Result<(), PublishError> {
    let (acked, returned) = match confirmation {
        Ok(Confirmation::Ack(returned)) => (true, returned),
        Ok(Confirmation::Nack(returned)) => (false, returned),
        Ok(Confirmation::NotRequested) => {
            return Err(PublishError::Lost(
                "the channel is not in confirm mode".into(),
            ));
        }
        Err(error) => return Err(channel_error(&error)),
    };
    let id = returned
        .as_ref()
        .and_then(|message| message.delivery.properties.message_id().as_ref())
        .map_or("", |id| id.as_str());
    let words = returned.as_ref().map(|message| {
        (
            id,
            format!("{} ({})", message.reply_text, message.reply_code),
        )
    });
    ledger.report(sequence, acked, words);
    Ok(())
}

/// What the end of a channel means for the messages in flight on it.
fn channel_error(error: &lapin::Error) -> PublishError {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                PublishError::AccessRefused(amqp.get_message().to_string())
            }
            AMQPErrorKind::Soft(_) => PublishError::ChannelClosed(amqp.get_message().to_string()),
            AMQPErrorKind::Hard(_) => PublishError::Lost(amqp.get_message().to_string()),
        },
        _ => PublishError::Lost(error.to_string()),
    }
}

fn fail(job: Job, error: &PublishError) {
    let _ = job.reply.send(vec![Err(error.clone()); job.messages.len()]);
}
