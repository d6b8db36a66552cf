//! Events to one queue on the home broker.

use super::Bench;
use crate::{
    race::{Side, Transport},
    report::Must,
};

pub(super) async fn run(bench: &mut Bench<'_>) {
    let what = "event → home-broker queue, one subscriber";
    let sides = [
        (Side::Bridge, 40_000),
        (Side::Shovel, 40_000),
        (Side::DirectShovel, 40_000),
        (Side::Bare, 40_000),
        (Side::Node, 20_000),
        (Side::NodeBodies, 20_000),
        (Side::Python, 5_000),
    ];
    // Now and then a turn takes a fifth longer and more of the processors, whoever's it is: perhaps
    // RabbitMQ's log is full then and is sorted into the queues' files. With so many rounds that
    // moves no median.
    let results = bench.race(what, Transport::Queue, 1, &sides, 7).await;
    bench.beside(what, &results, Side::Shovel, Must::Reach(1.0));
    bench.beside(what, &results, Side::DirectShovel, Must::Nothing);
    bench.beside(what, &results, Side::Bare, Must::Nothing);
    bench.beside_consumers(what, &results);
    bench.beside(what, &results, Side::NodeBodies, Must::Nothing);
    bench.processor_time("AMQP delivery", &results, 35.0, Side::Bare);
}
