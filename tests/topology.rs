//! What the bridge declares, prints, exports, verifies and prunes.

use std::{collections::BTreeMap, time::Duration};

use hookbridge::cli::demo::node::{NodeOptions, PrivateNode};
use lapin::{BasicProperties, ExchangeKind};
use serde_json::{Map, Value, json};

use crate::support::{
    broker::{Vhost, unique},
    client::{Client, Published},
    eventually::SOON,
    http::Receiver,
    management,
    program::{EVENT_KEY, START, Setup, event_body},
};

/// Everything that section 3 of the design names, as it writes it.
struct Expected {
    /// Type and arguments by name.
    exchanges: BTreeMap<String, (String, Value)>,
    /// Arguments by name.
    queues: BTreeMap<String, Value>,
    /// Exchange, queue and key.
    bindings: Vec<(String, String, String)>,
}

fn expected(retry_ms: u64) -> Expected {
    let mut all = Expected {
        exchanges: BTreeMap::from([
            ("domain.events".into(), ("topic".into(), json!({}))),
            ("hookbridge.lost".into(), ("fanout".into(), json!({}))),
            ("hookbridge.registry".into(), ("fanout".into(), json!({}))),
        ]),
        queues: BTreeMap::new(),
        bindings: Vec::new(),
    };
    for name in ["first", "retry", "second", "dead", "rejected"] {
        let arguments = json!({"alternate-exchange": "hookbridge.lost"});
        all.exchanges
            .insert(format!("hookbridge.{name}"), ("topic".into(), arguments));
    }
    let mut queue = |name: String, dead_letters_to: &str, exchange: &str, key: String| {
        let mut arguments = json!({
            "x-queue-type": "quorum", "x-overflow": "reject-publish",
            "x-delivery-limit": 1_000_000_000, "x-dead-letter-strategy": "at-least-once",
        });
        if !dead_letters_to.is_empty() {
            arguments["x-dead-letter-exchange"] = json!(format!("hookbridge.{dead_letters_to}"));
        }
        if name.starts_with("retry") {
            arguments["x-message-ttl"] = json!(retry_ms);
        }
        let name = format!("hookbridge.{name}");
        all.queues.insert(name.clone(), arguments);
        all.bindings.push((exchange.to_owned(), name, key));
    };
    let hash = || "#".to_owned();
    queue("events".into(), "rejected", "domain.events", hash());
    for (set, dead_letters_to) in [("first", "retry"), ("second", "dead")] {
        let exchange = format!("hookbridge.{set}");
        for lane in 0..8 {
            let name = format!("{set}.fast.0{lane}");
            queue(name, dead_letters_to, &exchange, format!("fast.0{lane}.#"));
        }
        for lane in 0..16 {
            let name = format!("{set}.slow.{lane:02}");
            let key = format!("slow.{lane:02}.#");
            queue(name, dead_letters_to, &exchange, key);
        }
    }
    let wait = format!("retry.{retry_ms}");
    queue(
        wait,
        "second",
        "hookbridge.retry",
        format!("*.*.{retry_ms}.#"),
    );
    queue("dead".into(), "lost", "hookbridge.dead", hash());
    queue("rejected".into(), "lost", "hookbridge.rejected", hash());
    queue("lost".into(), "", "hookbridge.lost", String::new());
    all
}

fn listed(what: &str, vhost: &str) -> Vec<Map<String, Value>> {
    let path = format!("{what}/{vhost}");
    let all = management::call("GET", &path, &Value::Null).json();
    let objects = all.as_array().unwrap().iter();
    objects.map(|o| o.as_object().unwrap().clone()).collect()
}

fn text(object: &Map<String, Value>, key: &str) -> String {
    object[key].as_str().unwrap().to_owned()
}

