//! How each subscriber does: how many attempts it has under way, whether it is slow, and how its
//! last attempts ended. Counted in this bridge alone.
//!
//! A subscriber is *slow* when it holds up too much: when `LATE_AT_ONCE` of its attempts under way
//! have taken longer than [`LATE`], or one did not begin within `PATIENCE` because as many were
//! under way as there may be. A slow subscriber has few attempts under way, and its deliveries go
//! through the slow lanes, where they hold up nobody who is quick. How it becomes quick again,
//! `pace` says.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use url::Url;

use crate::{
    delivery::{self, Outcome},
    subscriber::{AmqpTarget, Subscriber, SubscriberId, Target, address},
    telemetry::{
        notices::Notices,
        status::{LastFailure, Status},
    },
};

mod pace;

use pace::Pace;

/// An attempt that takes longer than this is late.
pub const LATE: Duration = Duration::from_secs(1);
/// How long a delivery waits for its subscriber's turn before it goes to a slow lane, or to the end
/// of the slow lane that it is in.
const PATIENCE: Duration = Duration::from_millis(500);
/// Nothing is attempted at once that would wait longer than this for its turn: an event waits with it,
/// and intake has room for so many only.
const SOON: Duration = Duration::from_millis(100);
/// So many late attempts under way make a subscriber slow.
const LATE_AT_ONCE: usize = 16;
/// Attempts that a slow subscriber may have under way.
const FEW: usize = 8;
/// Attempts under way at one host, whoever's they are: many subscribers may share one.
pub const HOST_LIMIT: usize = 256;

/// The courses of all subscribers that had an attempt.
pub struct Courses {
    all: Mutex<HashMap<SubscriberId, Known>>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    slow_lanes: Arc<SlowLanes>,
    notices: Arc<Notices>,
}

/// How many slow subscribers are in each slow lane.
type SlowLanes = HashMap<u32, AtomicUsize>;

/// A course, and the subscriber as it was when that was last asked for.
type Known = (Arc<Subscriber>, Arc<Course>);

/// How one subscriber does.
pub struct Course {
    id: SubscriberId,
    permits: Arc<Semaphore>,
    host: Option<Host>,
    /// As [`State`] has them, for those who only look.
    slow: AtomicBool,
    allowed: AtomicUsize,
    /// Whether the last attempt was not late, or delivered.
    prompt: AtomicBool,
    /// What an attempt takes, about, in microseconds.
    usual: AtomicU64,
    /// Attempts under way or waiting for their turn, in the lanes and outside.
    queued: AtomicUsize,
    failures_in_a_row: AtomicU64,
    state: Mutex<State>,
    /// Its slow lane, and who else is there.
    slow_lane: u32,
    slow_lanes: Arc<SlowLanes>,
    notices: Arc<Notices>,
}

/// Where a subscriber's target is, unless that is the home broker.
struct Host {
    address: String,
    /// Shared with whoever has a target there.
    permits: Arc<Semaphore>,
}

struct State {
    pace: Pace,
    /// Attempts under way that are late.
    late: usize,
    /// As the subscriber asks.
    max_in_flight: usize,
    /// What it may have now: less while it is slow.
    allowed: usize,
    /// Permits in use that are too many since the limit was lowered: each goes when it comes back.
    surplus: usize,
    last_success: Option<Timestamp>,
    last_failure: Option<LastFailure>,
}

/// One attempt may be under way; it is over when this is dropped.
pub struct Permit {
    _own: OwnedSemaphorePermit,
    _host: Option<OwnedSemaphorePermit>,
    /// Its place, if nobody else has it.
    _place: Option<Place>,
}

/// An attempt that is late; it is over when this is dropped.
pub struct Late<'a>(&'a Course);

/// The place of an attempt among those of its subscriber, until it is over and this is dropped.
pub struct Place(Arc<Course>);

impl Courses {
    /// Nobody's course yet. `notices` hears who becomes slow.
    pub fn new(notices: Arc<Notices>) -> Self {
        Self {
            all: Mutex::default(),
            hosts: Mutex::default(),
            slow_lanes: Arc::new(
                (0..delivery::Pace::Slow.lanes())
                    .map(|lane| (lane, AtomicUsize::new(0)))
                    .collect(),
            ),
            notices,
        }
    }

