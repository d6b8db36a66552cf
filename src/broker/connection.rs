//! Connections: dialling with a deadline, small frames and heartbeats. None recovers by itself: who
//! uses one asks for another.

use std::{
    future::Future,
    io,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

pub use lapin::Connection;
use lapin::{
    AsyncTcpStream, ConnectionProperties, ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    runtime::default_runtime,
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::net::TcpStream;

use super::sieve::{SiftedRuntime, sift, sifted_runtime};
use crate::lack::{self, Lack};

/// How long any single operation on a broker may take.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a connection is gone.
const GONE: Duration = Duration::from_millis(100);
/// How long making a connection may take. Half of the other operations: the client library does not
/// always hear that a connection was cut while it was being made, and then waits for ever (13 of 400
/// that were cut within 60 ms, 4.12.3).
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames of publishing connections: the client library keeps 64 of them in memory.
pub(super) const SMALL_FRAMES: u32 = 16_384;
/// Seconds between heartbeats: a peer that is silent for twice as long is gone.
pub(super) const HEARTBEAT: u16 = 10;

/// Why there is no connection, or an operation on one failed.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// An operation took too long.
    #[error("could not {what} within {}", humantime::format_duration(*.limit))]
    Timeout {
        /// What was tried.
        what: &'static str,
        /// How long it was given.
        limit: Duration,
    },
    /// There is no address, or it does not say where to connect.
    #[error("the broker's URI is not valid: {0}")]
    Uri(String),
    /// A certificate or key file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// No TCP or TLS connection.
    #[error(transparent)]
    Dial(DialError),
    /// The broker, or the client library, ended it.
    #[error("{0}")]
    Broker(#[from] lapin::Error),
}

/// Which step of making a connection failed.
#[derive(Debug, Clone, Error)]
pub enum DialError {
    /// The name did not resolve, or only to addresses that must not be called.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        error: Arc<io::Error>,
    },
    /// Refused, unreachable, reset.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        error: Arc<io::Error>,
    },
    /// The TLS handshake failed.
    #[error("TLS with {host} failed: {error}")]
    Tls {
        /// With whom.
        host: String,
        /// Why.
        error: Arc<io::Error>,
    },
}

impl ConnectError {
    /// What the bridge itself lacked for the connection, if that is why there is none.
    pub fn lack(&self) -> Option<Lack> {
        match self {
            Self::File { error, .. } => Lack::of(error),
            Self::Dial(DialError::Connect { address, error }) => {
                Lack::of(error).filter(|lack| lack.holds_for(*address))
            }
            Self::Dial(DialError::Resolve { error, .. } | DialError::Tls { error, .. }) => {
                Lack::of(error)
            }
            Self::Broker(error) => match error.kind() {
                ErrorKind::IOError(error) => Lack::of(error),
                _ => None,
            },
            Self::Timeout { .. } | Self::Uri(_) => None,
        }
    }

    /// Whether trying again cannot help before somebody changes something: a password, a file.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Uri(_) | Self::File { .. } => true,
            Self::Broker(error) => {
                matches!(error.kind(), ErrorKind::ProtocolError(amqp) if matches!(
                    amqp.kind(),
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                        | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                ))
            }
            Self::Timeout { .. } | Self::Dial(_) => false,
        }
    }

    /// Finds the dialling step inside the error that the client library made of it.
    fn from_connect(error: lapin::Error) -> Self {
        if let ErrorKind::IOError(io) = error.kind()
            && let Some(dial) = io
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<DialError>())
        {
            return Self::Dial(dial.clone());
        }
        Self::Broker(error)
    }
}

/// Gives an operation a deadline.
pub async fn deadline<T, E>(
    what: &'static str,
    limit: Duration,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, ConnectError>
where
    ConnectError: From<E>,
{
    match tokio::time::timeout(limit, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ConnectError::Timeout { what, limit }),
    }
}