/// Compares what there is in a virtual host with the table.
fn assert_declared(vhost: &str, mut expected: Expected) {
    let mut exchanges = BTreeMap::new();
    for exchange in listed("exchanges", vhost) {
        let name = text(&exchange, "name");
        if name.is_empty() || name.starts_with("amq.") {
            continue;
        }
        assert_eq!(exchange["durable"], true, "{name}");
        assert_eq!(exchange["auto_delete"], false, "{name}");
        assert_eq!(exchange["internal"], false, "{name}");
        let (kind, arguments) = (text(&exchange, "type"), exchange["arguments"].clone());
        exchanges.insert(name, (kind, arguments));
    }
    assert_eq!(exchanges, expected.exchanges);
    let mut queues = BTreeMap::new();
    for queue in listed("queues", vhost) {
        let name = text(&queue, "name");
        assert_eq!(queue["durable"], true, "{name}");
        assert_eq!(queue["type"], "quorum", "{name}");
        assert_eq!(queue["exclusive"], false, "{name}");
        queues.insert(name, queue["arguments"].clone());
    }
    assert_eq!(queues, expected.queues);
    let mut bindings = Vec::new();
    for binding in listed("bindings", vhost) {
        if text(&binding, "source").is_empty() {
            continue;
        }
        let key = text(&binding, "routing_key");
        let (from, to) = (text(&binding, "source"), text(&binding, "destination"));
        bindings.push((from, to, key));
    }
    bindings.sort();
    expected.bindings.sort();
    assert_eq!(bindings, expected.bindings);
}