    /// The course of this subscriber, with its limit as it is now. One with another target begins
    /// anew: what was known says nothing about that.
    pub fn of(&self, subscriber: &Arc<Subscriber>) -> Arc<Course> {
        let mut all = lock(&self.all);
        let known = all.get_mut(&subscriber.id);
        if let Some((seen, course)) = known {
            if Arc::ptr_eq(seen, subscriber) {
                return course.clone();
            }
            if course.host.as_ref().map(|host| &host.address) == place(&subscriber.target).as_ref()
            {
                *seen = subscriber.clone();
                course.ask(subscriber.max_in_flight);
                return course.clone();
            }
        }
        let course = Arc::new(Course {
            id: subscriber.id.clone(),
            permits: Arc::new(Semaphore::new(subscriber.max_in_flight)),
            host: place(&subscriber.target).map(|address| self.host(address)),
            slow: AtomicBool::new(false),
            allowed: AtomicUsize::new(subscriber.max_in_flight),
            prompt: AtomicBool::new(false),
            usual: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            failures_in_a_row: AtomicU64::new(0),
            state: Mutex::new(State {
                pace: Pace::default(),
                late: 0,
                max_in_flight: subscriber.max_in_flight,
                allowed: subscriber.max_in_flight,
                surplus: 0,
                last_success: None,
                last_failure: None,
            }),
            slow_lane: delivery::lane(delivery::Pace::Slow, &subscriber.id),
            slow_lanes: self.slow_lanes.clone(),
            notices: self.notices.clone(),
        });
        all.insert(subscriber.id.clone(), (subscriber.clone(), course.clone()));
        course
    }

    fn host(&self, address: String) -> Host {
        let mut hosts = lock(&self.hosts);
        let permits = hosts.entry(address.clone());
        let permits = permits.or_insert_with(|| Arc::new(Semaphore::new(HOST_LIMIT)));
        Host {
            permits: permits.clone(),
            address,
        }
    }

    /// How an attempt ended that `took` so long, if it was made.
    pub fn ended(
        &self,
        id: &SubscriberId,
        outcome: &Outcome,
        took: Option<Duration>,
        now: Timestamp,
    ) {
        let Some((_, course)) = lock(&self.all).get(id).cloned() else {
            return;
        };
        let delivered = matches!(outcome, Outcome::Delivered);
        let prompt = delivered || took.is_some_and(|took| took <= LATE);
        course.prompt.store(prompt, Ordering::Relaxed);
        let mut state = lock(&course.state);
        match outcome {
            Outcome::Delivered => {
                state.last_success = Some(now);
                course.failures_in_a_row.store(0, Ordering::Relaxed);
            }
            Outcome::Failed(failure) => {
                state.last_failure = Some(LastFailure {
                    at: now,
                    reason: failure.reason,
                    detail: failure.detail.clone(),
                });
                course.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How a subscriber does, if it had an attempt in this bridge.
    pub fn status(&self, id: &SubscriberId) -> Option<Status> {
        let course = lock(&self.all).get(id)?.1.clone();
        let state = lock(&course.state);
        let free = course.permits.available_permits();
        Some(Status {
            last_success: state.last_success,
            last_failure: state.last_failure.clone(),
            failures_in_a_row: course.failures_in_a_row.load(Ordering::Relaxed),
            in_flight: (state.allowed + state.surplus).saturating_sub(free),
            slow: course.slow(),
        })
    }

    /// How many subscribers are slow.
    pub fn slow(&self) -> usize {
        let all = lock(&self.all);
        all.values().filter(|(_, course)| course.slow()).count()
    }

    /// Whether several slow subscribers have this slow lane.
    pub fn share(&self, slow_lane: u32) -> bool {
        let slow = self.slow_lanes.get(&slow_lane);
        slow.is_some_and(|slow| slow.load(Ordering::Relaxed) > 1)
    }

    /// The subscribers with the most failures in a row, the worst first, at most `most` of them.
    pub fn worst(&self, most: usize) -> Vec<(SubscriberId, u64)> {
        let failing = |(id, (_, course)): (&SubscriberId, &Known)| {
            let count = course.failures_in_a_row.load(Ordering::Relaxed);
            (count > 0).then(|| (id.clone(), count))
        };
        let mut worst: Vec<_> = lock(&self.all).iter().filter_map(failing).collect();
        worst.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        worst.truncate(most);
        worst
    }

    /// Forgets subscribers that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&SubscriberId) -> bool) {
        lock(&self.all).retain(|id, _| wanted(id));
        // The map has the only handle on a host that nobody has a course at.
        lock(&self.hosts).retain(|_, host| Arc::strong_count(host) > 1);
    }
}

impl Course {
    /// Whether deliveries go through the slow lanes.
    pub fn slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// The place of a first attempt outside the lanes, if one may be made: the subscriber is quick, its
    /// last attempt did not fail late, and its turn comes soon. An event waits for it, which comes
    /// again as a whole after a crash, and others are behind it.
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        if self.slow() || !self.prompt.load(Ordering::Relaxed) {
            return None;
        }
        let queued = self.queued.load(Ordering::Relaxed);
        let allowed = self.allowed.load(Ordering::Relaxed);
        let soon = allowed as u128 * SOON.as_micros();
        let usual = u128::from(self.usual.load(Ordering::Relaxed));
        if queued >= allowed && queued as u128 * usual > soon {
            return None;
        }
        Some(Place::new(self))
    }

    /// [`Place::turn`] for one more attempt, in a lane.
    pub async fn turn(self: &Arc<Self>) -> Option<Permit> {
        let place = Place::new(self);
        let permit = place.turn().await?;
        Some(Permit {
            _place: Some(place),
            ..permit
        })
    }

    async fn permit(&self) -> Option<Permit> {
        let until = Instant::now() + PATIENCE;
        let own = loop {
            let Some(permit) = acquired(&self.permits, until).await else {
                self.slow_down(&mut lock(&self.state));
                return None;
            };
            let mut state = lock(&self.state);
            if state.surplus == 0 {
                break permit;
            }
            state.surplus -= 1;
            permit.forget();
        };
        let host = match &self.host {
            Some(host) => Some(acquired(&host.permits, until).await?),
            None => None,
        };
        Some(Permit {
            _own: own,
            _host: host,
            _place: None,
        })
    }

    /// An attempt under way is late.
    pub fn late(&self) -> Late<'_> {
        let mut state = lock(&self.state);
        state.late += 1;
        if state.late >= LATE_AT_ONCE {
            self.slow_down(&mut state);
        }
        self.note(&mut state, true);
        drop(state);
        self.took(LATE);
        Late(self)
    }

