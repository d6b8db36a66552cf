//! What became of an attempt, on either half of the line: it is counted and said, and what moves the
//! delivery on is made of it. What follows from an outcome, [`settle`] decides.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::{
    broker::{consumer::Settler, message::Message},
    courses::{Courses, Place},
    delivery::{
        Attempt, Delivery, Outcome,
        settlement::{Settlement, settle},
        wire::{Consumed, Lanes},
    },
    subscriber::Subscriber,
    telemetry::{
        metrics::{Metrics, Transport},
        notices::Notices,
    },
};

/// Makes a first attempt outside the lanes, for a delivery whose event came over this session. Intake
/// calls it, and does not know who makes it.
pub type AttemptAtOnce =
    Arc<dyn Fn(Arc<Subscriber>, Place, Delivery, Settler) -> AtOnce + Send + Sync>;

/// Such an attempt. It gives the message that must be confirmed before the delivery counts as
/// settled, if there is one.
pub type AtOnce = BoxFuture<'static, Result<Option<Message>, SessionOver>>;

/// The session ended before the delivery was settled, so the broker delivers its event again.
pub struct SessionOver;

/// What an attempt led to.
pub struct Attempted {
    /// How it ended.
    pub outcome: Outcome,
    /// How it travelled.
    pub transport: Transport,
    /// How long it took; absent where nothing was sent.
    pub took: Option<Duration>,
}

/// Takes note of outcomes. Cheap to clone.
#[derive(Clone)]
pub struct Outcomes {
    /// The form of the bridge's own messages.
    pub lanes: Lanes,
    /// How subscribers do.
    pub courses: Arc<Courses>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Where it is said.
    pub notices: Arc<Notices>,
}

impl Outcomes {
    /// Settles an attempt: gives the message that must be confirmed before the delivery may be
    /// acknowledged where it was, if there is one.
    pub fn settle(
        &self,
        consumed: &Consumed,
        attempt: Attempt,
        attempted: Attempted,
    ) -> Option<Message> {
        let delivery = &consumed.delivery;
        let transport = attempted.transport;
        let now = Timestamp::now();
        self.count(delivery, attempt, &attempted);
        let settlement = settle(attempt, attempted.outcome);
        self.notices.settled(delivery, attempt, &settlement);
        match settlement {
            Settlement::Done => {
                let latency = delivery.age(now);
                self.metrics.delivered(delivery.kind, transport, latency);
                None
            }
            Settlement::Retry(failure) => {
                Some(self.lanes.retry(delivery, consumed.pace, &failure, now))
            }
            Settlement::Dead(failure) => {
                self.metrics.dead(delivery.kind, transport);
                Some(self.lanes.dead(consumed, attempt, &failure, now))
            }
        }
    }

    /// Counts an attempt that nothing follows from: it outlived its session, so the broker has put
    /// the delivery back, and what would be published now would be a second one.
    pub fn count(&self, delivery: &Delivery, attempt: Attempt, attempted: &Attempted) {
        let (id, outcome) = (&delivery.subscriber, &attempted.outcome);
        let took = attempted.took;
        self.courses.ended(id, outcome, took, Timestamp::now());
        self.metrics
            .attempt(attempted.transport, attempt, outcome, took);
    }
}
