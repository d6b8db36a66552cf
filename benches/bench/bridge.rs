//! The bridge, as its own process, with settings and subscribers of a part's own.

use std::{
    fmt::Write,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use hookbridge::{broker::topology::Topology, cli::demo::node::free_listener};
use tempfile::TempDir;

use crate::{ground::Ground, process::Process};

static STARTED: AtomicU32 = AtomicU32::new(0);
/// How long a start may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// Everything that a bridge reads: the built-in settings, but for where it runs.
pub(crate) struct Setup {
    folder: TempDir,
    uri: String,
    retry_delay: Duration,
    more: String,
}

/// A subscriber's file.
pub(crate) struct Subscriber {
    id: String,
    text: String,
}

impl Subscriber {
    /// One that gets the events of `party` by HTTP, or without a party all.
    pub(crate) fn http(id: &str, party: Option<&str>, url: &str) -> Self {
        Self::new(id, party, &format!("[http]\nurl = \"{url}\"\n"))
    }

    /// One that gets them in a queue, on the home broker or on the one at `uri`.
    pub(crate) fn queue(id: &str, party: Option<&str>, uri: Option<&str>, queue: &str) -> Self {
        let broker = uri.map(|uri| format!("uri = \"{uri}\"\n"));
        let target = format!(
            "[amqp]\n{}queue = \"{queue}\"\n",
            broker.unwrap_or_default()
        );
        Self::new(id, party, &target)
    }

    fn new(id: &str, party: Option<&str>, target: &str) -> Self {
        let who = party.map_or_else(
            || "scope = \"all\"".to_owned(),
            |party| format!("party = \"{party}\""),
        );
        Self {
            id: id.to_owned(),
            text: format!("id = \"{id}\"\n{who}\nevents = [\"StatusUpdate\"]\n{target}"),
        }
    }
}

impl Setup {
    /// For the broker of `ground`, whose exchanges and queues are declared if they are missing.
    pub(crate) fn new(ground: &Ground, subscribers: &[Subscriber]) -> Self {
        Self::with(ground, subscribers, Duration::from_secs(30), "")
    }

    /// The same, with this retry delay and further lines of settings, first of `[delivery]`.
    pub(crate) fn with(
        ground: &Ground,
        subscribers: &[Subscriber],
        retry_delay: Duration,
        more: &str,
    ) -> Self {
        let setup = Self {
            folder: tempfile::tempdir().expect("a folder"),
            uri: ground.uri.clone(),
            retry_delay,
            more: more.to_owned(),
        };
        let folder = setup.folder.path().join("subscribers");
        fs::create_dir(&folder).expect("a folder");
        for Subscriber { id, text } in subscribers {
            fs::write(folder.join(format!("{id}.toml")), text).expect("a subscriber's file");
        }
        let declared = setup
            .command("topology", 0)
            .arg("--apply")
            .output()
            .expect("hookbridge");
        let said = String::from_utf8_lossy(&declared.stderr);
        assert!(declared.status.success(), "the topology: {said}");
        setup
    }

    /// Its exchanges and queues.
    pub(crate) fn topology(&self) -> Topology {
        Topology::new(
            "hookbridge",
            "domain.events",
            &["#".to_owned()],
            self.retry_delay,
        )
    }

    /// Empties every queue of the bridge, once what a killed bridge held is back in them.
    pub(crate) async fn purge(&self, ground: &Ground) {
        for queue in self.topology().queues {
            while ground.consumers(&queue.name).await > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            ground.purge(&queue.name).await;
        }
    }

    /// Its settings, with its admin listener on this port.
    pub(crate) fn file(&self, port: u16) -> PathBuf {
        let mut settings = String::new();
        write!(
            settings,
            "[broker]\nuri = \"{}\"\n[admin]\nlisten = \"127.0.0.1:{port}\"\n\
             [targets]\nallow_networks = [\"127.0.0.0/8\"]\n\
             [delivery]\nretry_delay = \"{}ms\"\n{}",
            self.uri,
            self.retry_delay.as_millis(),
            self.more
        )
        .expect("text");
        let path = self.folder.path().join(format!("hookbridge-{port}.toml"));
        fs::write(&path, settings).expect("the settings");
        path
    }

    /// How it is run, with its admin listener on this port.
    pub(crate) fn command(&self, subcommand: &str, port: u16) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOOKBRIDGE") {
                command.env_remove(name);
            }
        }
        command.arg(subcommand).arg("--config").arg(self.file(port));
        command
    }

    /// Starts a bridge.
    pub(crate) fn start(&self) -> Bridge {
        let listener = free_listener().expect("a port");
        let port = listener.local_addr().expect("a port").port();
        drop(listener);
        // Two that run side by side have logs of their own.
        let name = format!("bridge-{}", STARTED.fetch_add(1, Ordering::Relaxed) % 4);
        Bridge {
            process: Process::start(&name, &mut self.command("run", port)),
            port,
        }
    }
}

/// A running bridge.
pub(crate) struct Bridge {
    /// Its process.
    pub(crate) process: Process,
    port: u16,
}

impl Bridge {
    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&mut self) {
        let began = Instant::now();
        loop {
            self.process.must_run();
            if let Ok((200, _)) = self.ask("readyz").await {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the bridge does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The sum of a metric's series whose labels hold all of `labels`.
    pub(crate) async fn counter(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.ask("metrics").await.expect("the bridge's metrics");
        text.lines()
            .filter(|line| {
                line.starts_with(name) && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    async fn ask(&self, what: &str) -> reqwest::Result<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{}/{what}", self.port);
        let response = client.get(url).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }
}
