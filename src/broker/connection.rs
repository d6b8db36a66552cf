//! Connections: dialling with a deadline, small frames and heartbeats, and pools of publishing
//! connections. None recovers by itself: who uses one asks for another.

use std::{
    future::Future,
    io,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleResult, Timeouts};
pub use lapin::Connection;
use lapin::{
    AsyncTcpStream, ConnectionProperties, ConnectionStatus,
    runtime::default_runtime,
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// How long any single operation on a broker may take.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames of publishing connections: the client library keeps 64 of them in memory.
const SMALL_FRAMES: u32 = 16_384;
/// Seconds between heartbeats: a peer that is silent for twice as long is gone.
const HEARTBEAT: u16 = 10;

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
    /// The address does not say where to connect.
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
    /// Finds the dialling step inside the error that the client library made of it.
    fn from_connect(error: lapin::Error) -> Self {
        if let lapin::ErrorKind::IOError(io) = error.kind()
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

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Turns a host and a port into addresses that may be called.
pub type Resolver = Arc<dyn Fn(String, u16) -> Resolving + Send + Sync>;

/// The system's own name resolution, without restrictions.
pub fn system_resolver() -> Resolver {
    Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
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
    /// `amqp://` or `amqps://`.
    pub uri: SecretString,
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
    /// Connects, within [`OPERATION_TIMEOUT`].
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        deadline("connect", OPERATION_TIMEOUT, self.dial()).await
    }

    /// The virtual host that the URI names.
    pub fn vhost(&self) -> Result<String, ConnectError> {
        Ok(self.uri()?.vhost)
    }

    fn uri(&self) -> Result<AMQPUri, ConnectError> {
        let text = self.uri.expose_secret();
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

    fn properties(&self) -> ConnectionProperties {
        ConnectionProperties::default().with_connection_name(self.name.clone().into())
    }

    async fn dial(&self) -> Result<Connection, ConnectError> {
        let uri = self.uri()?;
        let tls = self.tls.load().await?;
        let resolver = self.resolver.clone();
        let runtime = default_runtime()?;
        let connect = async move |uri: AMQPUri, runtime| {
            let dialing = dial(&uri, &resolver, &tls, &runtime);
            // The client library's thread outlives a caller that gave up: end the dialling, too.
            tokio::time::timeout(OPERATION_TIMEOUT, dialing)
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
                .map_err(lapin::Error::from)
        };
        Connection::connector(uri, runtime, connect, self.properties())
            .await
            .map_err(ConnectError::from_connect)
    }
}

async fn dial<RK>(
    uri: &AMQPUri,
    resolver: &Resolver,
    tls: &OwnedTLSConfig,
    runtime: &async_rs::Runtime<RK>,
) -> io::Result<AsyncTcpStream<<RK as async_rs::traits::Reactor>::TcpStream>>
where
    RK: async_rs::traits::RuntimeKit + Sync,
{
    let host = uri.authority.host.clone();
    let addresses = resolver(host.clone(), uri.authority.port)
        .await
        .map_err(|error| {
            io::Error::other(DialError::Resolve {
                host: host.clone(),
                error: Arc::new(error),
            })
        })?;
    let mut failed = io::Error::other(DialError::Resolve {
        host: host.clone(),
        error: Arc::new(io::Error::from(io::ErrorKind::NotFound)),
    });
    for address in addresses {
        let stream = match AsyncTcpStream::connect(runtime, address).await {
            Ok(stream) => stream,
            Err(error) => {
                failed = io::Error::other(DialError::Connect {
                    address,
                    error: Arc::new(error),
                });
                continue;
            }
        };
        return match uri.scheme {
            AMQPScheme::AMQP => Ok(stream),
            AMQPScheme::AMQPS => stream.into_tls(&host, tls.as_ref()).await.map_err(|error| {
                io::Error::other(DialError::Tls {
                    host: host.clone(),
                    error: Arc::new(error),
                })
            }),
        };
    }
    Err(failed)
}

/// How a pool makes its connections.
enum Maker {
    /// `deadpool-lapin` makes them, where nothing needs adding.
    Plain(deadpool_lapin::Manager),
    /// For private certificate authorities, client certificates, and addresses that must be judged.
    Dialer(Dialer),
}

/// Makes and checks the connections of one pool.
pub struct Manager {
    maker: Maker,
    made: Mutex<Vec<ConnectionStatus>>,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        let connection = match &self.maker {
            Maker::Plain(manager) => {
                deadline(
                    "connect",
                    OPERATION_TIMEOUT,
                    managed::Manager::create(manager),
                )
                .await?
            }
            Maker::Dialer(dialer) => dialer.connect().await?,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(ConnectionStatus::connected);
        made.push(connection.status().clone());
        Ok(connection)
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if connection.status().connected() {
            Ok(())
        } else {
            Err(managed::RecycleError::message("the connection is gone"))
        }
    }
}

/// A pool of publishing connections to one broker. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    pool: Pool<Manager>,
    leases: Arc<()>,
    waits_while_blocked: bool,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("pool", &self.pool.status())
            .finish_non_exhaustive()
    }
}

