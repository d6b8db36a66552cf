//! What a private node finds when it starts: its folder, its ports, its configuration and its
//! environment.

use std::{
    env, fs,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{NodeError, NodeOptions, Plugin};

/// The folder of one node and what is in it.
#[derive(Debug)]
pub(super) struct Files {
    /// Everything of the node's; removed by its supervisor.
    pub(super) folder: PathBuf,
    /// The Erlang name, unique in its epmd.
    pub(super) name: String,
    /// The ports that it listens on.
    pub(super) ports: Ports,
}

/// The loopback ports of one node, free when they were chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) amqp: u16,
    pub(super) distribution: u16,
    pub(super) epmd: u16,
    pub(super) management: u16,
    pub(super) prometheus: u16,
}

impl Files {
    /// Makes the folder and writes what the node reads.
    pub(super) fn create(options: &NodeOptions) -> Result<Self, NodeError> {
        let random = Uuid::new_v4().simple().to_string();
        let id = format!("{}-{}", process::id(), &random[..8]);
        let mut ports =
            Ports::free().map_err(|error| NodeError::io("looking for free ports", error))?;
        ports.epmd = options.epmd_port.unwrap_or(ports.epmd);
        let own_name = || format!("hb{id}@localhost");
        let files = Self {
            folder: env::temp_dir().join(format!("hookbridge-node-{id}")),
            name: options.name.clone().unwrap_or_else(own_name),
            ports,
        };
        files.write(options).map_err(|error| {
            // Nobody else removes it before there is a supervisor.
            let _ = fs::remove_dir_all(&files.folder);
            NodeError::io(format!("writing {}", files.folder.display()), error)
        })?;
        Ok(files)
    }

    /// The node's environment: all of it, since a `RABBITMQ_…` variable or a system-wide setting
    /// that slips in would make it somebody else's node.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        vec![
            (
                "PATH",
                env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned()),
            ),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", self.folder.display().to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", self.ports.epmd.to_string()),
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_DIST_PORT", self.ports.distribution.to_string()),
            ("RABBITMQ_MNESIA_BASE", at("data")),
            ("RABBITMQ_LOG_BASE", at("log")),
            ("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf")),
            ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
            ("RABBITMQ_CONFIG_FILES", at("conf.d")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
            // Makes the server's script become the node instead of waiting for it, so that the
            // process that the supervisor started is the one to signal.
            ("RABBITMQ_ALLOW_INPUT", "true".to_owned()),
            ("RABBITMQ_SCHEDULER_BIND_TYPE", "u".to_owned()),
            ("RABBITMQ_MAX_NUMBER_OF_PROCESSES", "262144".to_owned()),
            ("RABBITMQ_MAX_NUMBER_OF_ATOMS", "1048576".to_owned()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("-noinput +S 2:2 +sbwt none {loopback}"),
            ),
            (
                "RABBITMQ_CTL_ERL_ARGS",
                format!("+S 1:1 +sbwt none {loopback}"),
            ),
            // Zero is any free port, so that commands for many nodes do not wait for one of ten.
            ("RABBITMQ_CTL_DIST_PORT_MIN", "0".to_owned()),
            ("RABBITMQ_CTL_DIST_PORT_MAX", "0".to_owned()),
        ]
    }

    /// The node's own log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log").join(format!("{}.log", self.name))
    }

    /// What the node printed, mostly when it could not start.
    pub(super) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    fn write(&self, options: &NodeOptions) -> io::Result<()> {
        let private_folder = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        private_folder(&self.folder)?;
        for name in ["data", "log", "conf.d"] {
            private_folder(&self.folder.join(name))?;
        }
        let write = |name: &str, text: &str| fs::write(self.folder.join(name), text);
        write("rabbitmq-env.conf", "")?;
        let advanced = options.advanced.as_deref().unwrap_or("[].\n");
        write("advanced.config", advanced)?;
        write("rabbitmq.conf", &self.configuration(options))?;
        let plugins: Vec<_> = options.plugins.iter().map(|plugin| plugin.name()).collect();
        write("enabled_plugins", &format!("[{}].\n", plugins.join(",")))?;
        if let Some(definitions) = &options.definitions {
            write("definitions.json", &with_guest(definitions)?)?;
        }
        let own_cookie = || Uuid::new_v4().simple().to_string();
        let cookie = options.cookie.clone().unwrap_or_else(own_cookie);
        // Erlang refuses a cookie that others can read.
        fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o400)
            .open(self.folder.join(".erlang.cookie"))?
            .write_all(cookie.as_bytes())
    }

    fn configuration(&self, options: &NodeOptions) -> String {
        let ports = self.ports;
        let mut lines = vec![
            format!("listeners.tcp.1 = 127.0.0.1:{}", ports.amqp),
            "loopback_users = none".to_owned(),
            "disk_free_limit.absolute = 50MB".to_owned(),
            "vm_memory_high_watermark.relative = 0.6".to_owned(),
            "log.console = false".to_owned(),
            "log.file.level = info".to_owned(),
        ];
        for plugin in &options.plugins {
            match plugin {
                Plugin::Management => lines.extend([
                    "management.tcp.ip = 127.0.0.1".to_owned(),
                    format!("management.tcp.port = {}", ports.management),
                    "management.rates_mode = none".to_owned(),
                ]),
                Plugin::Prometheus => lines.extend([
                    "prometheus.tcp.ip = 127.0.0.1".to_owned(),
                    format!("prometheus.tcp.port = {}", ports.prometheus),
                ]),
                Plugin::Shovel => {}
            }
        }
        if options.definitions.is_some() {
            let file = self.folder.join("definitions.json");
            lines.push(format!("load_definitions = {}", file.display()));
        }
        lines.extend(options.config.iter().cloned());
        lines.join("\n") + "\n"
    }
}

