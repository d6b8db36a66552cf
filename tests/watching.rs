//! What the bridge tells of itself: `/metrics` and the log.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{
    broker::Vhost,
    client::{Client, Published},
    eventually::SOON,
    http::{Answer, Receiver},
    program::{Program, Setup, event},
};

const TYPES: [&str; 11] = [
    "case.status.updated",
    "case.cost_proposal.created",
    "case.message.created",
    "case.file.uploaded",
    "activity.created",
    "activity.updated",
    "claim.attribute.changed",
    "case.attribute.changed",
    "contact.attribute.changed",
    "activity.attribute.changed",
    "claim.status.changed",
];

const WEBHOOKS: [&str; 10] = [
    "StatusUpdate",
    "NewCostProposal",
    "NewMessage",
    "NewFileUploaded",
    "ActivityChange",
    "ClaimAttributeChange",
    "CaseAttributeChange",
    "ContactAttributeChange",
    "ActivityAttributeChange",
    "ClaimStatusChange",
];

const REASONS: [&str; 14] = [
    "http_status",
    "timeout",
    "connect",
    "dns",
    "tls",
    "protocol",
    "access_refused",
    "blocked",
    "returned",
    "nacked",
    "channel_closed",
    "target_forbidden",
    "subscriber_removed",
    "subscriber_disabled",
];

/// Every metric of the design: name, type and labels.
const METRICS: [(&str, &str, &[&str]); 22] = [
    ("hookbridge_events_total", "counter", &["result", "type"]),
    (
        "hookbridge_deliveries_total",
        "counter",
        &["outcome", "transport", "webhook"],
    ),
    (
        "hookbridge_attempts_total",
        "counter",
        &["attempt", "result", "transport"],
    ),
    (
        "hookbridge_attempt_duration_seconds",
        "histogram",
        &["transport"],
    ),
    (
        "hookbridge_delivery_latency_seconds",
        "histogram",
        &["transport"],
    ),
    ("hookbridge_in_flight", "gauge", &["transport"]),
    ("hookbridge_slow_subscribers", "gauge", &[]),
    (
        "hookbridge_subscriber_failures_in_a_row",
        "gauge",
        &["subscriber"],
    ),
    ("hookbridge_queue_messages", "gauge", &["queue"]),
    ("hookbridge_subscribers", "gauge", &["state"]),
    ("hookbridge_ready", "gauge", &[]),
    ("hookbridge_broker_connected", "gauge", &[]),
    ("hookbridge_broker_blocked", "gauge", &[]),
    ("hookbridge_broker_reconnects_total", "counter", &[]),
    ("hookbridge_dead_letters", "gauge", &[]),
    (
        "hookbridge_dead_letters_archived_total",
        "counter",
        &["kind"],
    ),
    ("hookbridge_dead_letters_removed_total", "counter", &[]),
    ("hookbridge_store_configured", "gauge", &[]),
    ("hookbridge_store_connected", "gauge", &[]),
    (CERTIFICATE, "gauge", &["certificate"]),
    ("hookbridge_build_info", "gauge", &["version"]),
    ("hookbridge_tasks", "gauge", &[]),
];

/// Has a series for each certificate that the settings name: none here, but in `alerts.rs`.
const CERTIFICATE: &str = "hookbridge_certificate_expiry_timestamp_seconds";

/// What Prometheus' libraries tell of any process, and no label with it.
const OF_THE_PROCESS: &str = "process_";

/// One line of `/metrics`: the metric that it belongs to, and its labels.
fn parsed(series: &str) -> (String, BTreeMap<String, String>) {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let name = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    let labels = labels.trim_end_matches('}');
    let pair = |pair: &str| {
        let (label, value) = pair.split_once('=').unwrap();
        (label.to_owned(), value.trim_matches('"').to_owned())
    };
    let labels = labels.split(',').filter(|pair| !pair.is_empty());
    (name.to_owned(), labels.map(pair).collect())
}

/// The values that a label may ever have.
fn allowed(label: &str, value: &str, subscribers: &[&str]) -> bool {
    match label {
        "type" => TYPES.contains(&value) || value == "other",
        "result" => {
            ["accepted", "ignored", "unmatched", "rejected", "delivered"].contains(&value)
                || REASONS.contains(&value)
        }
        "webhook" => WEBHOOKS.contains(&value),
        "transport" => ["http", "amqp", "unknown"].contains(&value),
        "outcome" => ["delivered", "dead"].contains(&value),
        "attempt" => ["1", "2"].contains(&value),
        "queue" => {
            let groups = [
                "events", "first", "retry", "second", "dead", "rejected", "lost",
            ];
            groups.contains(&value)
        }
        "state" => ["enabled", "disabled"].contains(&value),
        "subscriber" => subscribers.contains(&value),
        "kind" => ["dead", "rejected", "lost"].contains(&value),
        "version" => value == env!("CARGO_PKG_VERSION"),
        "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
        _ => false,
    }
}

