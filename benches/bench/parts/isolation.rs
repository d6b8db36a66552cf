//! A bad subscriber hurts only itself: healthy subscribers at a steady rate, first undisturbed, and
//! then beside subscribers that hang, are slow, refuse, have lost their queue, or are flooded.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::Bench;
use crate::{
    bridge::{Bridge, Setup, Subscriber},
    event::nanos,
    load::{Due, SOURCE, arrivals, paced},
    receiver::Arrival,
    report::{Must, Row, Unit, thousands},
    stats::{Percentiles, median},
};

/// Healthy deliveries a second. With the worst that is added here it is less than half of what a
/// bridge can do on two cores, so that there is room for everybody.
const HEALTHY_RATE: f64 = 1_000.0;
/// Healthy subscribers with a queue on the home broker; the others have HTTP endpoints.
const QUEUES: u32 = 20;
/// Short, so that second attempts fall into the time that is measured.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// What is not measured at the beginning of either phase.
const WARM_UP: Duration = Duration::from_secs(1);
/// A healthy delivery that has not come by then counts as so late.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who is there, and how bad it gets.
struct Case {
    what: &'static str,
    bridges: usize,
    healthy: u32,
    bad: Vec<Bad>,
    runs: usize,
}

/// Some subscribers that are bad in the same way.
#[derive(Debug, Clone, Copy)]
struct Bad {
    how: How,
    subscribers: u32,
    /// Deliveries a second to each.
    rate: f64,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// The receiver's way of answering.
    Answers(&'static str),
    /// Nobody listens.
    Refuses,
    /// Its queue on the home broker is not there.
    QueueGone,
}

pub(super) async fn run(bench: &mut Bench<'_>) {
    let disturbed = Duration::from_secs(bench.options.pick(20, 3));
    let one = |how, rate| Bad {
        how,
        subscribers: 1,
        rate,
    };
    let five = vec![
        one(How::Answers("hang"), 50.0),
        one(How::Answers("after-2000"), 50.0),
        one(How::Refuses, 50.0),
        one(How::QueueGone, 50.0),
        // 20,000, at several times what it takes.
        one(
            How::Answers("after-100"),
            bench.options.pick(20_000.0, 2_000.0) / disturbed.as_secs_f64(),
        ),
    ];
    let thirty = [("hang", 10), ("after-2000", 20)].map(|(how, subscribers)| Bad {
        how: How::Answers(how),
        subscribers,
        rate: 10.0,
    });
    let (runs, fewer) = bench.options.pick((5, 3), (1, 1));
    let cases = [
        Case {
            what: "100 healthy subscribers beside one that hangs, one slow, one refusing, one without its queue, one flooded",
            bridges: 1,
            healthy: 100,
            bad: five.clone(),
            runs,
        },
        Case {
            what: "the same with two bridges",
            bridges: 2,
            healthy: 100,
            bad: five,
            runs: fewer,
        },
        Case {
            what: "970 healthy subscribers beside 30 slow ones",
            bridges: 1,
            healthy: 970,
            bad: thirty.to_vec(),
            runs: fewer,
        },
    ];
    for case in cases {
        measure(bench, &case, disturbed).await;
    }
}

async fn measure(bench: &mut Bench<'_>, case: &Case, disturbed: Duration) {
    let (ground, receiver) = (bench.ground, bench.receiver);
    let queues = ground.queues(QUEUES as usize).await;
    let mut subscribers = Vec::new();
    for who in 0..case.healthy {
        let (id, party) = (format!("healthy-{who}"), party(who));
        subscribers.push(match queues.get(who as usize) {
            Some(queue) => Subscriber::queue(&id, Some(&party), None, queue),
            None => Subscriber::http(&id, Some(&party), &receiver.url("ok", who)),
        });
    }
    for (who, queue) in (0..).zip(&queues) {
        receiver.arrivals.follow(who, ground.drain(queue).await);
    }
    let mut bad = Vec::new();
    for kind in &case.bad {
        for _ in 0..kind.subscribers {
            let who = case.healthy + u32::try_from(bad.len()).expect("a number");
            let (id, party) = (format!("bad-{who}"), party(who));
            subscribers.push(match kind.how {
                How::Answers(how) => Subscriber::http(&id, Some(&party), &receiver.url(how, who)),
                How::Refuses => Subscriber::http(&id, Some(&party), "http://127.0.0.1:1/"),
                How::QueueGone => Subscriber::queue(&id, Some(&party), None, "bench.gone"),
            });
            bad.push((who, kind.rate));
        }
    }
    let setup = Setup::with(ground, &subscribers, RETRY_DELAY, "");
    let all = HEALTHY_RATE + bad.iter().map(|(_, rate)| rate).sum::<f64>();
    let [mut calm, mut busy, mut stormy] = [const { Vec::new() }; 3];
    for run in 1..=case.runs {
        let mut bridges: Vec<Bridge> = (0..case.bridges).map(|_| setup.start()).collect();
        for bridge in &mut bridges {
            bridge.ready().await;
        }
        let seed = run as u64;
        let undisturbed = Duration::from_secs(bench.options.pick(5, 2));
        calm.push(phase(bench, case, HEALTHY_RATE, &[], undisturbed, seed).await);
        busy.push(phase(bench, case, all, &[], undisturbed, seed + 50).await);
        stormy.push(phase(bench, case, HEALTHY_RATE, &bad, disturbed, seed + 100).await);
        for bridge in &mut bridges {
            bridge.process.must_run();
        }
        // With a backlog like this nobody waits for a clean stop, and the next run begins anew.
        drop(bridges);
        setup.purge(ground).await;
        let last = |phases: &[Phase]| phases.last().copied().unwrap_or_default();
        println!(
            "  run {run} of {}: p99 {:.1} ms, with as many events {:.1} ms, disturbed {:.1} ms; on time {:.3}, disturbed {:.3}",
            case.runs,
            last(&calm).p99,
            last(&busy).p99,
            last(&stormy).p99,
            last(&calm).on_time,
            last(&stormy).on_time,
        );
    }
    for queue in &queues {
        ground.remove(queue).await;
    }
    let of = |phases: &[Phase], pick: fn(&Phase) -> f64| median(phases.iter().map(pick));
    bench.report.add(Row {
        what: format!("{}: healthy deliveries", case.what),
        unit: Unit::PerSecond,
        ours: of(&stormy, |phase| phase.on_time) * HEALTHY_RATE,
        peer: Some((
            "undisturbed".to_owned(),
            of(&calm, |phase| phase.on_time) * HEALTHY_RATE,
        )),
        must: Must::Reach(0.95),
    });
    bench.report.add(Row {
        what: format!("{}: their latency, p99", case.what),
        unit: Unit::Milliseconds,
        ours: of(&stormy, |phase| phase.p99),
        peer: Some(("undisturbed".to_owned(), of(&calm, |phase| phase.p99))),
        must: Must::Stay(1.3),
    });
    // What is left when the machine's two cores have as much to do.
    bench.report.add(Row {
        what: format!("{}: the same, and nobody bad", case.what),
        unit: Unit::Milliseconds,
        ours: of(&stormy, |phase| phase.p99),
        peer: Some((
            format!("{} events a second to the healthy", thousands(all)),
            of(&busy, |phase| phase.p99),
        )),
        must: Must::Nothing,
    });
}

fn party(who: u32) -> String {
    format!("party-{who}")
}

/// What healthy subscribers saw of a phase.
#[derive(Debug, Clone, Copy, Default)]
struct Phase {
    /// Milliseconds.
    p99: f64,
    /// Of the healthy deliveries due in the phase, how much had arrived at its end.
    on_time: f64,
}

/// Publishes to the healthy at this rate, and to `bad` with so many a second each, for the warm-up and
/// `length`.
async fn phase(
    bench: &Bench<'_>,
    case: &Case,
    rate: f64,
    bad: &[(u32, f64)],
    length: Duration,
    seed: u64,
) -> Phase {
    let received = &bench.receiver.arrivals;
    received.take();
    let healthy = case.healthy;
    let mut events: Vec<Due> = arrivals(rate, WARM_UP + length, seed, |number| {
        party(u32::try_from(number).unwrap_or_default() % healthy)
    });
    let all = events.len();
    let measured = events.iter().filter(|event| event.after >= WARM_UP).count();
    for &(who, rate) in bad {
        let more = arrivals(rate, length, seed + u64::from(who), |_| party(who));
        events.extend(more.into_iter().map(|event| Due {
            after: event.after + WARM_UP,
            ..event
        }));
    }
    let start = paced(bench.ground, SOURCE, events).await;
    let begin = start + nanos(WARM_UP);
    let end = start + nanos(WARM_UP + length);
    let mut taken: HashMap<u64, Arrival> = HashMap::new();
    let until = Instant::now() + PATIENCE;
    while taken.len() < all && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let arrived = received.take();
        for arrival in arrived.into_iter().filter(|arrival| arrival.who < healthy) {
            // Due at a moment of its own; what comes twice counts when it came first.
            taken.entry(arrival.due).or_insert(arrival);
        }
    }
    let due = taken.values().filter(|arrival| arrival.due >= begin);
    let mut latencies: Vec<u64> = due
        .map(|arrival| arrival.at.saturating_sub(arrival.due))
        .collect();
    latencies.resize(measured.max(latencies.len()), nanos(PATIENCE));
    let on_time = taken
        .values()
        .filter(|arrival| arrival.due >= begin && arrival.at <= end);
    Phase {
        on_time: on_time.count() as f64 / measured as f64,
        p99: Percentiles::of(latencies).p99,
    }
}
