//! Two bridges on one broker: no slower than one, and each does its half.

use super::Bench;
use crate::{
    bridge::{Bridge, Setup, Subscriber},
    load::Heap,
    race::Transport,
    report::{Must, Row, Unit},
    stats::median,
    watch::{Count, begin_together},
};

pub(super) async fn run(bench: &mut Bench<'_>) {
    for (transport, name, events) in [
        (Transport::Http, "HTTP", 30_000),
        (Transport::Queue, "home-broker queue", 50_000),
    ] {
        let events = bench.options.pick(events, events / 20);
        let rounds = bench.options.pick(3, 1);
        let [mut one, mut two, mut shares] = [const { Vec::new() }; 3];
        for round in 1..=rounds {
            let (alone, _) = run_bridges(bench, transport, 1, events).await;
            let (both, share) = run_bridges(bench, transport, 2, events).await;
            println!(
                "  round {round} of {rounds}: one {alone:.0}/s, two {both:.0}/s, the busier one did {share:.1} %"
            );
            one.push(alone);
            two.push(both);
            shares.push(share);
        }
        bench.report.add(Row {
            what: format!("two bridges, event → {name}"),
            unit: Unit::PerSecond,
            ours: median(two),
            peer: Some(("one bridge".to_owned(), median(one))),
            must: Must::Reach(1.0),
        });
        bench.report.add(Row {
            what: format!("two bridges, event → {name}: share of the busier"),
            unit: Unit::Percent,
            ours: median(shares),
            peer: None,
            must: Must::AtMost(55.0),
        });
    }
}

/// Deliveries a second of all bridges together, and how much of them the busiest made.
async fn run_bridges(
    bench: &Bench<'_>,
    transport: Transport,
    count: usize,
    events: u64,
) -> (f64, f64) {
    let (ground, receiver) = (bench.ground, bench.receiver);
    let queues = match transport {
        Transport::Http => Vec::new(),
        Transport::Queue => ground.queues(1).await,
    };
    let subscriber = match queues.first() {
        None => Subscriber::http("bench", None, &receiver.url("ok", 1)),
        Some(queue) => Subscriber::queue("bench", None, None, queue),
    };
    let setup = Setup::new(ground, &[subscriber]);
    let mut bridges: Vec<Bridge> = (0..count).map(|_| setup.start()).collect();
    for bridge in &mut bridges {
        bridge.ready().await;
    }
    receiver.arrivals.take();
    let counted = match transport {
        Transport::Http => Count::Arrivals(&receiver.arrivals),
        Transport::Queue => Count::Filled(&queues),
    };
    let round = begin_together(ground, &mut bridges, Heap::of(events), 1, counted).await;
    let mut done = Vec::new();
    for bridge in &bridges {
        let delivered = "outcome=\"delivered\"";
        done.push(
            bridge
                .counter("hookbridge_deliveries_total", &[delivered])
                .await,
        );
    }
    for bridge in bridges {
        bridge.process.stop().await;
    }
    for queue in &queues {
        ground.purge(queue).await;
    }
    let most = done.iter().copied().fold(0.0, f64::max);
    (round.per_second, 100.0 * most / done.iter().sum::<f64>())
}
