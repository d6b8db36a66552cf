//! What is published: a heap of events that waits for whoever is measured, or events one by one at
//! the moments at which they are due, however long the broker takes.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{event, ground::Ground, receiver::Arrivals, stats::Percentiles};

/// Where the bridge takes its events from.
pub(crate) const SOURCE: Route = Route {
    exchange: "domain.events",
    key: "case.status.updated",
};
/// Everything that was published when it was due must have arrived by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Publishes without a confirm yet; more make a broker slower.
const OUTSTANDING: usize = 1_000;
/// Publishes written together, which costs a quarter of writing them one by one.
const TOGETHER: usize = 100;
/// Bytes without a confirm yet.
const BYTES_OUTSTANDING: usize = 16 * 1024 * 1024;

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
    publish_with(channel, route, body, BasicProperties::default()).await
}

/// The same with all that a webhook has beside its body: what the broker reads of each message.
pub(crate) async fn publish_webhook(
    channel: &Channel,
    route: Route<'_>,
    body: &[u8],
) -> PublisherConfirm {
    const TYPE: &str = "StatusUpdate";
    let id = Uuid::new_v4().to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("webhook-id", id.as_str()),
        ("webhook-timestamp", &now.to_string()),
        ("webhook-type", TYPE),
        ("webhook-attempt", "1"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_message_id(id.into())
        .with_type(TYPE.into())
        .with_app_id("bench".into())
        .with_timestamp(now);
    publish_with(channel, route, body, properties).await
}

async fn publish_with(
    channel: &Channel,
    route: Route<'_>,
    body: &[u8],
    properties: BasicProperties,
) -> PublisherConfirm {
    let properties = properties
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

/// How many events wait, and how large each is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heap {
    /// Events.
    pub(crate) count: u64,
    /// Bytes of each.
    pub(crate) bytes: usize,
}

impl Heap {
    /// As many of the usual size.
    pub(crate) fn of(count: u64) -> Self {
        let bytes = event::BYTES;
        Self { count, bytes }
    }
}

/// Publishes events of a party as fast as the broker confirms them.
pub(crate) async fn heap(ground: &Ground, route: Route<'_>, party: &str, count: u64) {
    heap_of(ground, route, party, Heap::of(count)).await;
}

/// The same with events of another size.
pub(crate) async fn heap_of(ground: &Ground, route: Route<'_>, party: &str, heap: Heap) {
    let channel = ground.confirming().await;
    let most = (BYTES_OUTSTANDING / heap.bytes).clamp(1, OUTSTANDING);
    let together = TOGETHER.min(most) as u64;
    let mut outstanding = VecDeque::with_capacity(most);
    let mut left = heap.count;
    while left > 0 {
        let batch = left.min(together);
        let bodies: Vec<_> = (0..batch)
            .map(|_| event::sized(event::now(), party, heap.bytes))
            .collect();
        let published = bodies.iter().map(|body| publish(&channel, route, body));
        outstanding.extend(join_all(published).await);
        while outstanding.len() >= most
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
    /// How large it is.
    pub(crate) bytes: usize,
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
            bytes: event::BYTES,
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
            if sender.send((event::at(at), event)).is_err() {
                return;
            }
        }
    });
    let mut confirms = Vec::new();
    while let Some((at, event)) = due.recv().await {
        let body = event::sized(at, &event.party, event.bytes);
        confirms.push(publish(&channel, route, &body).await);
    }
    for confirm in confirms {
        confirmed(confirm).await;
    }
    pacer.join().expect("the pacer");
    channel.close(200, "done".into()).await.ok();
    event::at(start)
}

/// Publishes each event when it is due, waits until `deliveries` of them have arrived, and says how
/// long after its event was due each did, or how many have come when it gives up.
pub(crate) async fn latencies(
    ground: &Ground,
    route: Route<'_>,
    events: Vec<Due>,
    received: &Arrivals,
    deliveries: u64,
) -> Result<Percentiles, String> {
    received.take();
    paced(ground, route, events).await;
    let arrived = tokio::time::timeout(PATIENCE, async {
        while received.count() < deliveries {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if arrived.await.is_err() {
        let count = received.count();
        return Err(format!("{count} of {deliveries} deliveries arrived"));
    }
    let arrived = received.take();
    let latencies = arrived
        .iter()
        .map(|arrival| arrival.at.saturating_sub(arrival.due));
    Ok(Percentiles::of(latencies.collect()))
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
