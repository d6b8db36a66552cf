//! The program, with a store, and what it answers.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use hookbridge::cli::demo::node::free_listener;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;

/// How long a start may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(1);
/// Each may ask 200 times a second.
const TOKENS: usize = 8;
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";

/// A folder with settings.
pub(crate) struct Setup {
    folder: TempDir,
    /// The home broker.
    pub(crate) uri: String,
    store: String,
}

impl Setup {
    /// For this broker and this store, which must be empty.
    pub(crate) fn new(uri: &str, store: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("subscribers")).expect("a folder");
        fs::write(folder.path().join("store.key"), KEY).expect("a key");
        let setup = Self {
            folder,
            uri: uri.to_owned(),
            store: store.to_owned(),
        };
        setup.write(0);
        setup
    }

    /// The settings file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("hookbridge.toml")
    }

    fn write(&self, port: u16) {
        let tokens = (0..TOKENS).map(|number| {
            format!(
                "[[admin.token]]\nname = \"ops-{number}\"\nvalue = \"{}\"\nrole = \"operator\"\n",
                token(number)
            )
        });
        let tokens: String = tokens.collect();
        let settings = format!(
            "[broker]\nuri = \"{}\"\n[targets]\nallow_networks = [\"127.0.0.0/8\"]\n\
             [subscribers]\ndirectory = \"subscribers\"\n\
             [store]\nurl = \"{}\"\nsecret_key_file = \"store.key\"\n\
             [admin]\nlisten = \"127.0.0.1:{port}\"\n{tokens}",
            self.uri, self.store,
        );
        fs::write(self.file(), settings).expect("the settings");
    }

    /// Starts the bridge, and waits until it is ready.
    pub(crate) async fn start(&self) -> Bridge {
        let listener = free_listener().expect("a port");
        let port = listener.local_addr().expect("a port").port();
        drop(listener);
        self.write(port);
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOOKBRIDGE") {
                command.env_remove(name);
            }
        }
        command.arg("run").arg("--config").arg(self.file());
        let began = Instant::now();
        let process = Process::start("store-bridge", &mut command);
        let http = reqwest::Client::builder().no_proxy().build();
        let mut bridge = Bridge {
            process,
            base: format!("http://127.0.0.1:{port}"),
            http: http.expect("a client"),
            asked: 0,
            ready_after: Duration::ZERO,
        };
        while !bridge.is_ready().await {
            bridge.process.must_run();
            assert!(began.elapsed() < PATIENCE, "the bridge does not get ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bridge.ready_after = began.elapsed();
        bridge
    }
}

fn token(number: usize) -> String {
    format!("token-of-{number}")
}

/// A running bridge.
pub(crate) struct Bridge {
    pub(crate) process: Process,
    base: String,
    http: reqwest::Client,
    asked: usize,
    /// From the start of the process.
    pub(crate) ready_after: Duration,
}

impl Bridge {
    async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.base)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// The value of a metric, its series added up.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.http.get(format!("{}/metrics", self.base)).send();
        let text = answer.await.expect("an answer").text().await;
        let text = text.expect("the metrics");
        let series = text.lines().filter(|line| line.starts_with(name));
        series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Makes a call, which must succeed; gives the answer, and how long it took to be read whole.
    pub(crate) async fn call(
        &mut self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> (Value, Duration) {
        self.asked += 1;
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(token(self.asked % TOKENS));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let began = Instant::now();
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("an answer");
        let took = began.elapsed();
        assert!(status.is_success(), "{path}: {status} {text}");
        (serde_json::from_str(&text).unwrap_or_default(), took)
    }

    /// Reads something.
    pub(crate) async fn get(&mut self, path: &str) -> (Value, Duration) {
        self.call(reqwest::Method::GET, path, None).await
    }

    /// Asks for something.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Value {
        self.call(reqwest::Method::POST, path, Some(body)).await.0
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(self) {
        let status = self.process.stop().await;
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}
