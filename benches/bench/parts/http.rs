//! Events to one HTTP endpoint.

use super::Bench;
use crate::{
    race::{Side, Transport},
    report::Must,
};

pub(super) async fn run(bench: &mut Bench<'_>) {
    let what = "event → HTTP, one subscriber";
    let sides = [
        (Side::Bridge, 60_000),
        (Side::Bare, 60_000),
        (Side::Node, 40_000),
        (Side::Python, 6_000),
    ];
    let results = bench.race(what, Transport::Http, 1, &sides, 3).await;
    *bench.http = Some(results.ours().per_second);
    bench.beside(what, &results, Side::Bare, Must::Reach(0.75));
    bench.beside_consumers(what, &results);
    bench.processor_time("HTTP delivery", &results, 60.0, Side::Bare);
}
