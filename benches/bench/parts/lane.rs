//! Two slow subscribers that share a slow lane: how long a delivery of the one waits behind
//! thousands of the other.

use std::time::Duration;

use hookbridge::{
    delivery::{Pace, routing_key},
    subscriber::SubscriberId,
};

use super::Bench;
use crate::{
    bridge::{Setup, Subscriber},
    event,
    load::{SOURCE, arrivals, heap, paced},
    report::{Must, Row, Unit},
};

/// How each of them answers: after two seconds.
const ANSWERS: &str = "after-2000";
/// Whoever waits longer waits too long to be waited for here.
const PATIENCE: Duration = Duration::from_mins(2);
/// The second subscriber's number.
const SECOND: u32 = 2;

pub(super) async fn run(bench: &mut Bench<'_>) {
    let (ground, receiver) = (bench.ground, bench.receiver);
    let flood = bench.options.pick(5_000, 2_000);
    let [first, second] = neighbours();
    let setup = Setup::new(
        ground,
        &[
            Subscriber::http(&first, Some("first"), &receiver.url(ANSWERS, 1)),
            Subscriber::http(&second, Some("second"), &receiver.url(ANSWERS, SECOND)),
        ],
    );
    let mut bridge = setup.start();
    bridge.ready().await;
    // The bridge gets to know both as slow.
    let mut events = Vec::new();
    for party in ["first", "second"] {
        let few = arrivals(20.0, Duration::from_secs(4), 1, |_| party.to_owned());
        events.extend(few);
    }
    let all = events.len() as u64;
    paced(ground, SOURCE, events).await;
    let known = tokio::time::timeout(PATIENCE, async {
        while receiver.arrivals.count() < all {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let warmed_up = known.await.is_ok();
    heap(ground, SOURCE, "first", flood).await;
    // The last of them is taken in before anything is asked.
    let events_queue = [setup.topology().events_queue()];
    while ground.ready(&events_queue).await > 0 {
        bridge.process.must_run();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    receiver.arrivals.take();
    let due = event::now();
    heap(ground, SOURCE, "second", 1).await;
    let waited = loop {
        let arrived = receiver.arrivals.take();
        let mut arrived = arrived.iter();
        if let Some(arrival) = arrived.find(|arrival| arrival.who == SECOND && arrival.due >= due) {
            break (arrival.at - arrival.due) as f64 / 1e9;
        }
        if event::now() - due > event::nanos(PATIENCE) {
            bench.report.note(format!(
                "Behind {flood} deliveries in the same slow lane, one had not been attempted after {} s; nobody waited longer.",
                PATIENCE.as_secs()
            ));
            break PATIENCE.as_secs_f64();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if !warmed_up {
        bench.report.note(
            "The two slow subscribers had not had their first few deliveries within a minute."
                .to_owned(),
        );
    }
    drop(bridge);
    bench.report.add(Row {
        what: format!(
            "two slow subscribers in one slow lane: a delivery of the second behind {flood} of the first"
        ),
        unit: Unit::Seconds,
        ours: waited,
        peer: None,
        must: Must::Nothing,
    });
}

/// The names of two subscribers whose slow lane is the same.
fn neighbours() -> [String; 2] {
    let lane = |id: &str| {
        let key = routing_key(Pace::Slow, 0, &SubscriberId::new(id));
        key.split('.').nth(1).map(str::to_owned)
    };
    let first = "slow-0".to_owned();
    let second = (1..1_000)
        .map(|number| format!("slow-{number}"))
        .find(|other| lane(other) == lane(&first));
    [first, second.expect("sixteen lanes for a thousand names")]
}
