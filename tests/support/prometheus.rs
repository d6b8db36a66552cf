//! A private Prometheus for the tests, where the machine has one: on a port and in a folder of its
//! own, with the rules that the project ships.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use hookbridge::cli::demo::node::free_listener;
use serde_json::Value;
use tempfile::TempDir;

use super::eventually::{SOON, eventually};

/// The rules that the project ships.
pub fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus")
}

/// Whether the machine has Prometheus and its tool. Says so where it has not.
#[expect(
    clippy::print_stderr,
    reason = "whoever runs the tests must see what was left out"
)]
pub fn installed(test: &str) -> bool {
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    let installed = there("prometheus") && there("promtool");
    if !installed {
        eprintln!(
            "{test}: left out, since there is no prometheus and promtool: deploy/install-missing prometheus"
        );
    }
    installed
}

/// Runs promtool, which must be content. Gives what it printed.
#[track_caller]
pub fn promtool(arguments: &[&str], input: Option<&Path>) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(rules());
    command.stdin(match input {
        Some(path) => Stdio::from(fs::File::open(path).unwrap()),
        None => Stdio::null(),
    });
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    said
}

/// A series of an answer: its labels, and its values with their times.
#[derive(Debug, Clone)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub values: Vec<(f64, f64)>,
}

/// A running Prometheus. Dropping it kills it and removes its folder.
pub struct Prometheus {
    process: Child,
    base: String,
    http: reqwest::Client,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one that asks the bridge at this address every second, over TLS with a certificate
    /// that it does not judge.
    pub async fn scraping(bridge: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_listener().unwrap().local_addr().unwrap().port();
        let rules = rules().join("alerts.yml").display().to_string();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n\
             - job_name: hookbridge\n  scheme: https\n  tls_config: {{insecure_skip_verify: true}}\n  \
             static_configs: [{{targets: [{bridge:?}]}}]\n"
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Self {
            process,
            base: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            folder,
        };
        let ready = async || {
            let asked = prometheus.http.get(format!("{}/-/ready", prometheus.base));
            let status = asked.send().await.ok()?.status();
            status.is_success().then_some(())
        };
        eventually("Prometheus is ready", SOON * 2, ready).await;
        prometheus
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The answer to an expression, as of now.
    pub async fn ask(&self, expression: &str) -> Vec<Series> {
        let data = self.call("query", &[("query", expression)]).await;
        let read = |result: &Value| Series {
            labels: labels(&result["metric"]),
            values: vec![value(&result["value"])],
        };
        data["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(read)
            .collect()
    }

    /// The answer over the last `span`, every second.
    pub async fn ask_over(&self, expression: &str, span: Duration) -> Vec<Series> {
        let now = jiff::Timestamp::now().as_second();
        let start = now - i64::try_from(span.as_secs()).unwrap();
        let (start, now) = (start.to_string(), now.to_string());
        let parameters = [
            ("query", expression),
            ("start", &start),
            ("end", &now),
            ("step", "1"),
        ];
        let data = self.call("query_range", &parameters).await;
        let read = |result: &Value| Series {
            labels: labels(&result["metric"]),
            values: result["values"]
                .as_array()
                .unwrap()
                .iter()
                .map(value)
                .collect(),
        };
        data["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(read)
            .collect()
    }

    /// Waits until an expression has an answer.
    pub async fn wait_for(&self, expression: &str) -> Vec<Series> {
        let answered =
            async || Some(self.ask(expression).await).filter(|series| !series.is_empty());
        eventually(expression, SOON * 3, answered).await
    }

    /// Calls its API.
    pub async fn call(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("{}/api/v1/{path}", self.base);
        let url = reqwest::Url::parse_with_params(&url, parameters).unwrap();
        let answer = self.http.get(url).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {text}");
        answer["data"].take()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn labels(metric: &Value) -> BTreeMap<String, String> {
    let labels = metric.as_object().unwrap().iter();
    labels
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

/// A time and a value, which is text.
fn value(pair: &Value) -> (f64, f64) {
    (
        pair[0].as_f64().unwrap(),
        pair[1].as_str().unwrap().parse().unwrap(),
    )
}
