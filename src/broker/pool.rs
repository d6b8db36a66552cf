//! Pools of publishing connections to one broker. A connection that broke is replaced when the next
//! is asked for.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleResult, Timeouts};
use lapin::{Channel, Connection, ConnectionStatus, runtime::default_runtime};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::connection::{
    CONNECT_TIMEOUT, ConnectError, Dialer, HEARTBEAT, SMALL_FRAMES, deadline, probe,
};

/// A connection of a pool.
pub struct Pooled {
    connection: Connection,
    /// A channel for questions, which no queue holds up.
    asking: OnceCell<Channel>,
}

/// Makes and checks the connections of one pool.
pub struct Manager {
    dialer: Dialer,
    /// Whether the addresses need no judging, as those of the home broker.
    home: bool,
    made: Mutex<Vec<ConnectionStatus>>,
}

impl Manager {
    /// `deadpool-lapin` makes a connection where nothing needs adding; our own dialler, where there
    /// are private certificate authorities, client certificates, addresses to be judged, or a name,
    /// which may lead to several addresses.
    async fn make(&self) -> Result<Connection, ConnectError> {
        let tls = &self.dialer.tls;
        let uri = self.dialer.current()?;
        let uri = uri.expose_secret();
        let nothing_to_add = tls.ca.is_none() && tls.identity.is_none();
        let authority = self.dialer.uri()?.authority;
        let address = authority.host.parse::<Ipv4Addr>();
        let (true, true, Ok(address)) = (self.home, nothing_to_add, address) else {
            return self.dialer.connect().await;
        };
        probe((address, authority.port).into()).await?;
        // The URI goes in as text: the limits that `Dialer::uri` sets are written into its query.
        let dialer = self.dialer.clone();
        let plain = deadpool_lapin::Manager::new(
            with_limits(uri),
            move || dialer.properties(),
            default_runtime()?,
        );
        let creating = managed::Manager::create(&plain);
        deadline("connect", CONNECT_TIMEOUT, creating).await
    }
}

impl managed::Manager for Manager {
    type Type = Pooled;
    type Error = ConnectError;

    async fn create(&self) -> Result<Pooled, ConnectError> {
        let connection = self.make().await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(ConnectionStatus::connected);
        made.push(connection.status().clone());
        Ok(Pooled {
            connection,
            asking: OnceCell::new(),
        })
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<ConnectError> {
        if pooled.connection.status().connected() {
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
    leases: Arc<AtomicUsize>,
    is_home: bool,
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
pub struct Lease(Arc<AtomicUsize>);

impl Lease {
    fn new(leases: &Arc<AtomicUsize>) -> Self {
        leases.fetch_add(1, Ordering::Relaxed);
        Self(leases.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to open a channel on.
pub struct Leased {
    connection: Held,
    lease: Lease,
}

/// Where a connection belongs.
enum Held {
    /// Others open channels on it, too.
    Pool(Object<Manager>),
    /// One that lives for as long as the channels that are opened on it now.
    Own(Pooled),
}

impl std::ops::Deref for Held {
    type Target = Pooled;

    fn deref(&self) -> &Pooled {
        match self {
            Self::Pool(object) => object,
            Self::Own(pooled) => pooled,
        }
    }
}

impl std::ops::Deref for Leased {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection.connection
    }
}

impl Leased {
    /// A channel on which the broker can be asked something, whatever its queues are doing.
    pub async fn asking(&self) -> Result<Channel, lapin::Error> {
        let open = || self.create_channel();
        self.connection.asking.get_or_try_init(open).await.cloned()
    }

    /// Takes the connection out of the pool, since it has all the channels that the broker allows: it
    /// lives for as long as they do, and the pool makes another.
    pub fn retire(self) {
        if let Held::Pool(object) = self.connection {
            drop(Object::take(object));
        }
    }

    /// Gives the connection back to the pool; the channels opened on it go on.
    pub fn lease(self) -> Lease {
        self.lease
    }
}

impl Source {
    /// Connections to the home broker: a blocked one is waited for, since its messages will be
    /// taken once the alarm is over.
    pub fn home(dialer: Dialer, connections: usize) -> Result<Self, ConnectError> {
        // What can never be dialled is said at once.
        dialer.uri()?;
        Ok(Self::new(dialer, connections, true))
    }

    /// Connections to a subscriber's own broker.
    pub fn outside(dialer: Dialer, connections: usize) -> Self {
        Self::new(dialer, connections, false)
    }

    fn new(dialer: Dialer, connections: usize, is_home: bool) -> Self {
        let manager = Manager {
            dialer,
            home: is_home,
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
            leases: Arc::default(),
            is_home,
        }
    }

    /// A live connection; a new one until there are as many as the pool may have, so that channels
    /// spread over them.
    pub async fn connection(&self) -> Result<Leased, ConnectError> {
        // First of all, so that what is about to be used is not closed as idle.
        let lease = Lease::new(&self.leases);
        let mut connection = self.get().await?;
        let status = self.pool.status();
        // The one that there is serves as well where no other can be had: the broker may allow no more.
        if status.size < status.max_size
            && let Ok(another) = self.get().await
        {
            connection = another;
        }
        Ok(Leased {
            connection: Held::Pool(connection),
            lease,
        })
    }

    /// A connection beside the pool's, which nobody else gets.
    pub async fn own_connection(&self) -> Result<Leased, ConnectError> {
        let lease = Lease::new(&self.leases);
        let pooled = managed::Manager::create(self.pool.manager()).await?;
        Ok(Leased {
            connection: Held::Own(pooled),
            lease,
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

    /// Whether this is the home broker, which is waited for while it blocks or says nothing: that is
    /// no subscriber's failure.
    pub fn is_home(&self) -> bool {
        self.is_home
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
        if self.leases.load(Ordering::Relaxed) == 0 {
            self.pool.retain(|_, _| false);
        }
    }

    /// Closes the connections; nothing can be published any more.
    pub fn close(&self) {
        self.pool.close();
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
