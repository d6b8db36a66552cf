//! Which addresses the bridge may call: asked for every address that a target's host resolves to,
//! and the answer is what is connected to, so that there is no second look-up to differ.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use thiserror::Error;

use lookup::Resolver;
pub use lookup::{FixedAnswers, Lookup};

mod lookup;
mod ranges;
#[cfg(test)]
mod tests;

/// Judges addresses, and resolves names to the addresses that pass. Cheap to clone.
#[derive(Clone)]
pub struct AddressGuard {
    allow: Arc<[IpNet]>,
    resolver: Resolver,
}

/// An address that the bridge must not call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{address} is a forbidden address ({class})")]
pub struct Forbidden {
    /// The address, as it was to be connected to.
    pub address: IpAddr,
    /// The class that forbids it, such as `loopback` or `private`; for an IPv4 address written
    /// inside IPv6, the class of the inner address.
    pub class: &'static str,
}

/// Why a host gives no address to connect to.
#[derive(Debug, Clone, Error)]
pub enum ResolveError {
    /// The name has no address, or its servers cannot be asked.
    #[error("the name does not resolve: {0}")]
    Dns(Arc<io::Error>),
    /// Every address of the host is forbidden; this is the first.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

impl AddressGuard {
    /// A guard that exempts the networks in `allow` and asks the system's resolver.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self::with_lookup(allow, Lookup::System)
    }

    /// A guard that asks `lookup` instead of the system's resolver.
    pub fn with_lookup(allow: Vec<IpNet>, lookup: Lookup) -> Self {
        Self {
            allow: allow.into(),
            resolver: Resolver::new(lookup),
        }
    }

    /// Whether `ip` may be called.
    ///
    /// An address inside an allowed network may; an allowed IPv4 network covers its mapped form
    /// (`::ffff:a.b.c.d`) too, which reaches the same host.
    ///
    /// # Errors
    /// [`Forbidden`], with the class of the address.
    pub fn check(&self, ip: IpAddr) -> Result<(), Forbidden> {
        match ranges::class(ip) {
            Some(class) if !self.allows(ip) => Err(Forbidden { address: ip, class }),
            _ => Ok(()),
        }
    }

    /// The addresses of `host`, a name or an IP literal (IPv6 with or without brackets), that may
    /// be called, with `port`. Forbidden ones among them are left out.
    ///
    /// # Errors
    /// [`ResolveError::Forbidden`] if no other address is left, [`ResolveError::Dns`] if there was
    /// none to begin with.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = self.addresses(host).await?;
        let mut forbidden = None;
        let mut allowed = Vec::with_capacity(found.len());
        for mut address in found {
            match self.check(address.ip()) {
                Ok(()) => {
                    address.set_port(port);
                    allowed.push(address);
                }
                Err(refusal) => {
                    forbidden.get_or_insert(refusal);
                }
            }
        }
        match forbidden {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(refusal) => Err(refusal.into()),
            None => Err(ResolveError::Dns(Arc::new(io::Error::new(
                io::ErrorKind::NotFound,
                "it has no address",
            )))),
        }
    }

    async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, 0)]),
            Err(_) => self
                .resolver
                .addresses(bare)
                .await
                .map_err(ResolveError::Dns),
        }
    }

    fn allows(&self, ip: IpAddr) -> bool {
        let mapped = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped(),
            IpAddr::V4(_) => None,
        };
        self.allow.iter().any(|net| {
            net.contains(&ip) || mapped.is_some_and(|v4: Ipv4Addr| net.contains(&IpAddr::V4(v4)))
        })
    }
}
