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
