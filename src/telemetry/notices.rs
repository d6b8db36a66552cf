//! What the log says about single messages and connections, each kind of line summed up: a fault
//! that lasts makes a handful of lines, not one for each message.

use std::{net::IpAddr, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::summary::Summary;
use crate::{
    delivery::{Attempt, Delivery, Failure, Reason, settlement::Settlement, wire::Malformed},
    event::{Rejection, RejectionReason},
    lack::{Lack, Shortage},
    subscriber::SubscriberId,
    webhook::WebhookType,
};

/// How often it is looked for counts whose time has come.
const SWEEP: Duration = Duration::from_secs(1);

/// Writes these lines.
#[derive(Debug)]
pub struct Notices {
    rejections: Summary<RejectionReason, Rejection>,
    failures: Summary<(SubscriberId, Reason, Attempt, Next), Failed>,
    shortages: Summary<Lack, Wanting>,
    malformed: Summary<Malformed, (Malformed, String)>,
    unconsumed: Summary<(), (String, String)>,
    paces: Summary<bool, (SubscriberId, bool)>,
    refusals: Summary<(Option<IpAddr>, Option<String>, String), Refused>,
}

/// A request to the API that was refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Where it came from.
    pub from: Option<IpAddr>,
    /// The name of its token, if that is a right one.
    pub by: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// Why it was refused: nothing of what it said.
    pub why: String,
}

/// What a failed attempt leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    Retry,
    Dead,
}

/// A failed attempt.
struct Failed {
    delivery: Uuid,
    subscriber: SubscriberId,
    webhook: WebhookType,
    attempt: Attempt,
    failure: Failure,
    next: Next,
}

/// An attempt that could not be made.
struct Wanting {
    delivery: Uuid,
    subscriber: SubscriberId,
    shortage: Shortage,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            rejections: Summary::new(say_rejected),
            failures: Summary::new(say_failed),
            shortages: Summary::new(say_wanting),
            malformed: Summary::new(say_malformed),
            unconsumed: Summary::new(say_unconsumed),
            paces: Summary::new(say_pace),
            refusals: Summary::new(say_refused),
        }
    }
}

impl Notices {
    /// A domain event is rejected. The events themselves are all in the queue `rejected`.
    pub fn rejected(&self, rejection: &Rejection) {
        self.rejections.note(rejection.reason, rejection.clone());
    }

    /// An attempt has ended; said only if it failed: which delivery, for whom, why, and what comes
    /// next.
    pub fn settled(&self, delivery: &Delivery, attempt: Attempt, settlement: &Settlement) {
        let (failure, next) = match settlement {
            Settlement::Done => return,
            Settlement::Retry(failure) => (failure, Next::Retry),
            Settlement::Dead(failure) => (failure, Next::Dead),
        };
        let kind = (delivery.subscriber.clone(), failure.reason, attempt, next);
        let line = Failed {
            delivery: delivery.webhook_id,
            subscriber: delivery.subscriber.clone(),
            webhook: delivery.kind,
            attempt,
            failure: failure.clone(),
            next,
        };
        self.failures.note(kind, line);
    }

    /// An attempt could not be made for want of something that the bridge needs itself.
    pub fn wanting(&self, delivery: &Delivery, shortage: Shortage) {
        let line = Wanting {
            delivery: delivery.webhook_id,
            subscriber: delivery.subscriber.clone(),
            shortage,
        };
        self.shortages.note(line.shortage.lack, line);
    }

    /// A message in a lane is not a delivery.
    pub fn malformed(&self, error: &Malformed, routing_key: &str) {
        let line = (error.clone(), routing_key.to_owned());
        self.malformed.note(error.clone(), line);
    }

    /// A queue cannot be consumed from, though the broker is there.
    pub fn unconsumed(&self, queue: &str, error: String) {
        self.unconsumed.note((), (queue.to_owned(), error));
    }

    /// A subscriber is slow from now on, or quick again.
    pub fn pace(&self, subscriber: &SubscriberId, slow: bool) {
        self.paces.note(slow, (subscriber.clone(), slow));
    }

    /// A request to the API is refused.
    pub fn refused(&self, refused: Refused) {
        let kind = (refused.from, refused.by.clone(), refused.why.clone());
        self.refusals.note(kind, refused);
    }

    /// Says counts whose time has come, until `stop`.
    pub async fn keep_saying(&self, stop: CancellationToken) {
        while tokio::time::timeout(SWEEP, stop.cancelled()).await.is_err() {
            self.rejections.sweep();
            self.failures.sweep();
            self.shortages.sweep();
            self.malformed.sweep();
            self.unconsumed.sweep();
            self.paces.sweep();
            self.refusals.sweep();
        }
    }

    /// Says everything that is not said yet. From now on every line is said at once.
    pub fn say_rest(&self) {
        self.rejections.flush();
        self.failures.flush();
        self.shortages.flush();
        self.malformed.flush();
        self.unconsumed.flush();
        self.paces.flush();
        self.refusals.flush();
    }
}

fn say_rejected(rejection: &Rejection, unsaid: u64) {
    warn!(
        reason = rejection.reason.as_str(),
        unsaid, "a domain event is rejected: {}", rejection.detail
    );
}

fn say_failed(failed: &Failed, unsaid: u64) {
    warn!(
        delivery = %failed.delivery,
        subscriber = failed.subscriber.as_str(),
        webhook = failed.webhook.name(),
        attempt = failed.attempt.number(),
        reason = failed.failure.reason.as_str(),
        next = match failed.next {
            Next::Retry => "retry",
            Next::Dead => "dead",
        },
        unsaid,
        "attempt failed: {}",
        failed.failure.detail
    );
}

fn say_wanting(wanting: &Wanting, unsaid: u64) {
    let Shortage { lack, detail } = &wanting.shortage;
    warn!(
        delivery = %wanting.delivery,
        subscriber = wanting.subscriber.as_str(),
        unsaid,
        "deliveries wait, and no attempt is counted: {}",
        lack.told(detail),
    );
}

fn say_malformed((error, routing_key): &(Malformed, String), unsaid: u64) {
    warn!(
        key = routing_key,
        unsaid, "a message in a lane is {error}; it goes to the dead letters"
    );
}

fn say_unconsumed((queue, error): &(String, String), unsaid: u64) {
    warn!(queue, unsaid, "cannot consume: {error}; trying for ever");
}

fn say_pace((subscriber, slow): &(SubscriberId, bool), unsaid: u64) {
    let subscriber = subscriber.as_str();
    if *slow {
        warn!(
            subscriber,
            unsaid,
            "answers late, or is sent more than it takes: its deliveries go through the slow lanes, a few at a time"
        );
    } else {
        info!(
            subscriber,
            unsaid, "is quick again: its deliveries go the usual way"
        );
    }
}

fn say_refused(refused: &Refused, unsaid: u64) {
    warn!(
        from = refused.from.map(tracing::field::display),
        by = refused.by,
        status = refused.status,
        unsaid,
        "a request to the API is refused: {}",
        refused.why
    );
}
