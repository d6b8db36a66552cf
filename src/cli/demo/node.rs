//! A private RabbitMQ: a whole `rabbitmq-server` on free loopback ports in a temporary folder,
//! for the demo, the integration tests and the benchmarks. It touches no other broker on the
//! machine, and it is gone with the process that started it, even if that one is killed.
//!
//! Everything here blocks and knows no async runtime, so that one node can serve many of them.

use std::{
    fs, io,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

mod error;
mod files;
mod probe;
mod programs;
mod supervisor;

pub use error::NodeError;
pub use files::free_listener;

use files::Files;
use programs::Programs;
use supervisor::{Status, Supervisor};

/// A start takes a few seconds; a loaded machine gets ten times that.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// How long a node may take to stop by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// How long the supervisor may take to remove everything.
const DISMISS_DEADLINE: Duration = Duration::from_secs(10);

/// A port that was free may be taken before the node listens on it.
const TRIES: usize = 3;
/// What a node says of that: of a port of its own, and of the one for other nodes.
const TAKEN: [&str; 2] = ["eaddrinuse", "dist_port_already_used"];

/// What a private node is started with.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// The plugins to enable.
    pub plugins: Vec<Plugin>,
    /// A definitions file (its JSON text) to import at every boot. Without users of its own it
    /// gets `guest` with all permissions on its virtual hosts and on `/`.
    pub definitions: Option<String>,
    /// Further lines of `rabbitmq.conf`.
    pub config: Vec<String>,
    /// The text of its `advanced.config`, for what `rabbitmq.conf` cannot say.
    pub advanced: Option<String>,
    /// Its Erlang name, `<word>@localhost`; without it, one that no other node has.
    pub name: Option<String>,
    /// Its Erlang cookie, which the nodes of a cluster share; without it, one that nobody knows.
    pub cookie: Option<String>,
    /// The port of an epmd that runs already, as [`PrivateNode::epmd_port`] tells it: nodes find
    /// each other through the one that they share. Without it, the node gets one of its own.
    pub epmd_port: Option<u16>,
}

/// A plugin that a private node can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The HTTP API, on a port of its own.
    Management,
    /// Moves messages between queues and brokers.
    Shovel,
    /// `/metrics`, on a port of its own.
    Prometheus,
}

impl Plugin {
    fn name(self) -> &'static str {
        match self {
            Self::Management => "rabbitmq_management",
            Self::Shovel => "rabbitmq_shovel",
            Self::Prometheus => "rabbitmq_prometheus",
        }
    }
}

/// A running private RabbitMQ. Dropping it kills the node and removes its folder.
#[derive(Debug)]
pub struct PrivateNode {
    files: Files,
    programs: Programs,
    plugins: Vec<Plugin>,
    supervisor: Mutex<Supervisor>,
}

