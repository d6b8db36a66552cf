//! First half of the line: takes domain events in, makes the deliveries of each, and hands these on.
//! An event is acknowledged only when every delivery made of it is settled, or confirmed to be in a queue.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        connection::OPERATION_TIMEOUT,
        consumer::{Session, Settler},
        home::Home,
        message::Message,
        publisher::{PublishError, Publisher},
        publishers::Publishers,
    },
    delivery::{
        Attempt, Delivery, Outcome, addressed,
        wire::{self, Consumed, Lanes},
    },
    outcomes::{AtOnce, AttemptAtOnce, Attempted, Outcomes, SessionOver},
    settings::SourceSettings,
    subscriber::{LiveSubscribers, SubscriberId},
    telemetry::{
        metrics::{Metrics, Transport},
        notices::Notices,
        traces::Traces,
    },
};

mod gathering;
mod gauge;
mod plan;
mod trouble;
mod window;

use gathering::Gathered;
use gauge::{Gauge, Share};
use plan::{Direct, Plan, Waits};
pub use trouble::Trouble;
use window::{Held, Window};

/// Events dealt with together: a quarter of the usual prefetch, so that four batches overlap.
const BATCH: usize = 256;
/// The pause before the broker is asked again to take what it did not confirm.
const PAUSE: Duration = Duration::from_millis(500);
/// While so many messages are being published, the next batch gathers: few large ones move more than
/// many small ones.
const PUBLISHING: usize = 2 * BATCH;
/// How long it gathers at most, so that what a stuck queue holds up delays nobody by more.
const GATHERING: Duration = Duration::from_millis(5);
/// Deliveries of one session that are not settled; intake takes no more while there are as many.
const UNSETTLED: usize = 8_192;
/// Events that wait to be looked at by who gathers, which is never long.
const GATHERED: usize = 64;
/// How long intake waits while half of what it may hold waits for attempts. Subscribers that are
/// quick make room sooner; if there is none, what comes goes to the lanes.
const ROOM: Duration = Duration::from_millis(100);

/// What intake needs.
pub struct Intake {
    /// What is taken in.
    pub source: SourceSettings,
    /// How long a subscriber's queue may take to confirm.
    pub timeout: Duration,
    /// The form of the bridge's own messages.
    pub lanes: Lanes,
    /// Publishes them.
    pub publisher: Publisher,
    /// Brings the topology back.
    pub broker: Arc<Home>,
    /// Publish to subscribers' queues on the home broker.
    pub home: Arc<Publishers<SubscriberId>>,
    /// Makes attempts elsewhere.
    pub at_once: AttemptAtOnce,
    /// What becomes of attempts.
    pub outcomes: Outcomes,
    /// Who gets what.
    pub subscribers: LiveSubscribers,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Where it is said.
    pub notices: Arc<Notices>,
    /// Where it is traced.
    pub traces: Traces,
    /// Whether the broker takes what is published.
    pub trouble: Trouble,
    /// Knows the batches under way.
    pub tasks: TaskTracker,
}

/// What a plan counts as until it is carried out.
struct Shares {
    /// Without those for slow lanes that are gathered.
    deliveries: Share,
    _publishing: Share,
    /// Those attempts that are not tasks of their own yet.
    attempts: Share,
}

/// Where deliveries for slow lanes are gathered.
#[derive(Clone)]
struct Slow {
    gathered: mpsc::Sender<Gathered>,
    /// How many make a batch that does not wait any longer.
    together: usize,
}

