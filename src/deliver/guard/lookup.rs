//! Asks for the addresses of a name, at most once at a time for each name.
//!
//! The system's resolver blocks a thread, and goes on doing so after the attempt that asked has
//! timed out. If each attempt asked by itself, one subscriber with a hanging name server would
//! soon hold every thread of the pool and with it everyone else's look-ups.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use crate::lack;

/// Where names are looked up.
#[derive(Clone)]
pub enum Lookup {
    /// The system's resolver: hosts file, DNS, whatever it is set to.
    System,
    /// Answers given by a function of the name.
    Fixed(Arc<FixedAnswers>),
}

/// The addresses of a name.
pub type FixedAnswers = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Lookup {
    /// Blocks until the answer is there. The port in it is 0.
    fn ask(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => {
                let addresses = (host, 0).to_socket_addrs().map_err(lack::behind_lookup)?;
                Ok(addresses.collect())
            }
            Self::Fixed(answers) => {
                let addresses = answers(host)?;
                Ok(addresses
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, 0))
                    .collect())
            }
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Fixed(_) => "Fixed",
        })
    }
}

type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;
type Pending = Shared<BoxFuture<'static, Answer>>;

/// The look-ups under way, by name. Cheap to clone; clones share them.
#[derive(Clone)]
pub(super) struct Resolver {
    lookup: Lookup,
    pending: Arc<Mutex<HashMap<String, Pending>>>,
}

impl Resolver {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            pending: Arc::default(),
        }
    }

    /// The addresses of `host`, from the look-up under way if there is one. Nothing is kept: who
    /// asks after it has ended starts the next one.
    pub(super) async fn addresses(&self, host: &str) -> Answer {
        // Bound to a name, so that the lock is gone before the wait.
        let pending = self.pending(host);
        pending.await
    }

    fn pending(&self, host: &str) -> Pending {
        let mut pending = lock(&self.pending);
        if let Some(underway) = pending.get(host) {
            return underway.clone();
        }
        let entry = Entry {
            pending: Arc::clone(&self.pending),
            host: host.to_owned(),
        };
        let lookup = self.lookup.clone();
        let started = tokio::task::spawn_blocking(move || lookup.ask(&entry.host))
            .map(|ended| ended.map_err(io::Error::other).flatten().map_err(Arc::new))
            .boxed()
            .shared();
        pending.insert(host.to_owned(), started.clone());
        started
    }
}

/// Takes the look-up out of those under way when it ends, however it ends.
struct Entry {
    pending: Arc<Mutex<HashMap<String, Pending>>>,
    host: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.pending).remove(&self.host);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under the lock can leave the map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