/// Waits until it is no longer `connected`. Whoever asks something while the connection breaks may
/// never be answered by the client library, and would wait for its deadline, long after the broker is
/// back (lapin 4.12.3; found by cutting lines).
pub async fn gone(connected: impl Fn() -> bool) -> ConnectError {
    while connected() {
        tokio::time::sleep(GONE).await;
    }
    let error = io::Error::new(io::ErrorKind::NotConnected, "the connection is gone");
    ConnectError::Broker(error.into())
}

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Turns a host and a port into addresses that may be called.
pub type Resolver = Arc<dyn Fn(String, u16) -> Resolving + Send + Sync>;

/// The system's own name resolution, without restrictions.
pub fn system_resolver() -> Resolver {
    Arc::new(|host, port| {
        Box::pin(async move {
            match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => Ok(addresses.collect()),
                Err(error) => Err(lack::behind_lookup(error)),
            }
        })
    })
}

/// Tells the URI of a broker, `amqp://` or `amqps://`, or why there is none. It is asked at every
/// dial: a password may change while the bridge runs.
pub type UriSource = Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>;

/// A URI that stays as it is.
pub fn fixed_uri(uri: SecretString) -> UriSource {
    Arc::new(move || Ok(uri.clone()))
}

/// What a TLS connection trusts and shows, besides the system's certificate authorities.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// PEM file of further certificate authorities.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    async fn load(&self) -> Result<OwnedTLSConfig, ConnectError> {
        let cert_chain = match &self.ca {
            Some(path) => Some(String::from_utf8_lossy(&read(path).await?).into_owned()),
            None => None,
        };
        let identity = match &self.identity {
            Some((certificate, key)) => Some(OwnedIdentity::PKCS8 {
                pem: read(certificate).await?,
                key: read(key).await?,
            }),
            None => None,
        };
        Ok(OwnedTLSConfig {
            identity,
            cert_chain,
        })
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    tokio::fs::read(path)
        .await
        .map_err(|error| ConnectError::File {
            path: path.to_owned(),
            error,
        })
}

/// Where and how to connect.
#[derive(Clone)]
pub struct Dialer {
    /// Where to.
    pub uri: UriSource,
    /// For `amqps://`.
    pub tls: TlsFiles,
    /// Which addresses a name may lead to.
    pub resolver: Resolver,
    /// What the connection is called in the broker's lists.
    pub name: String,
    /// Whether large frames must be expected: only on connections that consume what others
    /// publish, whose headers may be as large as the broker lets them.
    pub large_frames: bool,
}

impl Dialer {
    /// Connects, within five seconds of knowing where to.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let uri = self.uri()?;
        // Not part of the five seconds: a look-up takes as many for each name server that is away.
        let addresses = self.resolve(&uri);
        let addresses = deadline("resolve", OPERATION_TIMEOUT, addresses).await?;
        // Boxed, since it is large, and part of every future that may have to connect.
        let dialing = Box::pin(self.dial(uri, addresses));
        deadline("connect", CONNECT_TIMEOUT, dialing).await
    }

    async fn resolve(&self, uri: &AMQPUri) -> Result<Vec<SocketAddr>, ConnectError> {
        let host = uri.authority.host.clone();
        let resolved = (self.resolver)(host.clone(), uri.authority.port).await;
        let found = resolved.and_then(|addresses| {
            if addresses.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(addresses)
        });
        found.map_err(|error| {
            let error = Arc::new(error);
            ConnectError::Dial(DialError::Resolve { host, error })
        })
    }

    /// The virtual host that the URI names.
    pub fn vhost(&self) -> Result<String, ConnectError> {
        Ok(self.uri()?.vhost)
    }

    /// The URI as it is now, in words.
    pub(super) fn current(&self) -> Result<SecretString, ConnectError> {
        (self.uri)().map_err(ConnectError::Uri)
    }

    pub(super) fn uri(&self) -> Result<AMQPUri, ConnectError> {
        let text = self.current()?;
        let text = text.expose_secret();
        let mut uri: AMQPUri = text.parse().map_err(ConnectError::Uri)?;
        // The client library's own parser reads an IPv6 literal as "localhost".
        if let Some(address) = ipv6_literal(text) {
            uri.authority.host = address.to_string();
        }
        if !self.large_frames {
            uri.query.frame_max.get_or_insert(SMALL_FRAMES);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(uri)
    }

    pub(super) fn properties(&self) -> ConnectionProperties {
        ConnectionProperties::default().with_connection_name(self.name.clone().into())
    }

    async fn dial(
        &self,
        uri: AMQPUri,
        addresses: Vec<SocketAddr>,
    ) -> Result<Connection, ConnectError> {
        let tls = self.tls.load().await?;
        let name = self.name.clone();
        let runtime = default_runtime()?;
        let sifted = sifted_runtime(runtime.clone());
        // Before the client library is asked: it leaves a task behind, for ever, for each connection
        // that cannot be dialled (4.12.3).
        let dialed = dial(&uri, &addresses, &tls, &runtime).await;
        let dialed = dialed.map_err(|error| ConnectError::from_connect(error.into()))?;
        let dialed = Mutex::new(Some(dialed));
        let connect = async move |uri: AMQPUri, _: SiftedRuntime| {
            let dialed = dialed.lock().unwrap_or_else(PoisonError::into_inner).take();
            let stream = if let Some(stream) = dialed {
                stream
            } else {
                // The broker hung up before it said anything, so the library tries again. Its thread
                // outlives a caller that gave up: end the dialling, too.
                let dialing = dial(&uri, &addresses, &tls, &runtime);
                tokio::time::timeout(CONNECT_TIMEOUT, dialing)
                    .await
                    .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?
            };
            Ok(sift(stream, uri.query.frame_max.unwrap_or_default(), &name))
        };
        Connection::connector(uri, sifted, connect, self.properties())
            .await
            .map_err(ConnectError::from_connect)
    }
}

