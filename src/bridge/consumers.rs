//! What the bridge consumes: the events, the lanes of both attempts, and what strayed.

use std::future::Future;

use super::Bridge;
use crate::{
    broker::consumer::{self, Options, Presence, Session},
    delivery::Attempt,
};

/// Deliveries that a lane may have unsettled. With 8 fast and 16 slow lanes in each of two sets, at
/// most 6,144 are in memory at once.
const FAST_PREFETCH: u16 = 256;
const SLOW_PREFETCH: u16 = 64;
/// What the unsettled events may weigh together: publishers decide how large they are.
const EVENT_BYTES: usize = 160 * 1024 * 1024;

impl Bridge {
    /// Starts what takes events and deliveries from their queues.
    pub(super) fn start_consumers(&self) {
        let intake = self.intake.clone();
        let events = Options {
            queue: self.topology.events_queue(),
            prefetch: self.prefetch,
            bytes: Some(EVENT_BYTES),
            gate: Some(self.registry.whole()),
            listens_to: None,
        };
        self.consume(events, move |session| intake.clone().work(session));
        for (set, attempt) in [("first", Attempt::First), ("second", Attempt::Second)] {
            for lane in self.topology.lanes(set) {
                let deliver = self.deliver.clone();
                let slow = lane.rsplit('.').nth(1) == Some("slow");
                let options = Options {
                    queue: lane.to_owned(),
                    prefetch: if slow { SLOW_PREFETCH } else { FAST_PREFETCH },
                    bytes: None,
                    gate: Some(self.registry.whole()),
                    listens_to: None,
                };
                self.consume(options, move |session| {
                    deliver.clone().work(session, attempt)
                });
            }
        }
        let (strays, home, stop) = (self.strays.clone(), self.home.clone(), self.stop.clone());
        self.work
            .spawn(async move { strays.keep_looking(home, stop).await });
    }

    fn consume<W, F>(&self, options: Options, work: W)
    where
        W: FnMut(Session) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let part = format!("consumer of {}", options.queue);
        let readiness = self.readiness.clone();
        readiness.set(&part, Some("not there yet".into()));
        let there = move |there: bool| {
            readiness.set(&part, (!there).then(|| "not there".into()));
        };
        self.start_consumer(options, there, work);
    }

    /// Consumes what the line does without: it is ready without this consumer.
    pub(super) fn consume_quietly<W, F>(&self, options: Options, work: W)
    where
        W: FnMut(Session) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.start_consumer(options, |_| {}, work);
    }

    /// Starts a consumer, which says whether it is there.
    fn start_consumer<W, F>(
        &self,
        options: Options,
        there: impl Fn(bool) + Send + Sync + 'static,
        work: W,
    ) where
        W: FnMut(Session) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (notices, queue) = (self.notices.clone(), options.queue.clone());
        let present = move |now: Presence| match now {
            Presence::There => there(true),
            Presence::Gone => there(false),
            Presence::Failing(why) => notices.unconsumed(&queue, why),
        };
        self.work.spawn(consumer::consume(
            self.home.clone(),
            options,
            self.stop.clone(),
            present,
            work,
        ));
    }
}
