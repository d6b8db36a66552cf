//! The home broker: one consuming connection that comes back for ever, with its topology, and the
//! pools of publishing connections. Consuming and publishing are on separate connections, since an
//! alarm stops every write on one that publishes.

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lapin::Connection;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    connection::{ConnectError, Dialer, OPERATION_TIMEOUT, deadline, gone},
    consumer::Settler,
    pool::Source,
    topology::{Topology, TopologyError},
};

/// Waits between attempts to connect.
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
];
/// Publishing connections that subscribers' channels spread over.
const SUBSCRIBER_CONNECTIONS: usize = 2;
/// The least time between two repairs of the topology.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);
/// The pause before a connection that could not be closed is closed again.
const CLOSE_AGAIN: Duration = Duration::from_millis(10);
/// How often it is said that the broker is still away.
const STILL_AWAY: Duration = Duration::from_mins(1);
/// How often a connection is looked at.
const WATCH: Duration = Duration::from_millis(250);

/// Whether the home broker can be consumed from.
#[derive(Debug, Clone)]
pub enum Link {
    /// Not now, and why.
    Down(String),
    /// Connected, and the topology is there.
    Up(Arc<Connection>),
}

impl Link {
    /// The connection, while there is one.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Up(connection) if connection.status().connected() => Some(connection),
            Self::Up(_) | Self::Down(_) => None,
        }
    }

    /// Waits until there is a connection. Nothing if there will be none any more.
    pub async fn up(link: &mut watch::Receiver<Self>) -> Option<Arc<Connection>> {
        let mut up = None;
        let there = |link: &Self| {
            up = link.connection().cloned();
            up.is_some()
        };
        link.wait_for(there).await.ok()?;
        up
    }
}

/// How the bridge is connected to its home broker.
pub struct Home {
    dialer: Dialer,
    topology: Arc<Topology>,
    declare: bool,
    link: watch::Sender<Link>,
    reconnects: watch::Sender<u64>,
    repaired: Mutex<Option<Instant>>,
    /// Whether the broker is known to dead-letter at least once.
    sure: AtomicBool,
    /// The channels of consumers that have stopped: open until what was settled there is applied.
    kept: std::sync::Mutex<Vec<Settler>>,
    lanes: Source,
    subscribers: Source,
}

impl Home {
    /// Prepares connections by `dialer`; none is made yet. `declare` is whether the topology is
    /// declared or only verified.
    pub fn new(
        dialer: &Dialer,
        topology: Arc<Topology>,
        declare: bool,
    ) -> Result<Self, ConnectError> {
        let named = |purpose: &str, large_frames| Dialer {
            name: format!("{} {purpose}", dialer.name),
            large_frames,
            ..dialer.clone()
        };
        Ok(Self {
            lanes: Source::home(named("publish", false), 1)?,
            subscribers: Source::home(
                named("publish to subscribers", false),
                SUBSCRIBER_CONNECTIONS,
            )?,
            dialer: named("consume", true),
            topology,
            declare,
            link: watch::Sender::new(Link::Down("not connected yet".into())),
            reconnects: watch::Sender::new(0),
            repaired: Mutex::default(),
            sure: AtomicBool::new(false),
            kept: std::sync::Mutex::default(),
        })
    }

    /// Connections for the bridge's own exchanges.
    pub fn lanes(&self) -> &Source {
        &self.lanes
    }

    /// Connections for subscribers' queues and exchanges here: a queue in trouble holds up the
    /// connection that publishes to it.
    pub fn subscribers(&self) -> &Source {
        &self.subscribers
    }

    /// The consuming connection, as it comes and goes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Whether it can be consumed from.
    pub fn connected(&self) -> bool {
        self.link.borrow().connection().is_some()
    }

    /// Why it cannot be consumed from, if it cannot.
    pub fn down(&self) -> Option<String> {
        match &*self.link.borrow() {
            Link::Down(why) => Some(why.clone()),
            link @ Link::Up(_) => link
                .connection()
                .is_none()
                .then(|| "the connection is gone".to_owned()),
        }
    }

    /// How often the connection came back.
    pub fn reconnects(&self) -> u64 {
        *self.reconnects.borrow()
    }

    /// Whether the broker blocks publishers.
    pub fn blocked(&self) -> bool {
        self.lanes.blocked() || self.subscribers.blocked()
    }