async fn publish(client: &Client, event: &Value) {
    let key = event["type"].as_str().unwrap_or("none");
    let key: String = key.chars().take(200).collect();
    let body = event.to_string();
    let published = client.publish("domain.events", &key, body.as_bytes()).await;
    assert_eq!(published, Published::Routed);
}

/// Checks every line of `/metrics` against the table, and returns the names that have a series.
async fn assert_contract(program: &Program, subscribers: &[&str]) -> BTreeSet<String> {
    let (_, text) = program.get("/metrics").await;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ")
            && !kind.starts_with(OF_THE_PROCESS)
        {
            let known = METRICS
                .iter()
                .any(|(name, of, _)| kind == format!("{name} {of}"));
            assert!(known, "{line}");
        }
    }
    let mut seen = BTreeSet::new();
    for series in program.metrics().await.into_keys() {
        let (name, mut labels) = parsed(&series);
        if name.starts_with(OF_THE_PROCESS) {
            assert!(labels.is_empty(), "{series}");
            continue;
        }
        let (_, kind, expected) = METRICS
            .iter()
            .find(|(known, ..)| *known == name)
            .unwrap_or_else(|| panic!("{series}"));
        for (label, value) in &labels {
            assert!(allowed(label, value, subscribers), "{series}");
        }
        if *kind == "histogram" {
            labels.remove("le");
        }
        let labels: Vec<_> = labels.keys().map(String::as_str).collect();
        assert_eq!(labels, *expected, "{series}");
        seen.insert(name);
    }
    seen
}

