//! A private RabbitMQ: a whole `rabbitmq-server` on free loopback ports in a temporary folder,
//! for the demo, the integration tests and the benchmarks. It touches no other broker on the
//! machine, and it is gone with the process that started it, even if that one is killed.
//!
//! Everything here blocks and knows no async runtime, so that one node can serve many of them.

use std::{
    fs, io,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

mod files;
mod programs;
mod supervisor;

use files::Files;
use programs::Programs;
use supervisor::{Status, Supervisor};

/// A start takes a few seconds; a loaded machine gets ten times that.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a node may take to stop by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// How long the supervisor may take to remove everything.
const DISMISS_DEADLINE: Duration = Duration::from_secs(10);

/// A port that was free may be taken before the node listens on it.
const TRIES: usize = 3;

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

/// Why a private node cannot be started or used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A program is missing.
    #[error("{0} not found: install RabbitMQ, for example with `apt-get install rabbitmq-server`")]
    NotInstalled(&'static str),
    /// Something that the system was asked for failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The node did not come up.
    #[error("the private RabbitMQ {what}; the end of its log:\n{log}")]
    NotReady {
        /// What happened instead.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// `rabbitmqctl` failed.
    #[error("`rabbitmqctl {arguments}` failed: {output}")]
    Ctl {
        /// What it was called with.
        arguments: String,
        /// What it said.
        output: String,
    },
}

impl NodeError {
    fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
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
                    if log.contains("eaddrinuse") && tries < TRIES =>
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
        let supervisor = Supervisor::spawn(&programs, &files.folder, &files.environment())
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
        format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", self.amqp_port())
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
        if log.is_empty() { tail(self.files.console()) } else { log }
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
        self.supervisor.lock().unwrap_or_else(PoisonError::into_inner)
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
            let log = self.log_tail(20);
            return Err(NodeError::NotReady { what, log });
        }
        Ok(())
    }

    /// Whether AMQP is answered and the plugins' listeners are open.
    fn answers(&self) -> bool {
        let ports = self.files.ports;
        let open = |plugin, port| !self.plugins.contains(&plugin) || connect(port).is_ok();
        greets(ports.amqp)
            && open(Plugin::Management, ports.management)
            && open(Plugin::Prometheus, ports.prometheus)
    }
}

impl Drop for PrivateNode {
    fn drop(&mut self) {
        let supervisor = self.supervisor.get_mut();
        supervisor.unwrap_or_else(PoisonError::into_inner).dismiss(DISMISS_DEADLINE);
    }
}

/// Whether a broker answers the AMQP protocol header with `Connection.Start`: a port is open
/// before the node behind it takes connections.
fn greets(port: u16) -> bool {
    let hello = || -> io::Result<bool> {
        let mut stream = connect(port)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        // A method frame on channel 0, its size, then class 10 method 10.
        let mut start = [0; 11];
        stream.read_exact(&mut start)?;
        Ok(start[..3] == [1, 0, 0] && start[7..] == [0, 10, 0, 10])
    };
    hello().unwrap_or(false)
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
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
