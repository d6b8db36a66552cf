//! What is watched, on a real Prometheus: `/metrics` is as Prometheus wants it, and nothing that the
//! rules, the dashboard or the runbooks ask for is missing, after traffic of which some fails.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    alerts::project_file,
    support::{
        broker::Vhost,
        client::{Client, Published},
        eventually::SOON,
        http::{Answer, Receiver},
        picture::{self, Panel},
        program::{Program, Setup, event},
        prometheus::{Prometheus, installed, promtool},
    },
};

const DASHBOARD: &str = "deploy/grafana/dashboards/hookbridge.json";
/// What stands for Grafana's variable: a rate needs more than one scrape in it.
const RATE_INTERVAL: (&str, &str) = ("$__rate_interval", "10s");
/// How long there is traffic; and in a picture, where its rates shall be seen to change.
const TRAFFIC: Duration = Duration::from_secs(12);
const LONG_TRAFFIC: Duration = Duration::from_secs(150);
/// Where to draw what the dashboard shows, if anywhere: `make dashboard`.
const PICTURE: &str = "DASHBOARD_PICTURE";

/// A bridge with everything that can be configured, and one subscriber for each way that it can go.
struct Stage {
    _vhost: Vhost,
    client: Client,
    receiver: Receiver,
    setup: Setup,
    program: Program,
    certificate: reqwest::Certificate,
}

impl Stage {
    async fn new() -> Self {
        let vhost = Vhost::new("dashboard");
        let client = vhost.connect().await;
        client.declare_quorum("their.queue").await;
        let receiver = Receiver::start().await;
        receiver.answer_with("/failing", |_, _| Answer::Status(503));
        receiver.answer_with("/flaky", |_, before| {
            Answer::Status(if before % 3 == 0 { 500 } else { 200 })
        });
        let delay = Duration::from_millis(40);
        receiver.answer("/fine", Answer::After(delay, Box::new(Answer::Status(200))));
        let setup = Setup::of(&vhost);
        let (certificate, key) = certificate();
        let write = |name: &str, text: String| fs::write(setup.path(name), text).unwrap();
        write("admin.crt", certificate.pem());
        write("admin.key", key.serialize_pem());
        setup.set("admin.certificate_file", "admin.crt");
        setup.set("admin.key_file", "admin.key");
        setup.set("store.url", "sqlite://store.db");
        for path in ["fine", "flaky", "failing"] {
            setup.http_subscriber(path, &receiver.url(&format!("/{path}")));
        }
        for (id, queue) in [("queue", "their.queue"), ("missing", "nowhere")] {
            let text = format!(
                "id = \"{id}\"\nscope = \"all\"\nevents = [\"*\"]\n[amqp]\nqueue = \"{queue}\"\n"
            );
            setup.subscriber(id, &text);
        }
        Self {
            program: setup.run(),
            certificate: reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap(),
            _vhost: vhost,
            client,
            receiver,
            setup,
        }
    }

    async fn publish(&self, event: &Value) {
        let key = event["type"].as_str().unwrap_or("none");
        let body = event.to_string();
        let published = self
            .client
            .publish("domain.events", key, body.as_bytes())
            .await;
        assert_eq!(published, Published::Routed);
    }

    /// Events for everybody, and now and then one that nobody can use, for as long as this.
    async fn traffic(&self, span: Duration) {
        let began = Instant::now();
        let mut number = 0;
        while began.elapsed() < span {
            // Busier and calmer, so that a picture has something to show.
            let turn = began.elapsed().as_secs_f64() / span.as_secs_f64();
            let pause = 0.15 + 0.1 * (turn * 12.0).sin();
            self.publish(&event(&format!("event-{number}"), &["fixit"]))
                .await;
            if number % 10 == 0 {
                let mut wrong = event("wrong", &["fixit"]);
                wrong["data"]["status"]["key"] = json!(17);
                self.publish(&wrong).await;
                wrong["type"] = json!("something.else");
                self.publish(&wrong).await;
            }
            number += 1;
            sleep(Duration::from_secs_f64(pause)).await;
        }
    }

    /// `/metrics`, as it is.
    async fn metrics(&self) -> String {
        let address = self.program.admin().await;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([self.certificate.clone()])
            .resolve("localhost", address.parse().unwrap())
            .build()
            .unwrap();
        let (_, port) = address.rsplit_once(':').unwrap();
        let url = format!("https://localhost:{port}/metrics");
        client.get(url).send().await.unwrap().text().await.unwrap()
    }
}

