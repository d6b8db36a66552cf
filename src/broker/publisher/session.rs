//! Publishing on one channel: what the window has room for goes out, each publish gets its answer, and
//! what gets none in time is given up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, PublisherConfirm, options::BasicPublishOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::task::TaskTracker;

use super::{
    PublishError, TICK, channel_error,
    jobs::{Job, Slot, Waiting, take},
    pulse::{Felt, Pulse},
    returns::{Answer, Ledger},
};
use crate::broker::{message::Wire, pool::Lease};

/// A channel that is full, and hears no confirm for this long, keeps nothing waiting once a publish on it
/// has been given up.
const SILENCE: Duration = Duration::from_secs(1);
/// A channel that is older than this, and on which the broker refuses a message, is worn: one that
/// met a quorum queue between two leaders has it refused for ever (seen on 3.10.8), and another
/// does not.
const FRESH: Duration = Duration::from_secs(1);
/// So often, in looks at the time, has a channel all on its way that it may have, and more to publish,
/// before it is outgrown.
const CROWDED: u32 = 5;
/// A channel without work for this long is closed.
const IDLE: Duration = Duration::from_mins(1);

/// Why a session on a channel ended.
pub(super) enum End {
    /// Nobody needs the channel for now, or any more.
    Idle,
    HandlesGone,
    /// The channel is closed, or its connection.
    Broken,
    /// The broker closed the channel over what was published there.
    Refused,
    /// The broker answers, but does not confirm, or refuses: what comes next gets another channel.
    Worn,
    /// There is always more to publish than may be on its way here: what comes next gets a
    /// connection of its own.
    Outgrown(OwnedSemaphorePermit),
}

/// What a session has to know of its publisher.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// How many publishes may be outstanding.
    pub(super) window: usize,
    /// Where there may be a connection of its own for more: room for those.
    pub(super) own_connections: Option<Arc<Semaphore>>,
    /// Whether this is the home broker, which is waited for while it blocks or says nothing.
    pub(super) home: bool,
    /// Whether opening the channel declares the queue.
    pub(super) declares: bool,
    /// Whether the last publish went without a confirm.
    pub(super) stalled: Arc<AtomicBool>,
    /// Whether a worn channel is being seen out.
    pub(super) seeing_out: Arc<AtomicBool>,
}

/// A channel to publish on, and what keeps its connection in use.
pub(super) struct Opened {
    pub(super) channel: Channel,
    /// Where the home broker is asked for a sign of life.
    pub(super) asking: Option<Channel>,
    pub(super) status: lapin::ConnectionStatus,
    /// Publishes that the client library has not written yet.
    pub(super) unwritten: Arc<AtomicUsize>,
    pub(super) _lease: Lease,
}

impl Opened {
    /// Whether nothing is left to write on this channel.
    fn written(&self) -> bool {
        let open = self.status.connected() && self.channel.status().connected();
        !open || self.unwritten.load(Ordering::Relaxed) == 0
    }
}

/// Publishing on one channel, from its opening to its end.
pub(super) struct Session {
    opened: Opened,
    terms: Terms,
    /// How many publishes may be outstanding here.
    window: usize,
    confirms: FuturesUnordered<BoxFuture<'static, Complete>>,
    ledger: Ledger<Slot>,
    pulse: Option<Pulse>,
    /// When it was opened.
    since: Instant,
    worn: bool,
    /// In how many looks at the time in a row there was more to publish than it may.
    crowded: u32,
    /// Messages taken from a job that the window has no room for yet.
    waiting: Waiting,
}

impl Session {
    /// If the broker `refused` what was published on the last channel, there is one publish at a time
    /// on this one, until it answers. What is on its way to a channel that it closes may be written
    /// after the client library's word on that, and the broker closes the whole connection over it,
    /// with the channels of others.
    pub(super) fn new(mut opened: Opened, terms: Terms, waiting: Waiting, refused: bool) -> Self {
        Self {
            window: if refused { 1 } else { terms.window },
            pulse: opened.asking.take().map(Pulse::new),
            opened,
            terms,
            confirms: FuturesUnordered::new(),
            ledger: Ledger::new(),
            since: Instant::now(),
            worn: false,
            crowded: 0,
            waiting,
        }
    }