/// Keeps a connection from being closed as idle.
#[derive(Debug)]
pub struct Lease {
    _held: Arc<()>,
}

/// A connection out of a pool, to open a channel on.
pub struct Leased {
    connection: Object<Manager>,
    lease: Lease,
}

impl std::ops::Deref for Leased {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Leased {
    /// Gives the connection back to the pool; the channels opened on it go on.
    pub fn lease(self) -> Lease {
        self.lease
    }
}

impl Source {
    /// Connections to the home broker: a blocked one is waited for, since its messages will be
    /// taken once the alarm is over.
    pub fn home(dialer: Dialer, connections: usize) -> Result<Self, ConnectError> {
        let plain = dialer.tls.ca.is_none()
            && dialer.tls.identity.is_none()
            && ipv6_literal(dialer.uri.expose_secret()).is_none();
        let maker = if plain {
            // The URI goes in as text: the limits that `Dialer::uri` sets are written into its query.
            dialer.uri()?;
            let uri = with_limits(dialer.uri.expose_secret());
            Maker::Plain(deadpool_lapin::Manager::new(
                uri,
                move || dialer.properties(),
                default_runtime()?,
            ))
        } else {
            Maker::Dialer(dialer)
        };
        Ok(Self::new(maker, connections, true))
    }

    /// Connections to a subscriber's own broker.
    pub fn outside(dialer: Dialer, connections: usize) -> Self {
        Self::new(Maker::Dialer(dialer), connections, false)
    }

    fn new(maker: Maker, connections: usize, waits_while_blocked: bool) -> Self {
        let manager = Manager {
            maker,
            made: Mutex::default(),
        };
        let pool = Pool::builder(manager).max_size(connections).build();
        #[expect(
            clippy::expect_used,
            reason = "only a timeout without a runtime can fail, and none is set"
        )]
        let pool = pool.expect("a pool without timeouts");
        Self {
            pool,
            leases: Arc::new(()),
            waits_while_blocked,
        }
    }

    /// A live connection; a new one until there are as many as the pool may have, so that channels
    /// spread over them.
    pub async fn connection(&self) -> Result<Leased, ConnectError> {
        let mut connection = self.get().await?;
        let status = self.pool.status();
        if status.size < status.max_size {
            connection = self.get().await?;
        }
        Ok(Leased {
            connection,
            lease: Lease {
                _held: self.leases.clone(),
            },
        })
    }

    async fn get(&self) -> Result<Object<Manager>, ConnectError> {
        self.pool
            .timeout_get(&Timeouts::default())
            .await
            .map_err(|error| match error {
                PoolError::Backend(error) => error,
                // Cannot happen without timeouts and hooks, but for a closed pool.
                other => ConnectError::Broker(io::Error::other(other.to_string()).into()),
            })
    }

    /// Whether a blocked connection is waited for rather than failed.
    pub fn waits_while_blocked(&self) -> bool {
        self.waits_while_blocked
    }

    /// Whether the broker blocks any of these connections.
    pub fn blocked(&self) -> bool {
        let made = self
            .pool
            .manager()
            .made
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        made.iter()
            .any(|status| status.connected() && status.blocked())
    }

    /// Closes the connections if no channel is open on any.
    pub fn close_if_idle(&self) {
        if Arc::strong_count(&self.leases) == 1 {
            self.pool.retain(|_, _| false);
        }
    }

    /// Closes the connections; nothing can be published any more.
    pub fn close(&self) {
        self.pool.close();
    }
}

fn ipv6_literal(uri: &str) -> Option<Ipv6Addr> {
    match url::Url::parse(uri).ok()?.host()? {
        // A host of a scheme that is not one of the web's is not read further.
        url::Host::Domain(name) => name.trim_matches(['[', ']']).parse().ok(),
        url::Host::Ipv4(_) => None,
        url::Host::Ipv6(address) => Some(address),
    }
}

fn with_limits(uri: &str) -> String {
    let mut uri = uri.to_owned();
    for (name, value) in [("frame_max", SMALL_FRAMES), ("heartbeat", HEARTBEAT.into())] {
        if !uri.contains(&format!("{name}=")) {
            let separator = if uri.contains('?') { '&' } else { '?' };
            uri = format!("{uri}{separator}{name}={value}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_literal_is_dialled_as_it_is_written() {
        let dialer = |uri: &str| Dialer {
            uri: uri.into(),
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

    #[test]
    fn limits_that_the_uri_sets_stay() {
        assert_eq!(
            with_limits("amqp://h/v"),
            "amqp://h/v?frame_max=16384&heartbeat=10"
        );
        assert_eq!(
            with_limits("amqp://h/v?heartbeat=60"),
            "amqp://h/v?heartbeat=60&frame_max=16384"
        );
    }
}