/// One that ends in ninety days.
fn certificate() -> (rcgen::Certificate, rcgen::KeyPair) {
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(90 * 24);
    let end = end.to_zoned(jiff::tz::TimeZone::UTC).date();
    let (month, day) = (end.month().unsigned_abs(), end.day().unsigned_abs());
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(end.year().into(), month, day);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), key)
}

/// The panels of the dashboard that ask for something.
fn panels() -> Vec<Panel> {
    let dashboard: Value = serde_json::from_str(&project_file(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let panels: Vec<_> = panels
        .filter(|panel| panel["type"] != "row")
        .map(|panel| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let targets = panel["targets"].as_array().unwrap().iter();
            Panel {
                title: text(&panel["title"]),
                kind: text(&panel["type"]),
                unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
                queries: targets
                    .map(|target| {
                        let (variable, value) = RATE_INTERVAL;
                        let query = text(&target["expr"]).replace(variable, value);
                        assert!(!query.contains('$'), "{query}");
                        (query, text(&target["legendFormat"]))
                    })
                    .collect(),
            }
        })
        .collect();
    assert!(panels.len() > 20);
    panels
}

/// Every metric that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("hookbridge_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The names of all metrics in `/metrics`, and of their series: a histogram has several of each.
fn series(metrics: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let line = line.strip_prefix("# TYPE ").unwrap_or(line);
        line.split(['{', ' ']).next().unwrap().to_owned()
    };
    let lines = metrics.lines().filter(|line| !line.starts_with("# HELP"));
    lines.map(name).collect()
}

async fn assert_nothing_is_missing(stage: &Stage) {
    let metrics = stage.metrics().await;
    let file = stage.setup.path("metrics.txt");
    fs::write(&file, &metrics).unwrap();
    promtool(&["check", "metrics"], Some(&file));
    let there = series(&metrics);
    for file in [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
        DASHBOARD,
        "docs/runbooks.md",
    ] {
        let named = named(&project_file(file));
        assert!(named.len() > 8, "{file}: {named:?}");
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}");
    }
}

async fn assert_no_panel_is_empty(prometheus: &Prometheus) {
    for panel in panels() {
        for (query, _) in panel.queries {
            let answer = prometheus.ask(&query).await;
            let numbers = answer.iter().flat_map(|series| &series.values);
            let some = numbers.filter(|(_, value)| !value.is_nan()).count();
            assert!(some > 0, "'{}' is empty: {query}", panel.title);
        }
    }
}

/// Prometheus can evaluate every rule, and those fire that this traffic must have fire.
async fn assert_rules_work(prometheus: &Prometheus) {
    for alert in ["HookbridgeDeadLetters", "HookbridgeRejected"] {
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        prometheus.wait_for(&firing).await;
    }
    let rules = prometheus.call("rules", &[]).await;
    let rules = rules["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() > 15);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    for quiet in [
        "HookbridgeDown",
        "HookbridgeBrokerAway",
        "HookbridgeStoreAway",
    ] {
        let any = format!("ALERTS{{alertname=\"{quiet}\",alertstate=\"firing\"}}");
        assert!(prometheus.ask(&any).await.is_empty(), "{quiet}");
    }
    let ends = prometheus
        .ask("hookbridge_certificate_expiry_timestamp_seconds - time()")
        .await;
    assert_eq!(ends[0].labels["certificate"], "admin");
    let days = ends[0].values[0].1 / 86_400.0;
    assert!((88.0..91.0).contains(&days), "{days}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_panel_is_empty_and_no_rule_or_runbook_asks_for_what_is_not_there() {
    if !installed("dashboard") {
        return;
    }
    let stage = Stage::new().await;
    let prometheus = Prometheus::scraping(&stage.program.admin().await).await;
    prometheus.wait_for("hookbridge_ready == 1").await;
    let picture = std::env::var_os(PICTURE).map(PathBuf::from);
    let span = if picture.is_some() {
        LONG_TRAFFIC
    } else {
        TRAFFIC
    };
    stage.traffic(span).await;
    stage.receiver.wait_for(10, SOON).await;

    assert_nothing_is_missing(&stage).await;
    assert_no_panel_is_empty(&prometheus).await;
    assert_rules_work(&prometheus).await;
    if let Some(file) = picture {
        let drawn = picture::draw(&prometheus, &panels(), span).await;
        fs::write(&file, drawn).unwrap();
    }
    assert!(
        !prometheus.log().contains("level=error"),
        "{}",
        prometheus.log()
    );
    stage.program.stop().await;
}
