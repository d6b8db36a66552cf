//! Publishing, mandatory and confirmed: one task for each channel, which others reach through a
//! bounded queue. Two tasks that publish on one channel would be given each other's confirms.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
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
    connection::{ConnectError, Lease, OPERATION_TIMEOUT, Source, deadline},
    message::{Message, Wire},
};

mod returns;

use returns::{Answer, Ledger};

/// Publishes outstanding on one channel. More than about a thousand gain nothing.
const WINDOW: usize = 1_024;
/// The same where others publish over the connection, too. The broker stops reading a connection
/// that has 400 publishes before a channel whose queue does not take them, and grants these in
/// steps of 200: with fewer on their way, a queue in trouble holds up nobody else.
const SHARED_WINDOW: usize = 192;
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
        Self::with_window(WINDOW, source, declare, tasks)
    }

    /// [`Self::start`] for one of many that share connections, and must not hold each other up.
    pub fn start_shared(source: Source, declare: Option<String>, tasks: &TaskTracker) -> Self {
        Self::with_window(SHARED_WINDOW, source, declare, tasks)
    }

    fn with_window(
        window: usize,
        source: Source,
        declare: Option<String>,
        tasks: &TaskTracker,
    ) -> Self {
        let (jobs, receiver) = mpsc::channel(JOBS);
        let stalled = Arc::new(AtomicBool::new(false));
        let task = Task {
            tasks: tasks.clone(),
            source,
            declare,
            jobs: receiver,
            stalled: stalled.clone(),
            window,
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

    /// Whether the task is gone, so that nothing will ever be published here.
    pub fn is_closed(&self) -> bool {
        self.jobs.is_closed()
    }
}

struct Task {
    tasks: TaskTracker,
    source: Source,
    declare: Option<String>,
    jobs: mpsc::Receiver<Job>,
    stalled: Arc<AtomicBool>,
    window: usize,
}

/// A job whose messages are in flight.
struct Running {
    results: Vec<Option<Result<(), PublishError>>>,
    open: usize,
    reply: Option<oneshot::Sender<PublishResults>>,
}

/// Where the answer to one publish goes.
struct Slot {
    job: Arc<Mutex<Running>>,
    index: usize,
    timeout: Duration,
    expires: Instant,
}

impl Slot {
    fn fill(self, result: Result<(), PublishError>) {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = job.results.get_mut(self.index)
            && slot.is_none()
        {
            *slot = Some(result);
            job.open -= 1;
        }
        if job.open == 0
            && let Some(reply) = job.reply.take()
        {
            let results = std::mem::take(&mut job.results);
            // Nobody waits any more when the caller was stopped: its source stays unacknowledged.
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
    /// Nobody needs the channel for now, or any more.
    Idle,
    HandlesGone,
    /// The channel is closed, or what is on it is never answered.
    Broken,
}

impl Task {
    async fn run(mut self) {
        while let Some(job) = self.jobs.recv().await {
            let opened = match self.open().await {
                Ok(opened) => opened,
                Err(error) => {
                    let slow = matches!(error, PublishError::Timeout(_));
                    self.stalled.store(slow, Ordering::Relaxed);
                    fail(job, &error);
                    while let Ok(job) = self.jobs.try_recv() {
                        fail(job, &error);
                    }
                    continue;
                }
            };
            let mut session = Session::new(opened, self.window);
            let end = session.run(&mut self, job).await;
            session.close(&self.tasks);
            if matches!(end, End::HandlesGone) {
                break;
            }
        }
    }

    /// Opens a channel. What goes wrong on a live connection is not the connection's fault.
    async fn open(&self) -> Result<Opened, PublishError> {
        let connecting = deadline(
            "connect",
            OPERATION_TIMEOUT,
            Box::pin(self.source.connection()),
        );
        let connection = connecting
            .await
            .map_err(|error| PublishError::Unavailable(Arc::new(error)))?;
        let status = connection.status().clone();
        let opening = async {
            let declaring = match &self.declare {
                Some(_) => Some(connection.create_channel().await?),
                None => None,
            };
            Ok::<_, lapin::Error>((declaring, connection.create_channel().await?))
        };
        let patient = self.source.waits_while_blocked().then_some(&status);
        let (declaring, channel) = in_time(patient, opening).await?;
        // Others may use the connection while the queue takes its time.
        let lease = connection.lease();
        in_time(patient, async {
            if let (Some(declaring), Some(queue)) = (declaring, &self.declare) {
                declare_queue(&declaring, queue).await?;
            }
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await
        })
        .await?;
        let unwritten = Arc::new(AtomicUsize::new(0));
        Ok(Opened {
            channel,
            status,
            unwritten,
            _lease: lease,
        })
    }
}

/// Gives an operation [`OPERATION_TIMEOUT`]. The time stands still while `patient` is blocked: the
/// broker reads nothing from a connection that it blocks, and answers once the alarm is over.
async fn in_time<T>(
    patient: Option<&lapin::ConnectionStatus>,
    operation: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, PublishError> {
    let mut operation = Box::pin(operation);
    let mut expires = Instant::now() + OPERATION_TIMEOUT;
    loop {
        match tokio::time::timeout(TICK, &mut operation).await {
            Ok(result) => return result.map_err(|error| channel_error(&error)),
            Err(_) if patient.is_some_and(|status| status.connected() && status.blocked()) => {
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

/// A channel to publish on, and what keeps its connection in use.
struct Opened {
    channel: Channel,
    status: lapin::ConnectionStatus,
    /// Publishes that the client library has not written yet.
    unwritten: Arc<AtomicUsize>,
    _lease: Lease,
}

impl Opened {
    /// Whether nothing is left to write on this channel.
    fn written(&self) -> bool {
        let open = self.status.connected() && self.channel.status().connected();
        !open || self.unwritten.load(Ordering::Relaxed) == 0
    }
}

/// Publishing on one channel, from its opening to its end.
struct Session {
    opened: Opened,
    window: usize,
    confirms: FuturesUnordered<BoxFuture<'static, Complete>>,
    ledger: Ledger<Slot>,
    /// Messages taken from a job that the window has no room for yet.
    waiting: VecDeque<(Slot, Message)>,
}

impl Session {
    fn new(opened: Opened, window: usize) -> Self {
        Self {
            opened,
            window,
            confirms: FuturesUnordered::new(),
            ledger: Ledger::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Publishes until the channel breaks or is never answered, idles, or nobody is left to ask for
    /// more.
    async fn run(&mut self, task: &mut Task, first: Job) -> End {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = Instant::now();
        let mut handles_gone = false;
        self.take(first);
        loop {
            self.admit();
            if handles_gone && self.confirms.is_empty() && self.waiting.is_empty() {
                return End::HandlesGone;
            }
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    if !self.opened.status.connected() {
                        return self.fail_all(|_| PublishError::Lost("the connection is gone".into()));
                    }
                    self.expire(task);
                    if self.ledger.len() >= self.window && task.stalled.load(Ordering::Relaxed) {
                        // Full of what is never answered: what comes next gets another channel.
                        return self.fail_all(|slot| PublishError::Timeout(slot.timeout));
                    }
                    if self.ledger.is_empty() && idle_since.elapsed() >= IDLE {
                        return End::Idle;
                    }
                }
                Some(complete) = self.confirms.next(), if !self.confirms.is_empty() => {
                    idle_since = Instant::now();
                    if let Some(end) = self.look_through(task, complete) {
                        return end;
                    }
                }
                job = task.jobs.recv(), if !handles_gone && self.waiting.is_empty() => match job {
                    Some(job) => self.take(job),
                    None => handles_gone = true,
                },
            }
        }
    }

    /// Takes a job on, unless nobody waits for it any more: then it has been given up, and must not
    /// be published after all.
    fn take(&mut self, job: Job) {
        if job.reply.is_closed() {
            return;
        }
        let count = job.messages.len();
        let running = Arc::new(Mutex::new(Running {
            results: vec![None; count],
            open: count,
            reply: Some(job.reply),
        }));
        for (index, message) in job.messages.into_iter().enumerate() {
            let slot = Slot {
                job: running.clone(),
                index,
                timeout: job.timeout,
                expires: Instant::now() + job.timeout,
            };
            self.waiting.push_back((slot, message));
        }
    }

    /// Publishes what the window has room for. The time that a message is given begins here.
    fn admit(&mut self) {
        while self.ledger.len() < self.window {
            let Some((mut slot, message)) = self.waiting.pop_front() else {
                return;
            };
            let message_id = message.message_id.clone();
            match Wire::new(message) {
                Ok(wire) => {
                    slot.expires = Instant::now() + slot.timeout;
                    let sequence = self.ledger.add(message_id, slot);
                    let (channel, unwritten) = (&self.opened.channel, &self.opened.unwritten);
                    self.confirms
                        .push(publish(channel.clone(), unwritten.clone(), sequence, wire).boxed());
                }
                Err(error) => slot.fill(Err(error)),
            }
        }
    }

    /// Looks at every confirm that is complete, and only then decides what they mean: see
    /// [`returns`].
    fn look_through(&mut self, task: &Task, first: Complete) -> Option<End> {
        let mut broken = None;
        let mut complete = Some(first);
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        loop {
            if let Some(complete) = complete.take()
                && let Err(error) = report(&mut self.ledger, complete)
                && !broken
                    .as_ref()
                    .is_some_and(|known| !matches!(known, PublishError::Lost(_)))
            {
                // What the broker said goes before what followed from it.
                broken = Some(error);
            }
            match self
                .confirms
                .poll_next_unpin(&mut Context::from_waker(&waker))
            {
                Poll::Ready(Some(next)) => complete = Some(next),
                // It also pauses with more to come, and then wakes the waker at once.
                Poll::Pending if woken.0.swap(false, Ordering::Relaxed) => {}
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
        let mut missing = false;
        self.ledger.decide(|slot, answer| {
            missing |= matches!(answer, Answer::Returned(_));
            task.stalled.store(false, Ordering::Relaxed);
            slot.fill(match answer {
                Answer::Confirmed => Ok(()),
                Answer::Nacked => Err(PublishError::Nacked),
                Answer::Returned(words) => Err(PublishError::Returned(words)),
            });
        });
        if let Some(error) = broken {
            return Some(self.fail_all(|_| error.clone()));
        }
        // If somebody deleted a queue that we declare, opening the channel again declares it again.
        let declares = missing && task.declare.is_some();
        (declares && self.ledger.is_empty() && self.waiting.is_empty()).then_some(End::Broken)
    }

    /// Fails what has waited too long for its confirm.
    ///
    /// While the home broker blocks its publishers nothing does: given up, the messages would be
    /// published all the same when the alarm clears, and so twice.
    fn expire(&mut self, task: &Task) {
        let now = Instant::now();
        let blocked = self.opened.status.blocked();
        if blocked && task.source.waits_while_blocked() {
            self.ledger.give_up(|slot| {
                slot.expires = now + slot.timeout;
                false
            });
            return;
        }
        for slot in self.ledger.give_up(|slot| slot.expires <= now) {
            task.stalled.store(true, Ordering::Relaxed);
            let error = if blocked {
                PublishError::Blocked
            } else {
                PublishError::Timeout(slot.timeout)
            };
            slot.fill(Err(error));
        }
    }

    fn fail_all(&mut self, error: impl Fn(&Slot) -> PublishError) -> End {
        let waiting = self.waiting.drain(..).map(|(slot, _)| slot);
        for slot in self.ledger.drain().chain(waiting) {
            let error = error(&slot);
            slot.fill(Err(error));
        }
        End::Broken
    }

    /// Lets go of the channel. To close one whose publishes are not written yet costs the whole
    /// connection, since the closing is written first: such a channel lives until they are.
    fn close(self, tasks: &TaskTracker) {
        if self.opened.written() {
            return;
        }
        let Self {
            opened,
            mut confirms,
            ..
        } = self;
        tasks.spawn(async move {
            while !opened.written() {
                // Ends when the connection does, at the latest.
                let _ = tokio::time::timeout(TICK, confirms.next()).await;
            }
        });
    }
}

/// Tells that a future wants to be polled again.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Complete = (u64, Result<Confirmation, lapin::Error>);

async fn publish(
    channel: Channel,
    unwritten: Arc<AtomicUsize>,
    sequence: u64,
    wire: Wire,
) -> Complete {
    unwritten.fetch_add(1, Ordering::Relaxed);
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
    unwritten.fetch_sub(1, Ordering::Relaxed);
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