/// What the deliveries of the test below come to.
async fn wait_for_counts(program: &Program) {
    let status = "case.status.updated";
    for (result, kind, count) in [
        ("accepted", status, 2.0),
        ("unmatched", status, 1.0),
        ("rejected", status, 1.0),
        // The empty type is an empty attribute: not unknown, but not valid.
        ("ignored", "other", 4.0),
        ("rejected", "other", 4.0),
    ] {
        let series = format!("hookbridge_events_total{{result=\"{result}\",type=\"{kind}\"}}");
        program.wait_metric(&series, count).await;
    }
    for (outcome, transport, count) in [
        ("delivered", "http", 2.0),
        ("delivered", "amqp", 2.0),
        ("dead", "http", 1.0),
        ("dead", "amqp", 0.0),
    ] {
        let series = format!(
            "hookbridge_deliveries_total{{outcome=\"{outcome}\",transport=\"{transport}\",webhook=\"StatusUpdate\"}}"
        );
        program.wait_metric(&series, count).await;
    }
    for (attempt, result, transport, count) in [
        (1, "delivered", "http", 1.0),
        (1, "http_status", "http", 2.0),
        (2, "delivered", "http", 1.0),
        (2, "http_status", "http", 1.0),
        (1, "delivered", "amqp", 2.0),
        (2, "delivered", "amqp", 0.0),
    ] {
        let series = format!(
            "hookbridge_attempts_total{{attempt=\"{attempt}\",result=\"{result}\",transport=\"{transport}\"}}"
        );
        program.wait_metric(&series, count).await;
    }
    for (series, count) in [
        (
            "hookbridge_attempt_duration_seconds_count{transport=\"http\"}",
            5.0,
        ),
        (
            "hookbridge_attempt_duration_seconds_count{transport=\"amqp\"}",
            2.0,
        ),
        (
            "hookbridge_delivery_latency_seconds_count{transport=\"http\"}",
            2.0,
        ),
        (
            "hookbridge_delivery_latency_seconds_count{transport=\"amqp\"}",
            2.0,
        ),
        ("hookbridge_in_flight{transport=\"http\"}", 0.0),
        (
            "hookbridge_subscriber_failures_in_a_row{subscriber=\"failing\"}",
            2.0,
        ),
        ("hookbridge_subscribers{state=\"enabled\"}", 4.0),
        ("hookbridge_subscribers{state=\"disabled\"}", 1.0),
        ("hookbridge_queue_messages{queue=\"dead\"}", 1.0),
        ("hookbridge_queue_messages{queue=\"rejected\"}", 5.0),
        ("hookbridge_queue_messages{queue=\"events\"}", 0.0),
        ("hookbridge_broker_connected", 1.0),
        ("hookbridge_broker_blocked", 0.0),
        ("hookbridge_slow_subscribers", 0.0),
        ("hookbridge_dead_letters", 0.0),
    ] {
        program.wait_metric(series, count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_contract_is_there_and_counts() {
    let vhost = Vhost::new("watching");
    let client = vhost.connect().await;
    client.declare_quorum("their.queue").await;
    let receiver = Receiver::start().await;
    receiver.answer_in_turn("/retried", vec![Answer::Status(500), Answer::Status(200)]);
    receiver.answer("/failing", Answer::Status(418));
    let setup = Setup::of(&vhost);
    setup.set("source.max_event_bytes", 4096);
    let party = |id: &str, target: &str| {
        let text = format!("id = \"{id}\"\nparty = \"{id}\"\nevents = [\"*\"]\n{target}\n");
        setup.subscriber(id, &text);
    };
    for path in ["fine", "retried", "failing"] {
        let url = receiver.url(&format!("/{path}"));
        party(path, &format!("[http]\nurl = \"{url}\""));
    }
    party("queue", "[amqp]\nqueue = \"their.queue\"");
    setup.subscriber(
        "off",
        "id = \"off\"\nenabled = false\nscope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"http://off.example/\"\n",
    );
    let program = setup.run_ready().await;
    let all = ["fine", "retried", "failing", "queue", "off"];

    // Two deliveries over AMQP, one over HTTP, one after a retry, one dead.
    publish(&client, &event("a", &["fine", "queue"])).await;
    publish(&client, &event("b", &["queue", "retried", "failing"])).await;
    // Nobody's; unknown; and wrong in several ways, all with names of the sender's choice.
    publish(&client, &event("c", &["somebody-else"])).await;
    for kind in [
        "evil\"} 1\nhookbridge_x{a=\"",
        "",
        "StatusUpdate",
        "🦀",
        "other.kind",
    ] {
        let mut unknown = event("d", &["fine"]);
        unknown["type"] = json!(kind);
        publish(&client, &unknown).await;
    }
    publish(&client, &json!({"type": "hostile-1"})).await;
    publish(&client, &json!(["hostile-2"])).await;
    let mut broken = event("e", &["fine"]);
    broken["data"]["status"]["key"] = json!(17);
    publish(&client, &broken).await;
    let mut large = event("f", &["fine"]);
    large["data"]["more"] = json!("x".repeat(5_000));
    publish(&client, &large).await;

    wait_for_counts(&program).await;
    let metrics = program.metrics().await;
    // A success ends a row of failures: the series is gone.
    let retried = "hookbridge_subscriber_failures_in_a_row{subscriber=\"retried\"}";
    assert!(!metrics.contains_key(retried));
    let build = concat!(
        "hookbridge_build_info{version=\"",
        env!("CARGO_PKG_VERSION"),
        "\"}"
    );
    assert!((metrics[build] - 1.0).abs() < 1e-9);
    // The wait for the retry is in the latency, and not in the attempt.
    let slow = "hookbridge_delivery_latency_seconds_bucket{transport=\"http\",le=\"0.2\"}";
    assert!((metrics[slow] - 2.0).abs() > 0.5, "{}", metrics[slow]);

    let seen = assert_contract(&program, &all).await;
    let names = METRICS.iter().map(|(name, ..)| (*name).to_owned());
    let missing: Vec<_> = names
        .filter(|n| n != CERTIFICATE && !seen.contains(n))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_series_that_alerts_look_at_are_there_from_the_start() {
    let setup = Setup::new("amqp://guest:guest@127.0.0.1:1/%2f");
    let mut program = setup.run();
    assert_contract(&program, &[]).await;
    let metrics = program.metrics().await;
    for webhook in WEBHOOKS {
        for transport in ["http", "amqp"] {
            let series = format!(
                "hookbridge_deliveries_total{{outcome=\"dead\",transport=\"{transport}\",webhook=\"{webhook}\"}}"
            );
            assert!(metrics[&series].abs() < 1e-9, "{series}");
        }
    }
    for transport in ["http", "amqp"] {
        for histogram in ["attempt_duration", "delivery_latency"] {
            let bounds: BTreeSet<_> = metrics
                .keys()
                .filter(|series| series.starts_with(&format!("hookbridge_{histogram}_seconds_b")))
                .map(|series| parsed(series).1)
                .filter(|labels| labels["transport"] == transport)
                .map(|labels| labels["le"].clone())
                .collect();
            for bound in ["0.001", "0.01", "0.1", "1", "10", "30", "60", "+Inf"] {
                assert!(bounds.contains(bound), "{bound} in {bounds:?}");
            }
        }
    }
    program.signal("TERM");
    assert_eq!(program.wait_exit(SOON).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_in_a_row_name_the_fifty_worst_and_no_more() {
    let vhost = Vhost::new("watching");
    let client = vhost.connect().await;
    let receiver = Receiver::start().await;
    receiver.answer_with("/", |_, _| Answer::Status(500));
    let setup = Setup::of(&vhost);
    let url = receiver.url("/");
    for number in 0..60 {
        // All of them fail, and the last ten twice as often.
        let events = if number < 50 { "w1" } else { "w" };
        let id = format!("{events}-{number}");
        let cases = if number < 50 {
            "[\"one\"]"
        } else {
            "[\"one\", \"two\"]"
        };
        let text =
            format!("id = \"{id}\"\ncases = {cases}\nevents = [\"*\"]\n[http]\nurl = \"{url}\"\n");
        setup.subscriber(&id, &text);
    }
    let program = setup.run_ready().await;
    publish(&client, &event("one", &[])).await;
    publish(&client, &event("two", &[])).await;
    let dead =
        "hookbridge_deliveries_total{outcome=\"dead\",transport=\"http\",webhook=\"StatusUpdate\"}";
    program.wait_metric(dead, 70.0).await;
    let metrics = program.metrics().await;
    let rows: Vec<_> = metrics
        .iter()
        .filter(|(series, _)| series.starts_with("hookbridge_subscriber_failures_in_a_row"))
        .collect();
    assert_eq!(rows.len(), 50);
    let worst = rows.iter().filter(|(_, count)| **count > 3.5).count();
    assert_eq!(worst, 10, "{rows:?}");
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_line_for_the_first_failure_of_each_kind_and_none_for_a_success() {
    let vhost = Vhost::new("watching");
    let client = vhost.connect().await;
    let receiver = Receiver::start().await;
    receiver.answer(
        "/failing",
        Answer::Body(503, b"come back, key hunter2".into()),
    );
    let setup = Setup::of(&vhost);
    setup.set("log.format", "json");
    setup.http_subscriber("fine", &receiver.url("/fine"));
    let failing = receiver.url("/failing?token=hunter2");
    setup.http_subscriber("failing", &failing);
    let program = setup.run_ready().await;
    let before = program.log().len();
    publish(&client, &event("one", &[])).await;
    client.wait_for_depth("hookbridge.dead", 1, SOON).await;
    program
        .wait_metric(
            "hookbridge_deliveries_total{outcome=\"delivered\",transport=\"http\",webhook=\"StatusUpdate\"}",
            1.0,
        )
        .await;
    let log = program.log();
    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(&line.text).unwrap_or_else(|_| panic!("{}", line.text)))
        .collect();
    for line in &lines {
        for key in ["timestamp", "level", "message", "target"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
    }
    let mut attempts = BTreeSet::new();
    for line in &lines[before..] {
        assert_eq!(line["level"], "WARN", "{line}");
        assert_eq!(line["subscriber"], "failing", "{line}");
        assert_eq!(line["webhook"], "StatusUpdate", "{line}");
        assert_eq!(line["reason"], "http_status", "{line}");
        let message = line["message"].as_str().unwrap();
        assert!(message.contains("503"), "{line}");
        let number = line["attempt"].as_u64().unwrap();
        let next = if number == 1 { "retry" } else { "dead" };
        assert_eq!(line["next"], next, "{line}");
        let id = line["delivery"].as_str().unwrap().to_owned();
        let same = receiver
            .arrivals_at("/failing")
            .iter()
            .any(|arrival| arrival.header("webhook-id") == Some(&id));
        assert!(same, "{line}");
        attempts.insert((id, number));
    }
    assert_eq!(lines.len() - before, 2);
    assert_eq!(attempts.len(), 2);
    let text = program.log_text();
    assert!(!text.contains("hunter2"), "a secret in the log");
    let password = format!("{0}:{0}@", vhost.name);
    assert!(
        !text.contains(&password),
        "the broker's password in the log"
    );
    program.stop().await;
}
