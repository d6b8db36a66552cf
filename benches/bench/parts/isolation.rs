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
    machine::Processors,
    receiver::Arrival,
    report::{Must, Row, Unit},
    stats::{Percentiles, median},
};

/// Healthy deliveries a second, a small part of what two cores can do at full load. What is added here
/// is as much again, and then they are in use for little more than half of the time.
const HEALTHY_RATE: f64 = 500.0;
/// Healthy subscribers with a queue on the home broker; the others have HTTP endpoints.
const QUEUES: u32 = 20;
/// Short, so that second attempts fall into the time that is measured.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// What is not measured at the beginning of either phase.
const WARM_UP: Duration = Duration::from_secs(1);
/// The percentiles are those of so long. Both phases have the same, since what disturbs the machine
/// now and then is in every long one, and in few short ones.
const SPAN: Duration = Duration::from_secs(10);
/// A healthy delivery that has not come by then counts as so late.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who is there, and how bad it gets.
struct Case {
    what: &'static str,
    bridges: usize,
    healthy: u32,
    bad: Vec<Bad>,
    disturbed: Duration,
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
    let seconds = |whole| Duration::from_secs(bench.options.pick(whole, 3));
    let (flooded, shorter) = (seconds(45), seconds(10));
    let one = |how, rate| Bad {
        how,
        subscribers: 1,
        rate,
    };
    let five = vec![
        one(How::Answers("hang"), 20.0),
        one(How::Answers("after-2000"), 20.0),
        one(How::Refuses, 20.0),
        one(How::QueueGone, 20.0),
        // 20,000, at more than three times what it takes: 64 at once, each for half a second.
        one(
            How::Answers("after-500"),
            bench.options.pick(20_000.0, 2_000.0) / flooded.as_secs_f64(),
        ),
    ];
    let thirty = [("hang", 10), ("after-2000", 20)].map(|(how, subscribers)| Bad {
        how: How::Answers(how),
        subscribers,
        rate: 5.0,
    });
    let (runs, fewer) = bench.options.pick((5, 3), (1, 1));
    let cases = [
        Case {
            what: "100 healthy subscribers beside one that hangs, one slow, one refusing, one without its queue, one flooded",
            bridges: 1,
            healthy: 100,
            bad: five.clone(),
            disturbed: flooded,
            runs,
        },
        Case {
            what: "the same with two bridges",
            bridges: 2,
            healthy: 100,
            bad: five,
            disturbed: flooded,
            runs: fewer,
        },
        Case {
            what: "970 healthy subscribers beside 30 slow ones",
            bridges: 1,
            healthy: 970,
            bad: thirty.to_vec(),
            disturbed: shorter,
            runs: fewer,
        },
    ];
    for case in cases {
        measure(bench, &case).await;
    }
}