impl Intake {
    /// Takes events in for one session of the consumer.
    pub async fn work(self: Arc<Self>, mut session: Session) {
        let window = Window::new(session.settler(), self.tasks.clone());
        let gauge = || Arc::new(Gauge::default());
        let (attempts, deliveries, publishing) = (gauge(), gauge(), gauge());
        let (gathered, to_hand_over) = mpsc::channel(GATHERED);
        self.tasks
            .spawn(self.clone().hand_over(to_hand_over, window.clone()));
        loop {
            // Whether it is the time that is up does not matter.
            let _ = timeout(GATHERING, publishing.below(PUBLISHING)).await;
            let Some(chunk) = session.next(BATCH).await else {
                return;
            };
            window.take(
                chunk.iter().map(|received| received.tag),
                session.prefetch(),
            );
            let most = usize::from(session.prefetch()).div_ceil(2);
            let slow = Slow {
                gathered: gathered.clone(),
                together: usize::from(session.prefetch()).div_ceil(8),
            };
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                deliveries.below(UNSETTLED).await;
                let room = timeout(ROOM, attempts.below(most)).await.is_ok();
                let plan = self.plan(&mut rest, if room { most } else { 0 }, window.settler());
                let shares = Shares {
                    deliveries: deliveries.add(plan.deliveries),
                    _publishing: publishing.add(plan.messages()),
                    attempts: attempts.add(plan.attempts),
                };
                self.tasks.spawn(
                    self.clone()
                        .see_to(plan, window.clone(), shares, slow.clone()),
                );
            }
        }
    }

    /// Carries out what is planned, and has the events acknowledged as they are settled.
    async fn see_to(
        self: Arc<Self>,
        mut plan: Plan,
        window: Arc<Window>,
        mut shares: Shares,
        slow: Slow,
    ) {
        let mut holding = Vec::with_capacity(plan.waiting.len());
        for waits in plan.waiting.drain(..) {
            holding.push(self.hold(waits, &window, &mut shares, &slow).await);
        }
        drop(slow);
        let others = std::mem::take(&mut plan.others);
        if self.carry_out(plan, window.settler()).await {
            window.settled(others);
            for held in holding {
                window.part_settled(&held);
            }
        }
    }

    /// Begins all that an event waits for.
    async fn hold(
        self: &Arc<Self>,
        waits: Waits,
        window: &Arc<Window>,
        shares: &mut Shares,
        slow: &Slow,
    ) -> Arc<Held> {
        let gathers = !waits.slow.is_empty();
        let parts = waits.at_once.len() + usize::from(gathers);
        let held = Arc::new(Held::new(waits.tag, parts));
        for attempt in waits.at_once {
            let one = shares.attempts.split(1);
            let (intake, window, held) = (self.clone(), window.clone(), held.clone());
            self.tasks.spawn(async move {
                let done = intake.settle_one(attempt, window.settler()).await;
                drop(one);
                if done {
                    window.part_settled(&held);
                }
            });
        }
        if gathers {
            let gathered = Gathered {
                share: shares.deliveries.split(waits.slow.len()),
                messages: waits.slow,
                held: held.clone(),
                together: slow.together,
            };
            // Somebody takes it for as long as a sender is there.
            let _ = slow.gathered.send(gathered).await;
        }
        held
    }

    /// Sees an attempt through. Tells whether its delivery is settled; if not, the session is dead.
    async fn settle_one(&self, attempt: AtOnce, settler: &Settler) -> bool {
        match attempt.await {
            Ok(None) => true,
            Ok(Some(message)) => self.publish_until_confirmed(vec![message], settler).await,
            Err(SessionOver) => false,
        }
    }

    /// Publishes everything, until all of it is confirmed or the session is dead and the broker
    /// delivers the events again. Tells which.
    async fn carry_out(&self, plan: Plan, settler: &Settler) -> bool {
        let hand_offs = join_all(
            plan.direct
                .into_values()
                .map(|direct| self.hand_off(direct, settler)),
        );
        let (laned, follow_ups) =
            tokio::join!(self.publish_until_confirmed(plan.lanes, settler), hand_offs);
        let follow_ups: Option<Vec<Vec<Message>>> = follow_ups.into_iter().collect();
        let Some(follow_ups) = follow_ups else {
            return false;
        };
        let follow_ups = follow_ups.into_iter().flatten().collect();
        if !laned || !self.publish_until_confirmed(follow_ups, settler).await {
            return false;
        }
        for (kind, result) in plan.results {
            self.metrics.event(kind, result);
        }
        true
    }

    /// Attempts deliveries to a queue on the home broker. Gives the messages that settle those that
    /// failed, or nothing if the session died first.
    async fn hand_off(&self, direct: Direct, settler: &Settler) -> Option<Vec<Message>> {
        let Direct {
            subscriber,
            target,
            publisher,
            mut deliveries,
        } = direct;
        let mut follow_ups = Vec::new();
        while !deliveries.is_empty() {
            let began = Instant::now();
            let now = Timestamp::now();
            let mut messages = Vec::with_capacity(deliveries.len());
            let mut published = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                let span = self
                    .traces
                    .attempt(&delivery, Attempt::First, Transport::Amqp);
                let traced = span.as_ref().map(|span| span.within(&delivery));
                let carried = traced.as_deref().unwrap_or(&delivery);
                match addressed::message(&subscriber, &target, carried, Attempt::First, now) {
                    Ok(message) => {
                        messages.push(message);
                        published.push((delivery, span));
                    }
                    Err(failure) => {
                        let outcome = Outcome::Failed(failure);
                        if let Some(span) = span {
                            span.ended(&outcome);
                        }
                        follow_ups.extend(self.settle(delivery, outcome, None));
                    }
                }
            }
            let results = publisher.publish(messages, self.timeout).await;
            let took = began.elapsed();
            deliveries = Vec::new();
            for ((delivery, span), result) in published.into_iter().zip(&results) {
                if let Some(outcome) = addressed::outcome(&subscriber, true, result) {
                    if let Some(span) = span {
                        span.ended(&outcome);
                    }
                    follow_ups.extend(self.settle(delivery, outcome, Some(took)));
                    continue;
                }
                if let Err(error) = result
                    && let Some(shortage) = error.shortage()
                {
                    self.notices.wanting(&delivery, shortage);
                }
                deliveries.push(delivery);
            }
            if !deliveries.is_empty() {
                if !settler.alive() {
                    return None;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Some(follow_ups)
    }

    /// Settles a first attempt that was made here; gives the message that moves a failed delivery on.
    fn settle(
        &self,
        delivery: Delivery,
        outcome: Outcome,
        took: Option<Duration>,
    ) -> Option<Message> {
        let attempted = Attempted {
            outcome,
            transport: Transport::Amqp,
            took,
        };
        let consumed = Consumed::fresh(delivery);
        self.outcomes.settle(&consumed, Attempt::First, attempted)
    }

    /// Publishes to the bridge's own exchanges until every message is confirmed, or the session is
    /// dead. Tells which.
    async fn publish_until_confirmed(&self, mut messages: Vec<Message>, settler: &Settler) -> bool {
        let mut stuck = None;
        let _spans = self.traces.publish(wire::traced(&messages));
        while !messages.is_empty() {
            let results = self
                .publisher
                .publish(messages.clone(), OPERATION_TIMEOUT)
                .await;
            let mut error = None;
            let mut results = results.into_iter();
            messages.retain(|_| match results.next() {
                Some(Ok(())) => false,
                Some(Err(why)) => {
                    error = Some(why);
                    true
                }
                None => true,
            });
            let Some(error) = error else { break };
            if !settler.alive() {
                return false;
            }
            match &stuck {
                None => stuck = Some(self.trouble.stuck(&error)),
                Some(stuck) => stuck.still(&error),
            }
            if matches!(
                error,
                PublishError::ChannelClosed(_) | PublishError::Returned(_)
            ) {
                // Somebody deleted an exchange or a queue.
                self.broker.repair_now().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(stuck) = stuck {
            stuck.taken();
        }
        true
    }
}
