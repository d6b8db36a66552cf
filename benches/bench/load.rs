//! What is published: a heap of events that waits for whoever is measured, or events one by one at
//! the moments at which they are due, however long the broker takes.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm, options::BasicPublishOptions,
};
use tokio::sync::mpsc;

use crate::{event, ground::Ground};

/// Where the bridge takes its events from.
pub(crate) const SOURCE: Route = Route {
    exchange: "domain.events",
    key: "case.status.updated",
};
/// Publishes without a confirm yet; more make a broker slower.
const OUTSTANDING: usize = 1_000;
/// Publishes written together, which costs a quarter of writing them one by one.
const TOGETHER: u64 = 100;

/// Where an event is published to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'a> {
    /// The exchange; none for the default one.
    pub(crate) exchange: &'a str,
    /// The routing key, or the queue.
    pub(crate) key: &'a str,
}

impl<'a> Route<'a> {
    /// Straight to a queue.
    pub(crate) fn queue(queue: &'a str) -> Self {
        Self {
            exchange: "",
            key: queue,
        }
    }
}

/// Publishes one persistent message; its confirm comes later.
pub(crate) async fn publish(channel: &Channel, route: Route<'_>, body: &[u8]) -> PublisherConfirm {
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into());
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish(
            route.exchange.into(),
            route.key.into(),
            options,
            body,
            properties,
        )
        .await
        .expect("a publish")
}

/// Waits for a confirm, which must be one.
pub(crate) async fn confirmed(confirm: PublisherConfirm) {
    match confirm.await.expect("a confirm") {
        Confirmation::Ack(None) => {}
        other => panic!("not taken by the broker: {other:?}"),
    }
}

/// Publishes events of a party as fast as the broker confirms them.
pub(crate) async fn heap(ground: &Ground, route: Route<'_>, party: &str, count: u64) {
    let channel = ground.confirming().await;
    let mut outstanding = VecDeque::with_capacity(OUTSTANDING);
    let mut left = count;
    while left > 0 {
        let batch = left.min(TOGETHER);
        let bodies: Vec<_> = (0..batch)
            .map(|_| event::body(event::now(), party))
            .collect();
        let published = bodies.iter().map(|body| publish(&channel, route, body));
        outstanding.extend(join_all(published).await);
        while outstanding.len() >= OUTSTANDING
            && let Some(oldest) = outstanding.pop_front()
        {
            confirmed(oldest).await;
        }
        left -= batch;
    }
    for confirm in outstanding {
        confirmed(confirm).await;
    }
    channel.close(200, "done".into()).await.ok();
}

/// An event that is due.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    /// How long after the start.
    pub(crate) after: Duration,
    /// The party that it is for.
    pub(crate) party: String,
}

/// Events at `per_second`, at random moments as independent publishers make them; the same
/// moments for the same `seed`. `party` names whom each is for.
pub(crate) fn arrivals(
    per_second: f64,
    length: Duration,
    seed: u64,
    party: impl Fn(usize) -> String,
) -> Vec<Due> {
    let mut random = Random(seed);
    let mut after = 0.0;
    let mut all = Vec::new();
    loop {
        after += -random.unit().ln() / per_second;
        if after >= length.as_secs_f64() {
            return all;
        }
        all.push(Due {
            after: Duration::from_secs_f64(after),
            party: party(all.len()),
        });
    }
}

/// Publishes each event when it is due, and returns when all are confirmed. Each carries the
/// moment at which it was due, not the one at which its turn came. Returns the start.
pub(crate) async fn paced(ground: &Ground, route: Route<'_>, mut events: Vec<Due>) -> u64 {
    events.sort_by_key(|event| event.after);
    let channel = ground.confirming().await;
    let (sender, mut due) = mpsc::unbounded_channel();
    let start = Instant::now() + Duration::from_millis(20);
    // A thread sleeps to some 50 µs; the runtime's timers know only milliseconds.
    let pacer = thread::spawn(move || {
        for event in events {
            let at = start + event.after;
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if sender.send((event::at(at), event.party)).is_err() {
                return;
            }
        }
    });
    let mut confirms = Vec::new();
    while let Some((at, party)) = due.recv().await {
        let body = event::body(at, &party);
        confirms.push(publish(&channel, route, &body).await);
    }
    for confirm in confirms {
        confirmed(confirm).await;
    }
    pacer.join().expect("the pacer");
    channel.close(200, "done".into()).await.ok();
    event::at(start)
}

/// Splitmix64: enough for moments that look independent.
struct Random(u64);

impl Random {
    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}