impl PrivateNode {
    /// Starts a node and waits until it accepts AMQP connections, at most a minute.
    pub fn start(options: &NodeOptions) -> Result<Self, NodeError> {
        let mut tries = 1;
        loop {
            match Self::try_start(options) {
                Err(NodeError::NotReady { log, .. })
                    if TAKEN.iter().any(|words| log.contains(words)) && tries < TRIES =>
                {
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(options: &NodeOptions) -> Result<Self, NodeError> {
        let programs = Programs::find()?;
        let files = Files::create(options)?;
        let epmd = options.epmd_port.is_none().then_some(&*programs.epmd);
        let supervisor = Supervisor::spawn(
            &programs.server(),
            epmd,
            &files.folder,
            &files.environment(),
        )
        .inspect_err(|_| {
            let _ = fs::remove_dir_all(&files.folder);
        })?;
        let node = Self {
            files,
            programs,
            plugins: options.plugins.clone(),
            supervisor: Mutex::new(supervisor),
        };
        node.bring_up()?;
        Ok(node)
    }

    /// The address of a virtual host, for `guest`.
    pub fn amqp_uri(&self, vhost: &str) -> String {
        self.amqp_uri_as("guest", "guest", vhost)
    }

    /// The address of a virtual host, for another user. All three are percent-encoded here.
    pub fn amqp_uri_as(&self, user: &str, password: &str, vhost: &str) -> String {
        let [user, password, vhost] = [user, password, vhost].map(percent_encode);
        format!(
            "amqp://{user}:{password}@127.0.0.1:{}/{vhost}",
            self.amqp_port()
        )
    }

    /// The port of AMQP, on 127.0.0.1.
    pub fn amqp_port(&self) -> u16 {
        self.files.ports.amqp
    }

    /// The root of the management plugin's HTTP API, without a slash at its end, if the plugin is
    /// enabled. `guest` may do everything there.
    pub fn management_url(&self) -> Option<String> {
        self.url(Plugin::Management, self.files.ports.management)
    }

    /// The root of the prometheus plugin's listener, if the plugin is enabled.
    pub fn prometheus_url(&self) -> Option<String> {
        self.url(Plugin::Prometheus, self.files.ports.prometheus)
    }

    /// The port of the epmd that knows the node. One of the node's own runs for as long as this
    /// value lives, however often the node is killed.
    pub fn epmd_port(&self) -> u16 {
        self.files.ports.epmd
    }

    /// The Erlang name of the node.
    pub fn name(&self) -> &str {
        &self.files.name
    }

    /// The folder that holds all that the node writes, and that goes away with it.
    pub fn folder(&self) -> &Path {
        &self.files.folder
    }

    /// The process id of the node, if it runs.
    pub fn pid(&self) -> Result<Option<u32>, NodeError> {
        Ok(match self.supervisor().status()? {
            Status::Up(pid) => Some(pid),
            Status::Down => None,
        })
    }

    /// Runs `rabbitmqctl` against this node and returns what it printed. Takes about a second,
    /// most of it the start of an Erlang machine: prefer the management API where it serves.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> Result<String, NodeError> {
        let output = Command::new(self.programs.scripts.join("rabbitmqctl"))
            .arg("--quiet")
            .args(arguments)
            .env_clear()
            .envs(self.files.environment())
            .output()
            .map_err(|error| NodeError::io("starting rabbitmqctl", error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(NodeError::Ctl {
            arguments: arguments.join(" "),
            output: format!("{}\n{}", text(&output.stderr), text(&output.stdout)),
        })
    }

    /// Makes the node write to disk the names of its quorum queues. By itself it does so up to a
    /// second after a queue is declared, and a node that is killed before brings the queue back
    /// empty, without a leader, for good. A test that is about anything else calls this between
    /// declaring and killing.
    pub fn sync(&self) -> Result<(), NodeError> {
        self.rabbitmqctl(&["eval", "[ok = dets:sync(Table) || Table <- dets:all()]."])
            .map(drop)
    }

    /// Kills the node's process with SIGKILL. It stays down until [`Self::restart`].
    pub fn kill(&self) -> Result<(), NodeError> {
        self.supervisor().kill().map(drop)
    }

    /// Stops the node's process in good order, and kills it if that takes longer than 15 seconds.
    /// It stays down until [`Self::restart`].
    pub fn halt(&self) -> Result<(), NodeError> {
        self.supervisor().stop(STOP_DEADLINE).map(drop)
    }

    /// Starts the node again, on the same ports and with the same data, and waits for it. If it
    /// runs, it is stopped in good order first.
    pub fn restart(&self) -> Result<(), NodeError> {
        self.halt()?;
        self.bring_up()
    }

    /// The last `lines` lines of the node's log, or of what it printed if it has written none.
    pub fn log_tail(&self, lines: usize) -> String {
        let tail = |path| {
            let bytes = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let all: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        };
        let log = tail(self.files.log());
        if log.is_empty() {
            tail(self.files.console())
        } else {
            log
        }
    }

    /// Stops the node in good order and removes everything, within half a minute.
    pub fn stop(self) -> Result<(), NodeError> {
        let mut supervisor = self.supervisor();
        supervisor.stop(STOP_DEADLINE)?;
        if supervisor.dismiss(DISMISS_DEADLINE) {
            return Ok(());
        }
        let doing = format!("removing {}", self.files.folder.display());
        Err(NodeError::io(doing, io::ErrorKind::TimedOut.into()))
    }

    fn supervisor(&self) -> MutexGuard<'_, Supervisor> {
        // A panic while it was held leaves the line itself in order, or closed.
        self.supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, plugin: Plugin, port: u16) -> Option<String> {
        let enabled = self.plugins.contains(&plugin);
        enabled.then(|| format!("http://127.0.0.1:{port}"))
    }

    fn bring_up(&self) -> Result<(), NodeError> {
        self.supervisor().start()?;
        let until = Instant::now() + START_DEADLINE;
        while !self.answers() {
            let what = if self.supervisor().status()? == Status::Down {
                "ended while it started".to_owned()
            } else if Instant::now() >= until {
                format!("did not accept connections within {START_DEADLINE:?}")
            } else {
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let log = self.complaints();
            return Err(NodeError::NotReady { what, log });
        }
        Ok(())
    }

    /// What the log says of a start that failed: the first errors name the cause, and the pages of
    /// crash reports after them do not. Without errors, its end.
    fn complaints(&self) -> String {
        let log = self.log_tail(1_000);
        let errors: Vec<_> = log
            .lines()
            .filter(|line| line.contains("[error]"))
            .collect();
        if errors.is_empty() {
            return self.log_tail(20);
        }
        errors[..errors.len().min(20)].join("\n")
    }

    /// Whether AMQP is answered and the plugins' listeners are open.
    fn answers(&self) -> bool {
        let ports = self.files.ports;
        let open = |plugin, port| !self.plugins.contains(&plugin) || probe::connect(port).is_ok();
        probe::greets(ports.amqp)
            && open(Plugin::Management, ports.management)
            && open(Plugin::Prometheus, ports.prometheus)
    }
}

impl Drop for PrivateNode {
    fn drop(&mut self) {
        let supervisor = self.supervisor.get_mut();
        supervisor
            .unwrap_or_else(PoisonError::into_inner)
            .dismiss(DISMISS_DEADLINE);
    }
}

fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
