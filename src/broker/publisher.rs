//! Publishing, mandatory and confirmed: one task for each channel, which others reach through a
//! bounded queue. Two tasks that publish on one channel would be given each other's confirms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPSoftError},
};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{connection::ConnectError, message::Message, pool::Source};
use crate::lack::Shortage;

mod jobs;
mod opening;
mod pulse;
mod returns;
mod session;

use jobs::{Job, Waiting, take};
use opening::Opening;
use session::{End, Session, Terms};

/// Publishes outstanding on one channel. More than about a thousand gain nothing.
const WINDOW: usize = 1_024;
/// The same where others publish over the connection, too. The broker stops reading a connection
/// that has 400 publishes before a channel whose queue does not take them, and grants these in
/// steps of 200: with fewer on their way, a queue in trouble holds up nobody else.
const SHARED_WINDOW: usize = 192;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Jobs that may wait for the task.
const JOBS: usize = 64;

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
    /// All channels that the broker allows on the connection are open.
    #[error("the broker allows no more channels on the connection (channel_max)")]
    NoChannel,
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

impl PublishError {
    /// What the bridge itself lacked for a connection, if that is why there was none.
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Unavailable(error) => Some(Shortage {
                lack: error.lack()?,
                detail: error.to_string(),
            }),
            _ => None,
        }
    }

    /// Why it failed, with the remedy where there is one here.
    pub fn told(&self) -> String {
        match self.shortage() {
            Some(Shortage { lack, detail }) => lack.told(detail),
            None => self.to_string(),
        }
    }
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

impl Publisher {
    /// Starts the task of a publisher that takes its connections from `source` and declares the
    /// queue `declare` whenever its channel opens. It ends when the last handle is dropped.
    pub fn start(source: Source, declare: Option<String>, tasks: &TaskTracker) -> Self {
        Self::with_window(WINDOW, source, declare, None, tasks)
    }

    /// [`Self::start`] for one of many that share connections, and must not hold each other up. One
    /// that has always more to publish than it may gets a connection of its own while
    /// `own_connections` has room, until it has nothing to publish for a while.
    pub(super) fn start_shared(
        source: Source,
        declare: Option<String>,
        own_connections: Arc<Semaphore>,
        tasks: &TaskTracker,
    ) -> Self {
        Self::with_window(SHARED_WINDOW, source, declare, Some(own_connections), tasks)
    }

    fn with_window(
        window: usize,
        source: Source,
        declare: Option<String>,
        own_connections: Option<Arc<Semaphore>>,
        tasks: &TaskTracker,
    ) -> Self {
        let (jobs, receiver) = mpsc::channel(JOBS);
        let stalled = Arc::new(AtomicBool::new(false));
        let task = Task {
            tasks: tasks.clone(),
            terms: Terms {
                window,
                own_connections,
                home: source.is_home(),
                declares: declare.is_some(),
                stalled: stalled.clone(),
                seeing_out: Arc::default(),
            },
            opening: Opening::new(source, declare),
            jobs: receiver,
        };
        tasks.spawn(task.run());
        Self { jobs, stalled }
    }

    /// Publishes messages and waits until each is confirmed or failed. `timeout` is how long a
    /// message may be without a confirm while the broker takes messages at all; on the home broker,
    /// while the broker answers at all.
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
    opening: Opening,
    jobs: mpsc::Receiver<Job>,
    terms: Terms,
}

impl Task {
    async fn run(mut self) {
        let mut waiting = Waiting::new();
        let (mut declared, mut refused) = (false, false);
        loop {
            if waiting.is_empty() {
                let Some(job) = self.jobs.recv().await else {
                    return;
                };
                take(job, &mut waiting);
            }
            let opened = match self.opening.open(declared).await {
                Ok(opened) => opened,
                Err(error) => {
                    let slow = matches!(error, PublishError::Timeout(_));
                    self.terms.stalled.store(slow, Ordering::Relaxed);
                    self.opening.may_ask_again();
                    while let Ok(job) = self.jobs.try_recv() {
                        take(job, &mut waiting);
                    }
                    for (slot, _) in waiting.drain(..) {
                        slot.fill(Err(error.clone()));
                    }
                    continue;
                }
            };
            let terms = self.opening.fit(self.terms.clone());
            let mut session = Session::new(opened, terms, waiting, refused);
            let end = session.run(&mut self.jobs).await;
            waiting = session.take_waiting();
            // Neither says anything against the queue, which may be slow to be declared again.
            declared = matches!(end, End::Worn | End::Outgrown(_));
            refused = session.on_trial() || matches!(end, End::Refused);
            match end {
                End::Outgrown(own) => {
                    self.opening.alone(own);
                    self.tasks.spawn(session.see_out(self.tasks.clone()));
                }
                End::Worn => {
                    self.tasks.spawn(session.see_out(self.tasks.clone()));
                }
                End::Idle => {
                    self.opening.with_all();
                    session.close(&self.tasks);
                }
                End::Broken | End::Refused => {
                    self.opening.may_ask_again();
                    session.close(&self.tasks);
                }
                End::HandlesGone => {
                    session.close(&self.tasks);
                    return;
                }
            }
        }
    }
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
        ErrorKind::ChannelsLimitReached => PublishError::NoChannel,
        _ => PublishError::Lost(error.to_string()),
    }
}
