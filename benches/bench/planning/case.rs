//! One setting: how much passes when everything is there, how long a delivery takes when there is
//! room, and what the bridges and RabbitMQ need for it.

use std::{fmt, time::Duration};

use super::{
    Stand,
    broker::{Broker, Need},
    series::{Case, Series, To},
};
use crate::{
    bridge::{Bridge, Setup, Subscriber},
    load::{Due, Heap, SOURCE, arrivals, latencies},
    report::thousands,
    stats::{Percentiles, median},
    watch::{Count, begin_together},
};

/// Latency is taken at this share of what passes at most: the publisher needs the machine, too.
pub(super) const SHARE: f64 = 0.25;
/// And at no more events a second.
pub(super) const MOST_OFFERED: f64 = 1_000.0;
/// For so many seconds, or longer until there were enough events.
pub(super) const SECONDS: [f64; 2] = [4.0, 10.0];
const ENOUGH: f64 = 200.0;

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) series: Series,
    /// What the series varies.
    pub(super) value: u64,
    /// Deliveries a second.
    pub(super) per_second: f64,
    /// Events a second while latencies were taken.
    pub(super) offered: f64,
    pub(super) latency: Percentiles,
    /// Of the bridges' processor time, for each delivery.
    pub(super) micros_each: f64,
    /// The most that a bridge had, in MiB.
    pub(super) memory: f64,
    pub(super) broker: Need,
    /// Subscribers that count as slow at the end, in all bridges.
    pub(super) slow: f64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}/s, {:.1} µs each; at {:.0} events/s p50 {:.1} ms, p99 {:.1} ms; RabbitMQ {:.0} µs an event; {} slow",
            thousands(self.value as f64),
            thousands(self.per_second),
            self.micros_each,
            self.offered,
            self.latency.p50,
            self.latency.p99,
            self.broker.micros_each,
            self.slow,
        )
    }
}

/// Starts its bridges with its subscribers, measures, and removes both.
pub(super) async fn measure(stand: &Stand<'_>, series: Series, case: &Case) -> Row {
    let ground = stand.ground;
    let queues = match series.to {
        To::Queue => ground.queues(case.fan).await,
        To::Http | To::SlowHttp => Vec::new(),
    };
    for (who, queue) in (0..).zip(&queues) {
        let consumer = ground.drain(queue).await;
        stand.receiver.arrivals.follow(who, consumer);
    }
    let setup = Setup::new(ground, &subscribers(stand, series, case, &queues));
    let mut bridges: Vec<Bridge> = (0..case.bridges).map(|_| setup.start()).collect();
    for bridge in &mut bridges {
        bridge.ready().await;
    }
    let row = figures(stand, series, case, &mut bridges).await;
    for bridge in bridges {
        bridge.process.stop().await;
    }
    for queue in &queues {
        ground.purge(queue).await;
    }
    row
}

/// Everybody gets everything.
fn subscribers(
    stand: &Stand<'_>,
    series: Series,
    case: &Case,
    queues: &[String],
) -> Vec<Subscriber> {
    let one = |number: usize| {
        let id = format!("subscriber-{number}");
        if let Some(queue) = queues.get(number) {
            return Subscriber::queue(&id, None, None, queue);
        }
        let url = stand.receiver.url(&series.to.how(), number as u32);
        Subscriber::http(&id, None, &url)
    };
    (0..case.fan).map(one).collect()
}

/// What the running bridges do.
async fn figures(stand: &Stand<'_>, series: Series, case: &Case, bridges: &mut [Bridge]) -> Row {
    let (options, ground) = (stand.options, stand.ground);
    let received = &stand.receiver.arrivals;
    let broker = Broker::new(stand.node);
    let memory = broker.memory();
    let fan = case.fan as u64;
    let heap = Heap {
        count: options.pick(case.events, case.events.div_ceil(20).max(20)),
        bytes: case.bytes,
    };
    let (mut rounds, mut used) = (Vec::new(), Vec::new());
    for _ in 0..options.pick(3, 1) {
        received.take();
        let before = broker.used();
        let count = Count::Arrivals(received);
        rounds.push(begin_together(ground, bridges, heap, fan, count).await);
        used.push(broker.used() - before);
    }
    let per_second = median(rounds.iter().map(|round| round.per_second));
    let offered = (per_second / fan as f64 * SHARE).min(MOST_OFFERED);
    let events = events(case, offered, options.pick(1.0, 0.2));
    let deliveries = events.len() as u64 * fan;
    let latency = latencies(ground, SOURCE, events, received, deliveries)
        .await
        .expect("every delivery at the offered rate");
    let memory = memory.most().await;
    let mut slow = 0.0;
    for bridge in &*bridges {
        slow += bridge.counter("hookbridge_slow_subscribers", &[]).await;
    }
    Row {
        slow,
        series,
        value: series.what.of(case),
        per_second,
        offered,
        latency,
        micros_each: median(rounds.iter().map(|round| round.micros_each)),
        memory: bridges
            .iter()
            .map(|bridge| bridge.process.peak_memory())
            .fold(0.0, f64::max),
        broker: broker.need(&used, heap.count, memory, &ground.vhost),
    }
}

/// Events at this rate; `shorter` is a share of the time that they take otherwise.
fn events(case: &Case, per_second: f64, shorter: f64) -> Vec<Due> {
    let [least, most] = SECONDS;
    let seconds = (ENOUGH / per_second).clamp(least, most) * shorter;
    let length = Duration::from_secs_f64(seconds);
    let due = arrivals(per_second, length, 1, |_| "everyone".to_owned());
    let sized = due.into_iter().map(|due| Due {
        bytes: case.bytes,
        ..due
    });
    sized.collect()
}