impl Ports {
    fn free() -> io::Result<Self> {
        // Held until all five are found, so that none is found twice.
        let held = (0..5)
            .map(|_| free_listener())
            .collect::<io::Result<Vec<_>>>()?;
        let port = |index: usize| -> io::Result<u16> { Ok(held[index].local_addr()?.port()) };
        Ok(Self {
            amqp: port(0)?,
            distribution: port(1)?,
            epmd: port(2)?,
            management: port(3)?,
            prometheus: port(4)?,
        })
    }
}

/// A listener on a loopback port that nothing else listens on, for what must be able to close and
/// open it again. It lies below the range from which the system takes the ports of outgoing
/// connections: one of those could sit on the port meanwhile, and a client that redials a closed
/// one there can even connect to itself.
pub fn free_listener() -> io::Result<TcpListener> {
    let mut tries = 200;
    loop {
        let offset = u16::try_from(Uuid::new_v4().as_u128() % 15_000).unwrap_or_default();
        match TcpListener::bind((Ipv4Addr::LOCALHOST, 15_000 + offset)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => tries -= 1,
            result => return result,
        }
    }
}

/// A node that imports definitions makes no default user, so without users of their own they get
/// one, with the default virtual host.
fn with_guest(definitions: &str) -> io::Result<String> {
    let mut all: Value = serde_json::from_str(definitions)?;
    if all["users"].as_array().is_none_or(Vec::is_empty) {
        all["users"] = json!([{"name": "guest", "password": "guest", "tags": "administrator"}]);
        let hosts = all["vhosts"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<_> = hosts
            .iter()
            .filter_map(|host| host["name"].as_str())
            .collect();
        if !names.contains(&"/") {
            names.push("/");
        }
        let permission = |name: &&str| json!({"user": "guest", "vhost": name, "configure": ".*", "write": ".*", "read": ".*"});
        all["permissions"] = names.iter().map(permission).collect();
        all["vhosts"] = names.iter().map(|name| json!({"name": name})).collect();
    }
    Ok(all.to_string())
}