    /// An attempt was over in good time, however it ended, and `took` so long.
    pub fn quick(&self, took: Duration) {
        self.note(&mut lock(&self.state), false);
        self.took(took);
    }

    /// Has what attempts usually take follow what they take now.
    fn took(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let usual = self.usual.load(Ordering::Relaxed);
        // One that is lost between two who do this makes no difference.
        let usual = usual - usual / 8 + took / 8;
        self.usual.store(usual, Ordering::Relaxed);
    }

    fn slow_down(&self, state: &mut State) {
        if state.pace.slow_down(std::time::Instant::now()) {
            self.changed(state, true);
        }
    }

    fn note(&self, state: &mut State, late: bool) {
        if state.pace.note(late, std::time::Instant::now()) {
            self.changed(state, false);
        }
    }

    fn changed(&self, state: &mut State, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
        self.count_slow(slow);
        self.allow(state, slow);
        self.notices.pace(&self.id, slow);
    }

    fn count_slow(&self, slow: bool) {
        if let Some(count) = self.slow_lanes.get(&self.slow_lane) {
            if slow {
                count.fetch_add(1, Ordering::Relaxed);
            } else {
                count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes the subscriber's limit as it is now.
    fn ask(&self, max_in_flight: usize) {
        let mut state = lock(&self.state);
        state.max_in_flight = max_in_flight;
        self.allow(&mut state, self.slow());
    }

    fn allow(&self, state: &mut State, slow: bool) {
        state.allow(slow, &self.permits);
        self.allowed.store(state.allowed, Ordering::Relaxed);
    }
}

impl Place {
    fn new(course: &Arc<Course>) -> Self {
        course.queued.fetch_add(1, Ordering::Relaxed);
        Self(course.clone())
    }

    /// Waits for the turn of the attempt; `None` when that has taken too long. If it is the
    /// subscriber's own attempts that it waited for, that makes it slow.
    pub async fn turn(&self) -> Option<Permit> {
        self.0.permit().await
    }

    /// How the subscriber does.
    pub fn course(&self) -> &Course {
        &self.0
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        if self.slow() {
            self.count_slow(false);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).late -= 1;
    }
}

impl State {
    /// Allows a slow subscriber few attempts, and a quick one as many as it asks for.
    fn allow(&mut self, slow: bool, permits: &Semaphore) {
        let most = if slow { FEW } else { usize::MAX };
        let allowed = self.max_in_flight.min(most);
        if allowed > self.allowed {
            let more = allowed - self.allowed;
            let kept = more.min(self.surplus);
            self.surplus -= kept;
            permits.add_permits(more - kept);
        } else {
            let fewer = self.allowed - allowed;
            self.surplus += fewer - permits.forget_permits(fewer);
        }
        self.allowed = allowed;
    }
}

/// A permit, if there is one in time.
async fn acquired(permits: &Arc<Semaphore>, until: Instant) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = permits.clone().try_acquire_owned() {
        return Some(permit);
    }
    let waited = timeout_at(until, permits.clone().acquire_owned()).await;
    waited.ok()?.ok()
}

/// The host of a target; nothing for the home broker.
fn place(target: &Target) -> Option<String> {
    match target {
        Target::Http(http) => Some(address(&http.url)),
        Target::Amqp(AmqpTarget { broker, .. }) => {
            let uri = Url::parse(broker.as_ref()?.uri.expose_secret()).ok()?;
            Some(address(&uri))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
