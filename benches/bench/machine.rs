//! What it was measured on and with.

use std::{fs, process::Command};

use hookbridge::cli::demo::node::PrivateNode;

/// The machine, in words that name nobody's.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = memory.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What comes after the numbers is whoever built it.
    let numbers = release.split(|c: char| !c.is_ascii_digit() && c != '.');
    format!(
        "{cores} cores, {:.0} GiB of memory, Linux {}",
        kibibytes.unwrap_or_default() / 1024.0 / 1024.0,
        numbers.into_iter().next().unwrap_or_default()
    )
}

/// What the processors had done by some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    idle: f64,
    all: f64,
}

impl Processors {
    /// Until now.
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = stat.lines().next().unwrap_or_default().split_whitespace();
        let ticks: Vec<f64> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
        Self {
            // The fourth and the fifth: idle, and idle while something is read or written.
            idle: ticks.iter().skip(3).take(2).sum(),
            // What comes after the eighth is contained in the others.
            all: ticks.iter().take(8).sum(),
        }
    }

    /// How much of their time since then was in use.
    pub(crate) fn busy(self) -> f64 {
        let now = Self::now();
        1.0 - (now.idle - self.idle) / (now.all - self.all)
    }
}

/// The bridge, and what it stands on, with their versions.
pub(crate) fn versions(node: &PrivateNode) -> Vec<String> {
    let broker = node.rabbitmqctl(&["version"]).unwrap_or_default();
    let erlang = node.rabbitmqctl(&["eval", "erlang:system_info(otp_release)."]);
    let erlang = erlang.unwrap_or_default();
    let rust = Command::new("rustc").arg("--version").output();
    let rust = rust.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let rust = rust.unwrap_or_default();
    let mut versions = vec![
        format!("hookbridge {}", env!("CARGO_PKG_VERSION")),
        format!("RabbitMQ {broker} (Erlang {})", erlang.trim_matches('"')),
        format!("Rust {}", rust.split(' ').nth(1).unwrap_or("?")),
    ];
    versions.extend(["lapin", "reqwest", "tokio"].map(|name| format!("{name} {}", locked(name))));
    versions
}

/// The version of a dependency.
fn locked(name: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let entry = lock.split("[[package]]").find_map(|package| {
        let (_, rest) = package.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        rest.split('"').next()
    });
    entry.unwrap_or("?")
}
