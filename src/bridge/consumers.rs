//! What the bridge consumes: the events, the lanes of both attempts, and what strayed.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

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
        let events = Options {
            queue: self.topology.events_queue(),
            prefetch: self.prefetch,
            bytes: Some(EVENT_BYTES / self.intake.len()),
            gate: Some(self.registry.whole()),
            listens_to: None,
        };
        let strands = self.intake.iter().cloned();
        let strands = strands.map(|intake| move |session| intake.clone().work(session));
        self.consume(&events, strands.collect());
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
                let work = move |session| deliver.clone().work(session, attempt);
                self.consume(&options, vec![work]);
            }
        }
        let (strays, home, stop) = (self.strays.clone(), self.home.clone(), self.stop.clone());
        self.work
            .spawn(async move { strays.keep_looking(home, stop).await });
    }

    /// Starts consumers of a queue that the line needs, one for each kind of work.
    fn consume<W, F>(&self, options: &Options, works: Vec<W>)
    where
        W: FnMut(Session) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let part = format!("consumer of {}", options.queue);
        let readiness = self.readiness.clone();
        readiness.set(&part, Some("not there yet".into()));
        let missing = Mutex::new(works.len());
        let there = Arc::new(move |there: bool| {
            let mut missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
            if there {
                *missing -= 1;
            } else {
                *missing += 1;
            }
            readiness.set(&part, (*missing > 0).then(|| "not there".into()));
        });
        for work in works {
            let there = there.clone();
            self.start_consumer(options.clone(), move |now| there(now), work);
        }
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
