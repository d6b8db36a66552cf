//! How fast events become deliveries in a queue on the home broker, beside RabbitMQ's own shovel
//! plugin moving the same messages between the same kinds of queues on the same node.
//!
//! Every message is persistent, every queue a quorum queue, everything confirmed. Rounds of the two
//! alternate, so that both see the same machine. Rates are taken between 10 % and 90 % of the
//! messages: neither side's start counts.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints rates, and has nobody to hand an error to"
)]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use hookbridge::{
    broker::{
        connection::{Dialer, OPERATION_TIMEOUT, TlsFiles, fixed_uri, system_resolver},
        message::Message,
        pool::Source,
        publisher::Publisher,
        queues::QueueCounter,
        topology::Topology,
    },
    cli::demo::node::{NodeOptions, Plugin, PrivateNode},
};
use lapin::Connection;
use serde_json::json;
use tokio_util::task::TaskTracker;

/// Messages moved in each round.
const MESSAGES: usize = 60_000;
/// Rounds of each side; the medians are reported.
const ROUNDS: usize = 5;
/// Bytes of an event.
const EVENT_BYTES: usize = 500;
/// A round that takes longer is broken.
const PATIENCE: Duration = Duration::from_mins(2);

const BRIDGE_OUT: &str = "bench.bridge";
const SHOVEL_IN: &str = "bench.shovel.in";
const SHOVEL_OUT: &str = "bench.shovel.out";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let options = NodeOptions {
        plugins: vec![Plugin::Shovel],
        ..NodeOptions::default()
    };
    let node = PrivateNode::start(&options).expect("a private RabbitMQ");
    runtime.block_on(bench(&node));
}

/// What one round measured.
struct Round {
    per_second: f64,
    /// Of the bridge's own processor time.
    micros_each: Option<f64>,
}

async fn bench(node: &PrivateNode) {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = node.amqp_uri("/");
    write_settings(folder.path(), &uri);
    let dialer = Dialer {
        uri: fixed_uri(uri.as_str().into()),
        tls: TlsFiles::default(),
        resolver: system_resolver(),
        name: "bench".into(),
        large_frames: false,
    };
    let connection = dialer.connect().await.expect("a connection");
    let topology = Topology::new(
        "hookbridge",
        "domain.events",
        &["#".to_owned()],
        Duration::from_secs(30),
    );
    topology.declare(&connection).await.expect("the topology");
    let tasks = TaskTracker::new();
    let source = Source::home(dialer, 1).expect("a source");
    for queue in [BRIDGE_OUT, SHOVEL_IN, SHOVEL_OUT] {
        // Declared as the publisher's own queue, which is how the bridge declares a subscriber's.
        let publisher = Publisher::start(source.clone(), Some(queue.to_owned()), &tasks);
        publish(&publisher, "", queue, 1).await;
        purge(&connection, queue).await;
    }
    let publisher = Publisher::start(source, None, &tasks);
    let (mut bridge, mut shovel) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        publish(&publisher, "", SHOVEL_IN, MESSAGES).await;
        shovel.push(shovel_round(node, &connection, &uri).await);
        purge(&connection, SHOVEL_OUT).await;
        publish(&publisher, "domain.events", "case.status.updated", MESSAGES).await;
        bridge.push(bridge_round(folder.path(), &connection).await);
        purge(&connection, BRIDGE_OUT).await;
        let last = |rounds: &[Round]| rounds.last().map_or(0.0, |round| round.per_second);
        println!(
            "round {round} of {ROUNDS}: bridge {:.0}/s, shovel {:.0}/s",
            last(&bridge),
            last(&shovel)
        );
    }
    let micros = median(
        bridge
            .iter()
            .filter_map(|round| round.micros_each)
            .collect(),
    );
    let bridge = median(bridge.iter().map(|round| round.per_second).collect());
    let shovel = median(shovel.iter().map(|round| round.per_second).collect());
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["WHAT", "MESSAGES A SECOND", "RATIO"])
        .add_rows([
            [
                "event → home-broker queue, hookbridge".to_owned(),
                format!("{bridge:.0}"),
                format!("{:.2}", bridge / shovel),
            ],
            [
                "shovel plugin, on-confirm, prefetch 1000, TCP".to_owned(),
                format!("{shovel:.0}"),
                "1.00".to_owned(),
            ],
        ]);
    println!(
        "\n{table}\n\nMedians of {ROUNDS} alternating rounds of {MESSAGES} events of {EVENT_BYTES} bytes, quorum queues, \
         one subscriber.\nProcessor time of the bridge: {micros:.0} µs a delivery."
    );
}