    /// Keeps the home broker connected until `stop`. Fails only if, the first time that it is
    /// reached, its topology is not what it must be.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), TopologyError> {
        let mut ever = false;
        let mut failures = 0;
        let mut said = String::new();
        let mut said_at = Instant::now();
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                attempt = self.connect() => attempt,
            };
            match attempt {
                Ok(connection) => {
                    info!("connected to the home broker");
                    if ever {
                        self.reconnects.send_modify(|n| *n += 1);
                    }
                    (ever, failures) = (true, 0);
                    said.clear();
                    let connection = Arc::new(connection);
                    self.link.send_replace(Link::Up(connection.clone()));
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        why = lost(&connection) => {
                            warn!("lost the home broker: {why}; reconnecting for ever");
                            said.clone_from(&why);
                            said_at = Instant::now();
                            self.link.send_replace(Link::Down(why));
                        }
                    }
                }
                Err(error) if error.is_final() && !ever => return Err(error),
                Err(error) => {
                    let (why, fault) = told(&error);
                    // Said once for each outage, again if it becomes another one, and now and then.
                    let other = fault.as_ref().is_some_and(|fault| *fault != said)
                        || error.is_refusal() && said != why;
                    if said.is_empty() || other || said_at.elapsed() >= STILL_AWAY {
                        warn!("cannot use the home broker: {why}; trying for ever");
                        said = fault.unwrap_or_else(|| why.clone());
                        said_at = Instant::now();
                    }
                    self.link.send_replace(Link::Down(why));
                    let pause = BACKOFF[failures.min(BACKOFF.len() - 1)];
                    failures += 1;
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Brings the topology back on a live connection: somebody may have deleted a queue. When many
    /// consumers ask at once, one of them does it for all.
    pub async fn repair(&self, connection: &Connection) -> Result<(), TopologyError> {
        let mut repaired = self.repaired.lock().await;
        if repaired.is_some_and(|at| at.elapsed() < REPAIR_INTERVAL) {
            return Ok(());
        }
        let result = self.establish(connection).await;
        // It may take seconds, and who waited for it need not do it again.
        *repaired = Some(Instant::now());
        result
    }

    /// Waits while somebody brings the topology back: a queue may be there, and not be bound yet.
    pub async fn repaired(&self) {
        drop(self.repaired.lock().await);
    }

    /// [`Self::repair`] on the connection that there is, if there is one.
    pub async fn repair_now(&self) {
        let connection = self.link.borrow().connection().cloned();
        if let Some(connection) = connection
            && let Err(error) = self.repair(&connection).await
        {
            tracing::debug!("cannot bring the topology back: {error}");
        }
    }

    async fn establish(&self, connection: &Connection) -> Result<(), TopologyError> {
        let establishing = async {
            if self.declare {
                self.topology.declare(connection).await
            } else {
                self.topology.verify(connection).await
            }
        };
        tokio::select! {
            established = establishing => established,
            error = gone(|| connection.status().connected()) => Err(error.into()),
        }
    }

    async fn connect(&self) -> Result<Connection, TopologyError> {
        // A feature flag is never disabled again.
        if !self.sure.load(Ordering::Relaxed) {
            require_at_least_once(&self.dialer, &self.topology).await?;
            self.sure.store(true, Ordering::Relaxed);
        }
        let connection = self.dialer.connect().await?;
        self.establish(&connection).await?;
        Ok(connection)
    }

    /// Keeps the channel of a consumer that has stopped open until [`Self::close`].
    pub fn keep(&self, settler: Settler) {
        self.kept().push(settler);
    }

    /// Waits until the broker has applied what stopped consumers have settled.
    pub async fn settled(&self) {
        let kept = self.kept().clone();
        join_all(kept.iter().map(Settler::applied)).await;
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Settler>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every connection, each within a deadline.
    pub async fn close(&self) {
        let link = self.link.send_replace(Link::Down("stopped".into()));
        if let Link::Up(connection) = link {
            close(&connection).await;
        }
        self.lanes.close();
        self.subscribers.close();
    }
}

/// Makes sure that the broker dead-letters at least once, over a connection of its own. Comes before
/// anything is declared: a queue that is declared while it is off stays without it when it is on,
/// and over a restart of the broker, until a policy of the queue changes (measured on 3.10.8).
pub async fn require_at_least_once(
    dialer: &Dialer,
    topology: &Topology,
) -> Result<(), TopologyError> {
    let probe = dialer.connect().await?;
    topology.require_at_least_once(&probe).await?;
    close(&probe).await;
    Ok(())
}

/// Closes a connection; its end is what matters, not how.
pub async fn close(connection: &Connection) {
    let closed = async {
        // One of its channels that is just closing makes this fail, with nothing said to the broker.
        while connection.status().connected() {
            if let Err(error) = connection.close(200, "bye".into()).await {
                tracing::debug!("closing a connection: {error}");
                tokio::time::sleep(CLOSE_AGAIN).await;
            }
        }
        Ok::<_, ConnectError>(())
    };
    if let Err(error) = deadline("close a connection", OPERATION_TIMEOUT / 5, closed).await {
        tracing::debug!("closing a connection: {error}");
    }
}

/// Why the broker cannot be used; and what to call that, if somebody has to see to it.
fn told(error: &TopologyError) -> (String, Option<String>) {
    let why = error.to_string();
    if let TopologyError::Connection(connecting) = error
        && let Some(lack) = connecting.lack()
    {
        return (lack.told(why), Some(lack.to_string()));
    }
    let fault = error.is_final().then(|| why.clone());
    (why, fault)
}

/// Waits until a connection is gone, and says why.
async fn lost(connection: &Connection) -> String {
    use futures_util::StreamExt;
    let mut events = std::pin::pin!(connection.events_listener());
    loop {
        let event = tokio::time::timeout(WATCH, events.next()).await;
        if let Ok(Some(lapin::Event::Error(error))) = &event
            && !connection.status().connected()
        {
            return error.to_string();
        }
        if !connection.status().connected() {
            return "the connection is gone".into();
        }
        if let Ok(None) = event {
            tokio::time::sleep(WATCH).await;
        }
    }
}