async fn measure(bench: &mut Bench<'_>, case: &Case) {
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
    let [mut calm, mut stormy] = [const { Vec::new() }; 2];
    for run in 1..=case.runs {
        let mut bridges: Vec<Bridge> = (0..case.bridges).map(|_| setup.start()).collect();
        for bridge in &mut bridges {
            bridge.ready().await;
        }
        let seed = run as u64;
        let undisturbed = SPAN.min(case.disturbed);
        calm.push(phase(bench, case, &[], undisturbed, seed).await);
        stormy.push(phase(bench, case, &bad, case.disturbed, seed + 100).await);
        for bridge in &mut bridges {
            bridge.process.must_run();
        }
        // With a backlog like this nobody waits for a clean stop, and the next run begins anew.
        drop(bridges);
        setup.purge(ground).await;
        let told = |phases: &[Phase]| {
            phases.last().map_or_else(String::new, |phase| {
                let spans: Vec<_> = phase.p99.iter().map(|p99| format!("{p99:.1}")).collect();
                format!("p99 {} ms, on time {:.3}", spans.join(" "), phase.on_time)
            })
        };
        println!(
            "  run {run} of {}: {}; disturbed {}",
            case.runs,
            told(&calm),
            told(&stormy)
        );
    }
    for queue in &queues {
        ground.purge(queue).await;
    }
    let of = |phases: &[Phase], pick: fn(&Phase) -> f64| median(phases.iter().map(pick));
    let typical = |phase: &Phase| median(phase.p99.iter().copied());
    let worst = |phases: &[Phase]| {
        let spans = phases.iter().flat_map(|phase| phase.p99.iter().copied());
        spans.fold(0.0, f64::max)
    };
    bench.report.note(format!(
        "{}: undisturbed {:.0} % of the processors' time were in use, and disturbed {:.0} %, by the broker, the bridge, the publisher and the receivers together.",
        case.what,
        of(&calm, |phase| phase.busy) * 100.0,
        of(&stormy, |phase| phase.busy) * 100.0,
    ));
    let beside = |figure| Some(("undisturbed".to_owned(), figure));
    bench.report.add(Row {
        what: format!("{}: healthy deliveries", case.what),
        unit: Unit::PerSecond,
        ours: of(&stormy, |phase| phase.on_time) * HEALTHY_RATE,
        peer: beside(of(&calm, |phase| phase.on_time) * HEALTHY_RATE),
        must: Must::Reach(0.95),
    });
    bench.report.add(Row {
        what: format!("{}: their latency, p99", case.what),
        unit: Unit::Milliseconds,
        ours: of(&stormy, typical),
        peer: beside(of(&calm, typical)),
        must: Must::Stay(1.3),
    });
    bench.report.add(Row {
        what: format!("{}: the same in the worst {} s", case.what, SPAN.as_secs()),
        unit: Unit::Milliseconds,
        ours: worst(&stormy),
        peer: beside(worst(&calm)),
        must: Must::Nothing,
    });
}

fn party(who: u32) -> String {
    format!("party-{who}")
}

/// What healthy subscribers saw of a phase.
#[derive(Debug, Clone, Default)]
struct Phase {
    /// Milliseconds, of each span.
    p99: Vec<f64>,
    /// Of the healthy deliveries due in the phase, how much had arrived at its end.
    on_time: f64,
    /// Of the processors' time, how much was in use.
    busy: f64,
}

/// Publishes to the healthy, and to `bad` with so many a second each, for the warm-up and `length`.
async fn phase(
    bench: &Bench<'_>,
    case: &Case,
    bad: &[(u32, f64)],
    length: Duration,
    seed: u64,
) -> Phase {
    let received = &bench.receiver.arrivals;
    received.take();
    let healthy = case.healthy;
    let mut events: Vec<Due> = arrivals(HEALTHY_RATE, WARM_UP + length, seed, |number| {
        party(u32::try_from(number).unwrap_or_default() % healthy)
    });
    let all = events.len();
    let spans = length.div_duration_f64(SPAN).ceil().max(1.0) as usize;
    let span_of = |after: u64| (after / nanos(SPAN)).min(spans as u64 - 1) as usize;
    let mut due = vec![0; spans];
    for event in &events {
        if let Some(after) = event.after.checked_sub(WARM_UP) {
            due[span_of(nanos(after))] += 1;
        }
    }
    for &(who, rate) in bad {
        let more = arrivals(rate, length, seed + u64::from(who), |_| party(who));
        events.extend(more.into_iter().map(|event| Due {
            after: event.after + WARM_UP,
            ..event
        }));
    }
    let processors = Processors::now();
    let start = paced(bench.ground, SOURCE, events).await;
    let busy = processors.busy();
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
    let mut latencies = vec![Vec::new(); spans];
    let mut on_time = 0_usize;
    for arrival in taken.values().filter(|arrival| arrival.due >= begin) {
        let span = &mut latencies[span_of(arrival.due - begin)];
        span.push(arrival.at.saturating_sub(arrival.due));
        on_time += usize::from(arrival.at <= end);
    }
    let p99 = latencies.into_iter().zip(&due).map(|(mut span, &due)| {
        span.resize(due.max(span.len()), nanos(PATIENCE));
        Percentiles::of(span).p99
    });
    Phase {
        p99: p99.collect(),
        on_time: on_time as f64 / due.iter().sum::<usize>() as f64,
        busy,
    }
}
