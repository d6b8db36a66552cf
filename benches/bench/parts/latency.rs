//! From the moment at which an event was due to be published to its arrival, at loads far below
//! what the machine can do.

use std::time::Duration;

use super::Bench;
use crate::{
    bare::Job,
    bridge::{Setup, Subscriber},
    load::{Route, SOURCE, arrivals, latencies},
    plot::{Bar, Group},
    process::Process,
    race::CONCURRENT,
    report::{Must, Row, Unit},
    stats::Percentiles,
};

/// One way from the publisher to a subscriber.
struct Way {
    name: &'static str,
    transport: &'static str,
    route: Route<'static>,
    party: &'static str,
}

pub(super) async fn run(bench: &mut Bench<'_>) {
    let (ground, receiver) = (bench.ground, bench.receiver);
    let [ours, theirs, from_http, from_queue] = [(); 4].map(|()| ground.queue());
    let (ours, theirs) = (ours.await, theirs.await);
    let (from_http, from_queue) = (from_http.await.leak(), from_queue.await.leak());
    for queue in [&ours, &theirs] {
        receiver.arrivals.follow(0, ground.drain(queue).await);
    }
    let setup = Setup::new(
        ground,
        &[
            Subscriber::http("http", Some("http"), &receiver.url("ok", 1)),
            Subscriber::queue("queue", Some("queue"), None, &ours),
        ],
    );
    let mut bridge = setup.start();
    let uri = &ground.uri;
    let http = Job::Http {
        uri: uri.clone(),
        from: from_http.to_owned(),
        urls: vec![receiver.url("ok", 2)],
        concurrent: CONCURRENT,
    };
    let queue = Job::Queue {
        uri: uri.clone(),
        from: from_queue.to_owned(),
        to: vec![theirs],
    };
    let _http = Process::start("bare-loop-http", &mut http.command());
    let _queue = Process::start("bare-loop-queue", &mut queue.command());
    bridge.ready().await;
    let way = |name, transport, route, party| Way {
        name,
        transport,
        route,
        party,
    };
    let bare = "bare loop";
    let ways = [
        way("hookbridge", "HTTP", SOURCE, "http"),
        way(bare, "HTTP", Route::queue(from_http), "http"),
        way("hookbridge", "AMQP", SOURCE, "queue"),
        way(bare, "AMQP", Route::queue(from_queue), "queue"),
    ];
    // Nobody's first connection counts.
    for way in &ways {
        measured(bench, way, 200.0, Duration::from_secs(1), 0).await;
    }
    for (rate, rounds, seconds) in [(200.0, 3, 6), (2_000.0, 5, 5)] {
        let rounds = bench.options.pick(rounds, 1);
        let length = Duration::from_secs(bench.options.pick(seconds, 1));
        let mut all: [Vec<Percentiles>; 4] = Default::default();
        for round in 1..=rounds {
            for (way, all) in ways.iter().zip(&mut all) {
                all.push(measured(bench, way, rate, length, round).await);
            }
        }
        for at in [0, 2] {
            let ours = Percentiles::median_of(&all[at]);
            let bare = Percentiles::median_of(&all[at + 1]);
            let what = format!("latency at {rate:.0}/s, {}", ways[at].transport);
            show(bench, &what, ours, bare);
        }
    }
    bridge.process.stop().await;
}

async fn measured(
    bench: &Bench<'_>,
    way: &Way,
    rate: f64,
    length: Duration,
    seed: u64,
) -> Percentiles {
    let events = arrivals(rate, length, seed, |_| way.party.to_owned());
    let count = events.len() as u64;
    let received = &bench.receiver.arrivals;
    latencies(bench.ground, way.route, events, received, count)
        .await
        .unwrap_or_else(|few| panic!("{few} through the {}", way.name))
}

fn show(bench: &mut Bench<'_>, what: &str, ours: Percentiles, peer: Percentiles) {
    let mut bars = Vec::new();
    let figures = [
        ("p50", ours.p50, peer.p50, Must::Nothing),
        ("p99", ours.p99, peer.p99, Must::Stay(1.5)),
        ("p99.9", ours.p999, peer.p999, Must::Nothing),
    ];
    for (name, ours, peer, must) in figures {
        for (who, figure, is_ours) in [("hookbridge", ours, true), ("bare loop", peer, false)] {
            bars.push(Bar {
                name: format!("{who} {name}"),
                figure,
                text: format!("{figure:.1} ms"),
                ours: is_ours,
            });
        }
        bench.report.add(Row {
            what: format!("{what}, {name}"),
            unit: Unit::Milliseconds,
            ours,
            peer: Some(("bare loop".to_owned(), peer)),
            must,
        });
    }
    bench.report.latency.push(Group {
        title: what.to_owned(),
        bars,
    });
}