/// Whether anybody listens at an address, in words if nobody does: for a connection that the client
/// library dials itself, which leaves a task behind where it cannot.
pub(super) async fn probe(address: SocketAddr) -> Result<(), ConnectError> {
    let connecting = TcpStream::connect(address);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(_) => Ok(()),
        Err(error) => Err(ConnectError::Dial(DialError::Connect {
            address,
            error: Arc::new(error),
        })),
    }
}

/// Connects to the first address that answers. Each has its share of the time, so that one behind
/// which nothing is does not keep those after it from being tried.
async fn dial<RK>(
    uri: &AMQPUri,
    addresses: &[SocketAddr],
    tls: &OwnedTLSConfig,
    runtime: &async_rs::Runtime<RK>,
) -> io::Result<AsyncTcpStream<<RK as async_rs::traits::Reactor>::TcpStream>>
where
    RK: async_rs::traits::RuntimeKit + Sync,
{
    let host = &uri.authority.host;
    let end = Instant::now() + CONNECT_TIMEOUT;
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = end.duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        let connecting = AsyncTcpStream::connect(runtime, *address);
        let connected = tokio::time::timeout(share, connecting).await;
        let stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => {
                failed = io::Error::other(DialError::Connect {
                    address: *address,
                    error: Arc::new(error),
                });
                continue;
            }
        };
        return match uri.scheme {
            AMQPScheme::AMQP => Ok(stream),
            AMQPScheme::AMQPS => stream.into_tls(host, tls.as_ref()).await.map_err(|error| {
                io::Error::other(DialError::Tls {
                    host: host.clone(),
                    error: Arc::new(error),
                })
            }),
        };
    }
    Err(failed)
}

fn ipv6_literal(uri: &str) -> Option<Ipv6Addr> {
    match url::Url::parse(uri).ok()?.host()? {
        // A host of a scheme that is not one of the web's is not read further.
        url::Host::Domain(name) => name.trim_matches(['[', ']']).parse().ok(),
        url::Host::Ipv4(_) => None,
        url::Host::Ipv6(address) => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_literal_is_dialled_as_it_is_written() {
        let dialer = |uri: &str| Dialer {
            uri: fixed_uri(uri.into()),
            tls: TlsFiles::default(),
            resolver: system_resolver(),
            name: "test".into(),
            large_frames: false,
        };
        let host = |uri| dialer(uri).uri().unwrap().authority.host;
        assert_eq!(host("amqp://u:p@[2001:db8::1]:5672/%2f"), "2001:db8::1");
        assert_eq!(host("amqp://u:p@broker.example/%2f"), "broker.example");
        assert_eq!(host("amqp://u:p@192.0.2.7:5673"), "192.0.2.7");
    }
}
