//! Subscribers with brokers of their own: what the connections to many of them cost in memory.

use std::time::Duration;

use hookbridge::cli::demo::node::{NodeOptions, PrivateNode};
use serde_json::json;

use super::Bench;
use crate::{
    bridge::{Setup, Subscriber},
    load::{SOURCE, arrivals, paced},
    report::{Must, Row, Unit},
};

const BROKERS: usize = 50;
const SUBSCRIBERS: usize = 200;
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn run(bench: &mut Bench<'_>) {
    let ground = bench.ground;
    // Virtual hosts of one node: to the bridge, as to any client, each is a broker of its own.
    let hosts: Vec<String> = (0..BROKERS)
        .map(|broker| format!("broker-{broker}"))
        .collect();
    let queue = |number: usize| format!("webhooks-{number}");
    let queues: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            json!({
                "name": queue(number), "vhost": hosts[number % BROKERS], "durable": true,
                "auto_delete": false, "arguments": { "x-queue-type": "quorum" },
            })
        })
        .collect();
    let names: Vec<_> = hosts.iter().map(|name| json!({ "name": name })).collect();
    let definitions = json!({ "vhosts": names, "queues": queues }).to_string();
    let node = PrivateNode::start(&NodeOptions {
        definitions: Some(definitions),
        ..NodeOptions::default()
    });
    let node = node.expect("a second RabbitMQ");
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            let (id, party) = (format!("outside-{number}"), format!("party-{number}"));
            let uri = node.amqp_uri(&hosts[number % BROKERS]);
            Subscriber::queue(&id, Some(&party), Some(&uri), &queue(number))
        })
        .collect();
    let setup = Setup::new(ground, &subscribers);
    let mut bridge = setup.start();
    bridge.ready().await;
    let before = bridge.process.memory();
    let length = Duration::from_secs(bench.options.pick(8, 2));
    let events = arrivals(1_000.0, length, 1, |number| {
        format!("party-{}", number % SUBSCRIBERS)
    });
    let all = events.len() as f64;
    paced(ground, SOURCE, events).await;
    let delivered = ["transport=\"amqp\"", "outcome=\"delivered\""];
    let done = tokio::time::timeout(PATIENCE, async {
        let name = "hookbridge_deliveries_total";
        while bridge.counter(name, &delivered).await < all {
            bridge.process.must_run();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    done.await.expect("every delivery to the outside brokers");
    bench.report.note(format!(
        "With {SUBSCRIBERS} subscribers on {BROKERS} brokers of their own the bridge has {before:.0} MiB before it \
         has connected to any of them, and {:.0} MiB after {all:.0} deliveries to them at 1,000/s.",
        bridge.process.memory()
    ));
    bench.report.add(Row {
        what: format!("memory, {SUBSCRIBERS} subscribers on {BROKERS} outside brokers, the most"),
        unit: Unit::Mebibytes,
        ours: bridge.process.peak_memory(),
        peer: None,
        must: Must::AtMost(60.0),
    });
    bridge.process.stop().await;
}
