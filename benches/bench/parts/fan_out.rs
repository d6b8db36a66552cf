//! Events to ten subscribers each.

use super::Bench;
use crate::{
    race::{Side, Transport},
    report::{Must, Row, Unit},
};

const SUBSCRIBERS: usize = 10;

pub(super) async fn http(bench: &mut Bench<'_>) {
    let what = "fan-out to 10 HTTP subscribers, deliveries";
    let sides = [(Side::Bridge, 10_000), (Side::Bare, 10_000)];
    let results = bench
        .race(what, Transport::Http, SUBSCRIBERS, &sides, 3)
        .await;
    bench.beside(what, &results, Side::Bare, Must::Reach(0.75));
    if let Some(one) = *bench.http {
        bench.report.add(Row {
            what: what.to_owned(),
            unit: Unit::PerSecond,
            ours: results.ours().per_second,
            peer: Some(("hookbridge, one subscriber".to_owned(), one)),
            must: Must::Reach(1.0),
        });
    }
}

pub(super) async fn queue(bench: &mut Bench<'_>) {
    let what = "fan-out to 10 home-broker queues, deliveries";
    let sides = [
        (Side::Bridge, 6_000),
        (Side::Publisher, 6_000),
        (Side::Bare, 6_000),
    ];
    let results = bench
        .race(what, Transport::Queue, SUBSCRIBERS, &sides, 3)
        .await;
    let must = Must::Either(30_000.0, 0.85);
    bench.beside(what, &results, Side::Publisher, must);
    bench.beside(what, &results, Side::Bare, Must::Nothing);
}
