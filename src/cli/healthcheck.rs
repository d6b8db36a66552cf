//! `hookbridge healthcheck`: asks a running bridge's `/readyz`, for containers and scripts.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context;

use super::{ConfigArgs, client, environment, runtime};
use crate::settings;

/// How long the bridge may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any list of reasons, or all metrics.
const LIMIT: u64 = 1024 * 1024;

/// What `hookbridge healthcheck` is asked for.
#[derive(Debug, clap::Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The admin listener's address, instead of the one in the settings
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    /// The listener at this address speaks TLS; otherwise the settings say whether it does
    #[arg(long, requires = "address")]
    tls: bool,
}

/// Returns whether the bridge is not ready, after printing its reasons to `out`.
pub fn run(args: &HealthcheckArgs, out: &mut impl Write) -> anyhow::Result<bool> {
    let (listens, tls) = if let Some(address) = args.address {
        (address, args.tls)
    } else {
        let admin = settings::load(&args.config.config, environment())
            .map_err(|mistakes| anyhow::anyhow!("the settings are wrong:\n{mistakes}"))?
            .admin;
        (admin.listen, admin.tls.is_some())
    };
    let address = reachable(listens);
    let asked = if tls {
        runtime()?.block_on(client::probe(address, "/readyz", PATIENCE))
    } else {
        ask(address, "/readyz").map_err(anyhow::Error::from)
    };
    let (ready, body) =
        asked.with_context(|| format!("cannot ask {address}: is the bridge running?"))?;
    if !ready {
        write!(out, "not ready: {body}")?;
    }
    Ok(!ready)
}

/// A listener on every address is asked on this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// Asks an admin listener for `path`: whether the answer is 200, and its body.
pub(super) fn ask(address: SocketAddr, path: &str) -> io::Result<(bool, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(LIMIT).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let ok = head.split(' ').nth(1) == Some("200");
    Ok((ok, body.to_owned()))
}