async fn shovel_round(node: &PrivateNode, connection: &Connection, uri: &str) -> Round {
    let definition = json!({
        "src-protocol": "amqp091", "src-uri": uri, "src-queue": SHOVEL_IN, "src-prefetch-count": 1000,
        "dest-protocol": "amqp091", "dest-uri": uri, "dest-queue": SHOVEL_OUT, "ack-mode": "on-confirm",
    });
    node.rabbitmqctl(&["set_parameter", "shovel", "bench", &definition.to_string()])
        .expect("a shovel");
    let per_second = rate(connection, SHOVEL_OUT).await;
    node.rabbitmqctl(&["clear_parameter", "shovel", "bench"])
        .expect("no shovel");
    Round {
        per_second,
        micros_each: None,
    }
}

async fn bridge_round(folder: &Path, connection: &Connection) -> Round {
    let program = Program::start(folder);
    let per_second = rate(connection, BRIDGE_OUT).await;
    let micros_each = program
        .processor_time()
        .map(|time| time.as_secs_f64() * 1e6 / MESSAGES as f64);
    program.stop();
    Round {
        per_second,
        micros_each,
    }
}

/// Watches a queue fill: messages a second between 10 % and 90 % of them.
async fn rate(connection: &Connection, queue: &str) -> f64 {
    let mut counter = QueueCounter::default();
    let began = Instant::now();
    let mut first: Option<(Instant, u64)> = None;
    let (low, high) = (MESSAGES as u64 / 10, MESSAGES as u64 * 9 / 10);
    let mut rate = 0.0;
    loop {
        let ready = counter.ready(connection, queue).await;
        let ready = ready.expect("a look-up").unwrap_or_default();
        let now = Instant::now();
        match first {
            None if ready >= low => first = Some((now, ready)),
            Some((since, count)) if ready >= high && rate == 0.0 => {
                rate = (ready - count) as f64 / now.duration_since(since).as_secs_f64();
            }
            _ => {}
        }
        if ready >= MESSAGES as u64 {
            return rate;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{queue} holds {ready} of {MESSAGES} messages"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn publish(publisher: &Publisher, exchange: &str, key: &str, count: usize) {
    let mut left = count;
    let mut number = 0;
    while left > 0 {
        let batch = left.min(1_000);
        let messages = (0..batch)
            .map(|_| {
                number += 1;
                Message {
                    exchange: exchange.to_owned(),
                    routing_key: key.to_owned(),
                    message_id: format!("{key}-{number}"),
                    content_type: Some("application/cloudevents+json"),
                    kind: None,
                    app_id: None,
                    timestamp: None,
                    headers: Vec::new(),
                    body: event(number).into(),
                }
            })
            .collect();
        for result in publisher.publish(messages, OPERATION_TIMEOUT).await {
            result.expect("a confirm");
        }
        left -= batch;
    }
}

/// A status update, filled up to the size of the benchmark by a field that nobody documents.
fn event(number: usize) -> String {
    let mut event = json!({
        "specversion": "1.0", "id": format!("evt-{number}"), "source": "/order-hub",
        "type": "case.status.updated", "time": "2019-01-22T11:29:38.258Z",
        "data": {
            "case": { "id": "a7afaf9-7c6e-4d0e-b756-16b4afa1382f", "parties": ["northwind", "fixit"] },
            "status": {
                "key": "final", "name": "Repair finished",
                "createdAt": "2019-01-22T11:29:38.258Z", "updatedAt": "2019-01-22T11:29:38.258Z",
            },
            "note": "",
        },
    });
    let missing = EVENT_BYTES.saturating_sub(event.to_string().len());
    event["data"]["note"] = "x".repeat(missing).into();
    event.to_string()
}

async fn purge(connection: &Connection, queue: &str) {
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .queue_purge(queue.into(), lapin::options::QueuePurgeOptions::default())
        .await
        .expect("a purge");
}

fn write_settings(folder: &Path, uri: &str) {
    fs::create_dir(folder.join("subscribers")).expect("a directory");
    fs::write(
        folder.join("subscribers/bench.toml"),
        format!("id = \"bench\"\nscope = \"all\"\nevents = [\"StatusUpdate\"]\n[amqp]\nqueue = \"{BRIDGE_OUT}\"\n"),
    )
    .expect("a subscriber");
    fs::write(
        folder.join("hookbridge.toml"),
        format!("[broker]\nuri = \"{uri}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n"),
    )
    .expect("the settings");
}

/// The bridge, as its own process.
struct Program(Child);

impl Program {
    fn start(folder: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_hookbridge"))
            .args(["run", "--config"])
            .arg(folder.join("hookbridge.toml"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the bridge");
        Self(child)
    }

    /// User and system time so far, where the system tells.
    fn processor_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // Linux counts these in hundredths of a second.
        Some(Duration::from_millis(ticks * 10))
    }

    fn stop(mut self) {
        self.0.kill().expect("an end");
        self.0.wait().expect("an end");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
