//! Memory against the number of subscribers, who are in a store, as those are that the API makes.

use std::{
    fmt,
    time::{Duration, Instant},
};

use hookbridge::subscriber::{Interest, Subscriber};

use super::{
    Stand,
    broker::{Broker, Highest, Need},
};
use crate::{
    bridge::Setup,
    hooks::{hook, put, subscriber},
    load::{SOURCE, arrivals, latencies},
    receiver::Receiver,
    report::thousands,
};

const CROWDS: [u32; 5] = [0, 100, 1_000, 10_000, 100_000];
/// At most so many get anything; the others are hooks of one case each.
pub(super) const ACTIVE: u32 = 1_000;
/// Events a second, each to one of the active.
pub(super) const RATE: f64 = 1_000.0;
/// For so long.
pub(super) const LENGTH: Duration = Duration::from_secs(6);
/// A start leaves memory that the allocator gives back.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
/// How long it may take until the metrics know all of them.
const LOADING: Duration = Duration::from_mins(1);
const STORE: &str = "[store]\nurl = \"sqlite://store.db\"\nsecret_key_file = \"store.key\"\n";

/// A bridge with so many subscribers.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    pub(super) subscribers: u32,
    /// From the start of the process, in seconds.
    pub(super) ready_after: f64,
    /// Some seconds later, in MiB.
    pub(super) idle: f64,
    /// The most while events came, in MiB.
    pub(super) busy: f64,
    /// Of the bridge's processor time while events came, for each of them.
    pub(super) micros_each: f64,
    pub(super) broker: Need,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: ready after {:.2} s, {:.0} MiB, then {:.0} MiB, {:.0} µs an event; RabbitMQ {:.0} µs",
            thousands(f64::from(self.subscribers)),
            self.ready_after,
            self.idle,
            self.busy,
            self.micros_each,
            self.broker.micros_each,
        )
    }
}

/// Adds subscribers to one store, and starts a bridge with each number of them.
pub(super) async fn measure(stand: &Stand<'_>, crowds: &mut Vec<Crowd>) {
    let setup = Setup::with(stand.ground, &[], Duration::from_secs(30), STORE);
    let mut there = 0;
    for subscribers in CROWDS {
        let subscribers = stand.options.pick(subscribers, subscribers / 20);
        let more = (there..subscribers).map(|number| one(number, stand.receiver));
        put(&setup.file(0), more).await;
        there = subscribers;
        let crowd = figures(stand, &setup, subscribers).await;
        println!("  {crowd}");
        crowds.push(crowd);
    }
}

fn one(number: u32, receiver: &Receiver) -> Subscriber {
    if number >= ACTIVE {
        return hook(number);
    }
    let party = Interest::Party {
        party: active(number),
        cases: None,
    };
    let url = receiver.url("ok", number);
    subscriber(format!("active-{number:04}"), party, &url)
}

fn active(number: u32) -> String {
    format!("active-{number}")
}

/// What a bridge does with as many as are in the store.
async fn figures(stand: &Stand<'_>, setup: &Setup, subscribers: u32) -> Crowd {
    let pick = |whole, quick| stand.options.pick(whole, quick);
    let began = Instant::now();
    let mut bridge = setup.start();
    bridge.ready().await;
    let ready_after = began.elapsed().as_secs_f64();
    while bridge.counter("hookbridge_subscribers{", &[]).await < f64::from(subscribers) {
        assert!(began.elapsed() < LOADING, "not all subscribers are known");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(pick(SETTLE, Duration::from_secs(1))).await;
    let process = bridge.process.usage();
    let idle = process.memory();
    let broker = Broker::new(stand.node);
    let [memory, busy] = [broker.memory(), Highest::watch(process)];
    let among = subscribers.clamp(1, ACTIVE);
    let events = arrivals(RATE, pick(LENGTH, Duration::from_secs(1)), 1, |number| {
        active(number as u32 % among)
    });
    let count = events.len() as u64;
    let (before, used_before) = (broker.used(), process.processor_time());
    let deliveries = if subscribers == 0 { 0 } else { count };
    let received = &stand.receiver.arrivals;
    latencies(stand.ground, SOURCE, events, received, deliveries)
        .await
        .expect("every delivery");
    let used = process.processor_time().saturating_sub(used_before);
    let used_by_broker = [broker.used() - before];
    let memory = memory.most().await;
    let crowd = Crowd {
        subscribers,
        ready_after,
        idle,
        busy: busy.most().await,
        micros_each: used.as_secs_f64() * 1e6 / count as f64,
        broker: broker.need(&used_by_broker, count, memory, &stand.ground.vhost),
    };
    bridge.process.stop().await;
    crowd
}