/// Publishes one event and waits until it arrives.
async fn assert_delivers(client: &Client, exchange: &str, receiver: &Receiver) {
    let before = receiver.arrivals().len();
    let body = event_body(&unique("case"));
    let published = client.publish(exchange, EVENT_KEY, &body).await;
    assert_eq!(published, Published::Routed);
    receiver.wait_for(before + 1, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_declares_the_table_of_the_design_and_nothing_else() {
    let vhost = Vhost::new("topology");
    let setup = Setup::of(&vhost);
    setup.set("delivery.retry_delay", "2s");
    let program = setup.run_ready().await;
    assert_declared(&vhost.name, expected(2_000));
    program.stop().await;
    // A second start finds it all, and adds nothing.
    let program = setup.run_ready().await;
    program.stop().await;
    assert_declared(&vhost.name, expected(2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_declares_the_same_and_run_takes_it() {
    let vhost = Vhost::new("topology");
    let setup = Setup::of(&vhost);
    setup.set("delivery.retry_delay", "2s");
    for _ in 0..2 {
        let applied = setup.call(&["topology", "--apply"]).await;
        assert_eq!(applied.code, Some(0), "{}", applied.err);
        assert_eq!(applied.out, "declared 8 exchanges and 53 queues\n");
    }
    assert_declared(&vhost.name, expected(2_000));
    setup.set("broker.declare", false);
    setup.run_ready().await.stop().await;
}

#[tokio::test]
async fn the_printed_table_has_every_exchange_queue_key_and_argument() {
    let setup = Setup::new("amqp://guest:guest@127.0.0.1:1/shop");
    setup.set("delivery.retry_delay", "2s");
    let printed = setup.call(&["topology"]).await;
    assert_eq!(printed.code, Some(0), "{}", printed.err);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = printed.out.lines().map(words).collect();
    let all = expected(2_000);
    // What every queue has is said once, in the end.
    let shared = printed.out.lines().last().unwrap();
    let shared = shared.trim_end_matches('.').to_owned();
    let row_of = |name: &str| {
        let mut found = rows
            .iter()
            .filter(|row| row.first().is_some_and(|w| w == name));
        // An exchange and a queue can have the same name: exchanges come first.
        let first = found.next().unwrap_or_else(|| panic!("{name}"));
        (first, found.next())
    };
    let has = |row: &[String], besides: &str, arguments: &Value| {
        for (name, value) in arguments.as_object().unwrap() {
            let value = value.as_str().map_or(value.to_string(), str::to_owned);
            let pair = format!("{name}={value}");
            let said = row.contains(&pair) || besides.split(' ').any(|word| word == pair);
            assert!(said, "{pair} in {row:?}");
        }
    };
    for (name, (kind, arguments)) in &all.exchanges {
        let (row, _) = row_of(name);
        assert_eq!(row[1], *kind);
        has(row, "", arguments);
    }
    for (exchange, queue, key) in &all.bindings {
        let (first, second) = row_of(queue);
        let row = second.unwrap_or(first);
        assert_eq!(row[1], *exchange, "{queue}");
        assert!(key.is_empty() || row[2] == *key, "{row:?}");
        has(row, &shared, &all.queues[queue]);
    }
    // Two headers, one line on all, two empty ones.
    let rest = rows.len() - all.exchanges.len() - all.queues.len();
    assert_eq!(rest, 5, "{}", printed.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_definitions_are_imported_by_a_fresh_virtual_host_and_run_works_on_them() {
    let vhost = Vhost::new("topology");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.set("delivery.retry_delay", "2s");
    setup.set("broker.declare", false);
    setup.http_subscriber("all", &receiver.url("/"));
    let exported = setup.call(&["topology", "--format", "definitions"]).await;
    assert_eq!(exported.code, Some(0), "{}", exported.err);
    let definitions: Value = serde_json::from_str(&exported.out).unwrap();
    management::must("POST", "definitions", &definitions);
    assert_declared(&vhost.name, expected(2_000));
    let program = setup.run_ready().await;
    assert_delivers(&vhost.connect().await, "domain.events", &receiver).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_named_with_its_remedy_when_nothing_may_be_declared() {
    let vhost = Vhost::new("topology");
    let setup = Setup::of(&vhost);
    setup.set("broker.declare", false);
    let refused = setup.call(&["run"]).await;
    assert_eq!(refused.code, Some(1));
    assert_one_error(
        &refused.err,
        &[
            "exchange 'hookbridge.lost' does not exist",
            "topology --apply",
        ],
    );
    setup.call(&["topology", "--apply"]).await;
    vhost.delete_queue("hookbridge.second.slow.11");
    let refused = setup.call(&["run"]).await;
    assert_eq!(refused.code, Some(1));
    assert_one_error(
        &refused.err,
        &[
            "queue 'hookbridge.second.slow.11' does not exist",
            "hookbridge topology --apply",
            "--format definitions",
        ],
    );
}

/// There is one line that begins with `error:`, it is the last, and it says all of this.
#[track_caller]
fn assert_one_error(err: &str, words: &[&str]) {
    let errors = err.lines().filter(|l| l.starts_with("error:")).count();
    assert_eq!(errors, 1, "{err}");
    let last = err.lines().last().unwrap();
    for words in words {
        assert!(last.contains(words), "'{words}' in {err}");
    }
}

/// Of what kind something is that exists otherwise, its name after the prefix, how it was made, and
/// the error's words after its name.
type Otherwise = (&'static str, &'static str, Value, &'static str);

fn existing_otherwise() -> Vec<Otherwise> {
    let quorum = |changed: Value| {
        let mut arguments = json!({
            "x-queue-type": "quorum", "x-overflow": "reject-publish",
            "x-delivery-limit": 1_000_000_000, "x-dead-letter-strategy": "at-least-once",
        });
        for (key, value) in changed.as_object().unwrap() {
            arguments[key] = value.clone();
        }
        json!({"durable": true, "arguments": arguments})
    };
    let topic = |durable: bool, kind: &str, arguments: Value| json!({"durable": durable, "type": kind, "arguments": arguments});
    vec![
        (
            "queues",
            "events",
            json!({"durable": true, "arguments": {}}),
            // Brokers name one argument of several that differ.
            "x-dead-letter-exchange = none, but hookbridge needs PREFIX.rejected",
        ),
        (
            "queues",
            "lost",
            json!({"durable": true, "arguments": {"x-overflow": "reject-publish"}}),
            "x-queue-type = classic, but hookbridge needs quorum",
        ),
        (
            "queues",
            "events",
            json!({"durable": false, "arguments": {}}),
            "durable = false, but hookbridge needs true",
        ),
        (
            "queues",
            "events",
            quorum(json!({"x-dead-letter-exchange": "other"})),
            "x-dead-letter-exchange = other, but hookbridge needs PREFIX.rejected",
        ),
        (
            "queues",
            "events",
            quorum(
                json!({"x-dead-letter-exchange": "PREFIX.rejected", "x-overflow": "drop-head",
                          "x-dead-letter-strategy": "at-most-once"}),
            ),
            "x-dead-letter-strategy = at-most-once, but hookbridge needs at-least-once",
        ),
        (
            "queues",
            "events",
            quorum(json!({"x-dead-letter-exchange": "PREFIX.rejected", "x-overflow": "drop-head"})),
            "x-overflow = drop-head, but hookbridge needs reject-publish",
        ),
        (
            "queues",
            "events",
            quorum(json!({"x-dead-letter-exchange": "PREFIX.rejected", "x-delivery-limit": 20})),
            "x-delivery-limit = 20, but hookbridge needs 1000000000",
        ),
        (
            "queues",
            "events",
            quorum(json!({"x-dead-letter-exchange": "PREFIX.rejected", "x-message-ttl": 5000})),
            "x-message-ttl = 5000, but hookbridge needs none",
        ),
        (
            "exchanges",
            "first",
            topic(true, "direct", json!({"alternate-exchange": "PREFIX.lost"})),
            "type = direct, but hookbridge needs topic",
        ),
        (
            "exchanges",
            "lost",
            topic(true, "topic", json!({})),
            "type = topic, but hookbridge needs fanout",
        ),
        (
            "exchanges",
            "dead",
            topic(true, "topic", json!({})),
            "alternate-exchange = none, but hookbridge needs PREFIX.lost",
        ),
        (
            "exchanges",
            "dead",
            topic(false, "topic", json!({"alternate-exchange": "PREFIX.lost"})),
            "durable = false, but hookbridge needs true",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_otherwise_is_one_error_that_names_it_the_argument_and_both_values() {
    let vhost = Vhost::new("topology");
    let setup = Setup::of(&vhost);
    for (number, (what, name, object, words)) in existing_otherwise().into_iter().enumerate() {
        let prefix = format!("p{number}");
        setup.set("broker.prefix", prefix.clone());
        let object: Value =
            serde_json::from_str(&object.to_string().replace("PREFIX", &prefix)).unwrap();
        let path = format!("{what}/{}/{prefix}.{name}", vhost.name);
        management::must("PUT", &path, &object);
        let refused = setup.call(&["run"]).await;
        assert_eq!(refused.code, Some(1), "{words}: {}", refused.err);
        let kind = what.trim_end_matches('s');
        let begins = format!("{kind} '{prefix}.{name}' exists with ");
        assert_one_error(
            &refused.err,
            &[&begins, &words.replace("PREFIX", &prefix), "broker.prefix"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_finds_other_arguments_too_and_changes_nothing() {
    let vhost = Vhost::new("topology");
    let setup = Setup::of(&vhost);
    setup.set("broker.declare", false);
    setup.call(&["topology", "--apply"]).await;
    vhost.delete_queue("hookbridge.dead");
    let path = format!("queues/{}/hookbridge.dead", vhost.name);
    let other = json!({"durable": true, "arguments": {
        "x-queue-type": "quorum", "x-dead-letter-exchange": "hookbridge.dead",
    }});
    management::must("PUT", &path, &other);
    let refused = setup.call(&["run"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    let words = "queue 'hookbridge.dead' exists with x-dead-letter-exchange = hookbridge.dead, \
                 but hookbridge needs hookbridge.lost";
    assert_one_error(&refused.err, &[words]);
    let there = management::call("GET", &path, &Value::Null).json();
    assert_eq!(there["arguments"], other["arguments"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_source_exchange_of_any_type_is_taken_as_it_is() {
    let vhost = Vhost::new("topology");
    let receiver = Receiver::start().await;
    let client = vhost.connect().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    setup.set("source.bindings", vec![EVENT_KEY]);
    for kind in [
        ExchangeKind::Direct,
        ExchangeKind::Fanout,
        ExchangeKind::Headers,
    ] {
        let exchange = format!("{kind:?}.events").to_lowercase();
        client.declare_exchange(&exchange, kind).await;
        setup.set("source.exchange", exchange.clone());
        for declare in [true, false] {
            setup.set("broker.declare", declare);
            let program = setup.run_ready().await;
            assert_delivers(&client, &exchange, &receiver).await;
            program.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_configure_nothing_runs_on_what_is_there() {
    let vhost = Vhost::new("topology");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    let applied = setup.call(&["topology", "--apply"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    let user = unique("worker");
    vhost.add_user(&user, ["", ".*", ".*"]);
    setup.set("broker.uri", vhost.uri_as(&user));

    let refused = setup.call(&["run"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert_one_error(
        &refused.err,
        &[
            "cannot declare queue 'hookbridge.events'",
            "access to queue",
        ],
    );

    setup.set("broker.declare", false);
    let program = setup.run_ready().await;
    assert_delivers(&vhost.connect().await, "domain.events", &receiver).await;
    assert_eq!(program.said("cannot check that dead-lettering"), 1);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_deletes_an_old_wait_queue_once_it_is_empty() {
    let vhost = Vhost::new("topology");
    let client = vhost.connect().await;
    let setup = Setup::of(&vhost);
    for delay in ["10s", "1h", "20s"] {
        setup.set("delivery.retry_delay", delay);
        let applied = setup.call(&["topology", "--apply"]).await;
        assert_eq!(applied.code, Some(0), "{}", applied.err);
    }
    let waits = ["10000", "3600000", "20000"].map(|ms| format!("hookbridge.retry.{ms}"));
    let properties = BasicProperties::default();
    let key = "fast.00.3600000.somebody";
    let published = client
        .publish_with("hookbridge.retry", key, b"waits", properties)
        .await;
    assert_eq!(published, Published::Routed);

    let pruned = setup.call(&["topology", "--prune", "10s"]).await;
    assert_eq!(pruned.code, Some(0), "{}", pruned.err);
    assert_eq!(pruned.out, "hookbridge.retry.10000: deleted\n");
    assert_eq!(client.depth(&waits[0]).await, None);

    let pruned = setup.call(&["topology", "--prune", "10s", "1h"]).await;
    assert_eq!(pruned.code, Some(1), "{}", pruned.out);
    assert!(
        pruned
            .out
            .contains("hookbridge.retry.10000: does not exist")
    );
    assert!(
        pruned
            .out
            .contains("hookbridge.retry.3600000: still holds 1")
    );
    assert_one_error(&pruned.err, &["not empty"]);
    assert_eq!(client.depth(&waits[1]).await, Some(1));

    let refused = setup.call(&["topology", "--prune", "20s"]).await;
    assert_eq!(refused.code, Some(1));
    assert_one_error(&refused.err, &["20s is the retry delay in use"]);
    assert_eq!(client.depth(&waits[2]).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_dead_letter_at_least_once_is_refused_until_it_can() {
    let node = PrivateNode::start(&NodeOptions::default()).unwrap();
    let version = node.rabbitmqctl(&["version"]).unwrap();
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap());
    if (numbers.next(), numbers.next()) >= (Some(3), Some(12)) {
        // The feature flag cannot be off there.
        return;
    }
    node.halt().unwrap();
    let flags = node
        .folder()
        .join("data")
        .join(format!("{}-feature_flags", node.name()));
    let enabled = std::fs::read_to_string(&flags).unwrap();
    let without = enabled.replace("stream_queue", "");
    let tidy: Vec<_> = without
        .trim_end_matches(['.', '\n', ']'])
        .trim_start_matches('[')
        .split(',')
        .map(str::trim)
        .filter(|flag| !flag.is_empty())
        .collect();
    std::fs::write(&flags, format!("[{}].\n", tidy.join(","))).unwrap();
    node.restart().unwrap();

    let setup = Setup::new(&node.amqp_uri("/"));
    let command = "rabbitmqctl enable_feature_flag stream_queue";
    for arguments in [&["run"][..], &["topology", "--apply"]] {
        let refused = setup.call(arguments).await;
        assert_eq!(refused.code, Some(1), "{}", refused.err);
        assert_one_error(
            &refused.err,
            &["does not dead-letter at least once", command],
        );
    }
    // A queue made now would stay without it when the flag is on, even over a restart.
    let client = Client::connect(&node.amqp_uri("/")).await;
    assert_eq!(client.depth("hookbridge.events").await, None);
    node.rabbitmqctl(&["enable_feature_flag", "stream_queue"])
        .unwrap();
    let program = setup.run_ready().await;
    // Every queue that dead-letters at least once has a process that does it: all but `lost`.
    let count = "length(supervisor:which_children(rabbit_fifo_dlx_sup)).";
    let all = async || (node.rabbitmqctl(&["eval", count]).unwrap() == "52").then_some(());
    let what = "all queues dead-letter at least once";
    program
        .watch(what, START.min(Duration::from_secs(30)), all)
        .await;
    program.stop().await;
}