    /// Publishes until the channel breaks or is worn, idles, or nobody is left to ask for more.
    pub(super) async fn run(&mut self, jobs: &mut mpsc::Receiver<Job>) -> End {
        let mut tick = ticks();
        let mut answered = Instant::now();
        let mut handles_gone = false;
        loop {
            self.admit();
            if handles_gone && self.confirms.is_empty() && self.waiting.is_empty() {
                return End::HandlesGone;
            }
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    if let Some(end) = self.look_at_the_time() {
                        return end;
                    }
                    if self.worn {
                        self.terms.seeing_out.store(true, Ordering::Relaxed);
                        return End::Worn;
                    }
                    let full = self.ledger.len() >= self.window;
                    if let Some(own) = self.outgrown(full && answered.elapsed() < TICK) {
                        self.terms.seeing_out.store(true, Ordering::Relaxed);
                        return End::Outgrown(own);
                    }
                    let stalled = self.terms.stalled.load(Ordering::Relaxed);
                    if full && stalled && answered.elapsed() >= SILENCE {
                        self.give_up_waiting();
                    }
                    if self.ledger.is_empty() && answered.elapsed() >= IDLE {
                        return End::Idle;
                    }
                }
                Some(complete) = self.confirms.next(), if !self.confirms.is_empty() => {
                    answered = Instant::now();
                    if let Some(end) = self.look_through(complete) {
                        return end;
                    }
                }
                job = jobs.recv(), if !handles_gone && self.waiting.is_empty() => match job {
                    Some(job) => take(job, &mut self.waiting),
                    None => handles_gone = true,
                },
            }
        }
    }

    /// The right to a connection of its own, if it needs one: it is `busy`, and has been for a while.
    fn outgrown(&mut self, busy: bool) -> Option<OwnedSemaphorePermit> {
        if !busy || self.waiting.is_empty() || self.on_trial() {
            self.crowded = 0;
            return None;
        }
        self.crowded += 1;
        if self.crowded < CROWDED || !self.alone() {
            return None;
        }
        let room = self.terms.own_connections.as_ref()?;
        Arc::clone(room).try_acquire_owned().ok()
    }

    /// Whether this channel is on trial, and the broker has not answered yet.
    pub(super) fn on_trial(&self) -> bool {
        self.window < self.terms.window
    }

    /// What has not been published here, for another channel.
    pub(super) fn take_waiting(&mut self) -> Waiting {
        std::mem::take(&mut self.waiting)
    }

    /// Waits until everything that was published here is answered, and takes nothing on. The channel
    /// stays open for what is given up, too: to close one over a queue that does not answer holds up
    /// the whole connection (seen on 3.10.8).
    pub(super) async fn see_out(mut self, tasks: TaskTracker) {
        let mut tick = ticks();
        while !self.confirms.is_empty() {
            let end = tokio::select! {
                biased;
                _ = tick.tick() => self.look_at_the_time(),
                Some(complete) = self.confirms.next() => self.look_through(complete),
            };
            if end.is_some() {
                break;
            }
        }
        self.terms.seeing_out.store(false, Ordering::Relaxed);
        self.close(&tasks);
    }

    /// Publishes what the window has room for. The time that a message is given begins here.
    fn admit(&mut self) {
        while !self.worn && self.ledger.len() < self.window {
            let Some((mut slot, message)) = self.waiting.pop_front() else {
                return;
            };
            let message_id = message.message_id.clone();
            match Wire::new(message) {
                Ok(wire) => {
                    slot.begin(Instant::now());
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
    fn look_through(&mut self, first: Complete) -> Option<End> {
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
        let (mut missing, mut refused) = (false, false);
        self.ledger.decide(|slot, answer| {
            self.window = self.terms.window;
            missing |= matches!(answer, Answer::Returned(_));
            refused |= matches!(answer, Answer::Nacked);
            self.terms.stalled.store(false, Ordering::Relaxed);
            slot.fill(match answer {
                Answer::Confirmed => Ok(()),
                Answer::Nacked => Err(PublishError::Nacked),
                Answer::Returned(words) => Err(PublishError::Returned(words)),
            });
        });
        self.worn |= refused && self.alone() && self.since.elapsed() >= FRESH;
        if let Some(error) = broken {
            let end = self.fail_all(|_| error.clone());
            return Some(match error {
                PublishError::ChannelClosed(_) | PublishError::AccessRefused(_) => End::Refused,
                _ => end,
            });
        }
        // If somebody deleted a queue that we declare, opening the channel again declares it again.
        let declares = missing && self.terms.declares;
        (declares && self.ledger.is_empty() && self.waiting.is_empty()).then_some(End::Broken)
    }

    /// Ends what has no connection any more, and gives up what has waited too long.
    fn look_at_the_time(&mut self) -> Option<End> {
        if !self.opened.status.connected() {
            return Some(self.fail_all(|_| PublishError::Lost("the connection is gone".into())));
        }
        self.expire(Instant::now());
        None
    }

    /// Fails what has waited too long for its confirm, and sees whether the channel is worn.
    ///
    /// While the home broker blocks its publishers nothing fails: given up, the messages would be
    /// published all the same when the alarm clears, and so twice. On a line that is silent they
    /// might, too: see [`Pulse`].
    fn expire(&mut self, now: Instant) {
        let blocked = self.opened.status.blocked();
        if blocked && self.terms.home {
            self.for_each(|slot| slot.begin(now));
            return;
        }
        let mut due = false;
        self.for_each(|slot| due |= slot.wears <= now);
        if !due {
            self.pulse.iter_mut().for_each(Pulse::forget);
            return;
        }
        let heard = match self.pulse.as_mut().map(|pulse| pulse.feel(now)) {
            Some(Some(Felt::Awake(since))) => Some(since),
            Some(Some(Felt::Woken)) => {
                self.for_each(|slot| slot.begin_anew(now));
                return;
            }
            Some(None) => None,
            None => Some(now),
        };
        let before = |time: Instant| heard.is_some_and(|heard| time <= heard);
        let mut worn = false;
        self.for_each(|slot| worn |= before(slot.wears));
        let over = |slot: &mut Slot| before(slot.expires) || slot.latest <= now;
        let given_up = self.ledger.give_up(over);
        self.worn |= self.alone() && (!given_up.is_empty() || worn && self.terms.home);
        for slot in given_up {
            self.terms.stalled.store(true, Ordering::Relaxed);
            let error = if blocked {
                PublishError::Blocked
            } else {
                PublishError::Timeout(slot.timeout)
            };
            slot.fill(Err(error));
        }
    }

    /// Whether no other channel is being seen out. There is one at a time: where another channel does
    /// not help, there is no use in more of them.
    fn alone(&self) -> bool {
        !self.terms.seeing_out.load(Ordering::Relaxed)
    }

    /// Does something to every publish that is without its answer.
    fn for_each(&mut self, mut change: impl FnMut(&mut Slot)) {
        self.ledger.give_up(|slot| {
            change(slot);
            false
        });
    }

    /// Fails what has not been published yet.
    fn give_up_waiting(&mut self) {
        for (slot, _) in self.waiting.drain(..) {
            let error = PublishError::Timeout(slot.timeout);
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
    pub(super) fn close(self, tasks: &TaskTracker) {
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

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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
