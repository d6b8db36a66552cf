//! Events to one queue on the home broker.

use super::Bench;
use crate::{
    race::{Side, Transport},
    report::Must,
};

pub(super) async fn run(bench: &mut Bench<'_>) {
    let what = "event → home-broker queue, one subscriber";
    let sides = [
        (Side::Bridge, 50_000),
        (Side::Shovel, 50_000),
        (Side::DirectShovel, 50_000),
        (Side::Bare, 50_000),
        (Side::Node, 30_000),
        (Side::NodeBodies, 30_000),
        (Side::Python, 5_000),
    ];
    let results = bench.race(what, Transport::Queue, 1, &sides, 4).await;
    bench.beside(what, &results, Side::Shovel, Must::Reach(1.0));
    bench.beside(what, &results, Side::DirectShovel, Must::Nothing);
    bench.beside(what, &results, Side::Bare, Must::Nothing);
    bench.beside_consumers(what, &results);
    bench.beside(what, &results, Side::NodeBodies, Must::Nothing);
    bench.processor_time("AMQP delivery", &results, 35.0, Side::Bare);
}
