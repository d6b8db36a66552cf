//! Builds the parts, starts them in order, and stops them in order.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    admin::{Admin, Door, Handles, ListenError, Readiness},
    archive::Archive,
    broker::{
        connection::{ConnectError, Dialer, TlsFiles, system_resolver},
        home::Home,
        publisher::Publisher,
        topology::{Topology, TopologyError},
    },
    certificates::Certificates,
    deliver::{Deliver, http::HttpSetupError},
    delivery::wire::Lanes,
    intake::Intake,
    registry::Registry,
    replay::Replays,
    settings::{BrokerSettings, Settings},
    store::Store,
    strays::Strays,
    subscriber::{
        Target,
        loading::{Loaded, Rules, load_directory},
        watching::Watch,
    },
    systemd::Systemd,
    telemetry::{
        metrics::Metrics,
        notices::Notices,
        traces::{Traces, TracesError},
    },
};

mod consumers;
mod halves;
mod kept;
mod services;

use halves::Common;
use kept::{Kept, STORE, lack};

/// Why a bridge could not be built, or had to end.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// The admin listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The exchanges and queues.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The connections to the home broker.
    #[error("broker: {0}")]
    Connection(#[from] ConnectError),
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    /// The traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(String),
    /// A part that must run for ever did not.
    #[error("a part of the bridge ended: {0}")]
    Panicked(String),
}

/// A bridge that is built but not yet running.
pub struct Bridge {
    home: Arc<Home>,
    topology: Arc<Topology>,
    intake: Arc<Intake>,
    deliver: Arc<Deliver>,
    admin: Mutex<Option<Admin>>,
    door: Arc<Door>,
    address: SocketAddr,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    notices: Arc<Notices>,
    traces: Traces,
    registry: Registry,
    strays: Strays,
    kept: Option<Kept>,
    certificates: Arc<Certificates>,
    prefix: String,
    rules: Rules,
    directory: PathBuf,
    watch: Watch,
    systemd: Arc<Systemd>,
    prefetch: u16,
    shutdown_timeout: Duration,
    /// Knows what must be finished before the connections close.
    work: TaskTracker,
    /// Knows what serves the work, and ends after it.
    services: TaskTracker,
    /// Ends taking in.
    stop: CancellationToken,
    reload: Arc<Notify>,
    ends: CancellationToken,
}

/// Asks a running bridge for something. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    stop: CancellationToken,
    reload: Arc<Notify>,
    notices: Arc<Notices>,
}

impl Handle {
    /// Asks the bridge to stop taking in, finish what is in flight, and end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Asks the bridge to read its subscribers, and the files of the API's tokens and certificate, again.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Writes what the log has summed up and not yet said, for an end that waits for nothing.
    pub fn say_rest(&self) {
        self.notices.say_rest();
    }
}

/// How to connect to the home broker.
pub fn home_dialer(settings: &BrokerSettings) -> Dialer {
    let broker = settings.clone();
    Dialer {
        uri: Arc::new(move || broker.current_uri()),
        tls: TlsFiles {
            ca: settings.ca_file.clone(),
            identity: settings
                .client_certificate_file
                .clone()
                .zip(settings.client_key_file.clone()),
        },
        resolver: system_resolver(),
        name: "hookbridge".into(),
        large_frames: false,
    }
}

/// The topology that these settings ask for.
pub fn topology(settings: &Settings) -> Topology {
    let (source, prefix) = (&settings.source, &settings.broker.prefix);
    Topology::new(
        prefix,
        &source.exchange,
        &source.bindings,
        settings.delivery.retry_delay,
    )
}

impl Bridge {
    /// Builds a bridge for these settings and subscribers, and binds its admin listener. Nothing is
    /// connected yet.
    pub async fn build(settings: Settings, loaded: Loaded) -> Result<Self, BridgeError> {
        let rules = Rules::from(&settings);
        let topology = Arc::new(topology(&settings));
        let dialer = home_dialer(&settings.broker);
        let home = Arc::new(Home::new(
            &dialer,
            topology.clone(),
            settings.broker.declare,
        )?);
        let metrics =
            Arc::new(Metrics::new().map_err(|error| BridgeError::Metrics(error.to_string()))?);
        let notices = Arc::new(Notices::default());
        let readiness = Readiness::default();
        let admin = Admin::bind(&settings.admin, readiness.clone(), metrics.clone()).await?;
        let address = admin.address().unwrap_or(settings.admin.listen);
        let (work, services) = (TaskTracker::new(), TaskTracker::new());
        let traces = Traces::start(settings.telemetry.otlp_endpoint.as_ref(), &services)?;
        let stop = CancellationToken::new();
        let lanes = Lanes::new(&settings.broker.prefix, settings.delivery.retry_delay);
        let publisher = Publisher::start(home.lanes().clone(), None, &services);
        let store = settings.store.clone().map(Store::new);
        let registry = Registry::new(
            store.clone(),
            rules.clone(),
            publisher.clone(),
            topology.registry_exchange(),
            services.clone(),
        );
        let strays = Strays::new(topology.lost_queue(), lanes.clone(), publisher.clone());
        let kept = store.map(|store| {
            let archive = Archive::new(store.clone(), strays.clone(), metrics.clone());
            Kept::new(
                store, archive, &registry, &lanes, &publisher, &home, &topology,
            )
        });
        metrics.store.configured(kept.is_some());
        let certificates = Arc::new(Certificates::new(&settings, metrics.clone()));
        let (intake, deliver) = Common {
            settings: &settings,
            home: &home,
            lanes,
            publisher,
            registry: &registry,
            metrics: &metrics,
            notices: &notices,
            traces: &traces,
            work: &work,
            services: &services,
            stop: &stop,
        }
        .halves()?;
        let bridge = Self {
            home,
            topology,
            intake: Arc::new(intake),
            deliver,
            door: admin.door(),
            admin: Mutex::new(Some(admin)),
            address,
            readiness,
            metrics,
            notices,
            traces,
            registry,
            strays,
            kept,
            certificates,
            prefix: settings.broker.prefix.clone(),
            rules,
            watch: Watch::new(
                settings.subscribers.directory.clone(),
                settings.subscribers.watch,
                loaded.look.clone(),
            ),
            directory: settings.subscribers.directory,
            systemd: Arc::default(),
            prefetch: settings.source.prefetch,
            shutdown_timeout: settings.delivery.shutdown_timeout,
            work,
            services,
            stop,
            reload: Arc::default(),
            ends: CancellationToken::new(),
        };
        bridge.take_subscribers(&loaded);
        bridge.readiness.set(STORE, lack(&bridge.registry));
        Ok(bridge)
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.address
    }

    /// Who is subscribed, and what changes that.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// What replays dead letters, where there is a store.
    pub fn replays(&self) -> Option<Replays> {
        self.kept.as_ref().map(|kept| kept.replays.clone())
    }

    /// What asks this bridge to stop or reload.
    pub fn handle(&self) -> Handle {
        Handle {
            stop: self.stop.clone(),
            reload: self.reload.clone(),
            notices: self.notices.clone(),
        }
    }

    /// Cancelled when the bridge has ended.
    pub fn ends(&self) -> CancellationToken {
        self.ends.clone()
    }

    /// Runs until a [`Handle`] asks for a stop, and then until what is in flight is settled or
    /// `delivery.shutdown_timeout` is over. Ends early only with an error that somebody has to see
    /// to: a topology that is not what it must be.
    pub async fn run(mut self) -> Result<(), BridgeError> {
        info!(address = %self.address, "probes and metrics are served");
        let after = CancellationToken::new();
        let (home, end) = (self.home.clone(), after.clone());
        let mut supervisor = self.services.spawn(async move { home.run(end).await });
        // First, since each says that it is not there yet, and the admin listener must not answer
        // "ready" before.
        self.start_consumers();
        self.start_services(&after);
        self.start_store(&after);
        let ended = loop {
            tokio::select! {
                () = self.stop.cancelled() => break Ok(()),
                () = told_to_reload(&self.reload, &mut self.watch) => tokio::select! {
                    () = self.reload() => {}
                    () = self.stop.cancelled() => break Ok(()),
                },
                ended = &mut supervisor => break match ended {
                    Ok(result) => result.map_err(BridgeError::from),
                    Err(panicked) => Err(BridgeError::Panicked(panicked.to_string())),
                },
            }
        };
        self.shut_down(&after).await;
        ended
    }

    /// What the API reaches of the other parts.
    fn api(&self) -> Handles {
        let (deliver, courses) = (self.deliver.clone(), self.deliver.courses.clone());
        let all = courses.clone();
        Handles {
            registry: self.registry.clone(),
            replays: self.replays(),
            rules: self.rules.clone(),
            attempt: Box::new(move |subscriber, delivery| {
                let deliver = deliver.clone();
                Box::pin(async move { deliver.try_out(&subscriber, &delivery).await })
            }),
            status: Box::new(move |id| courses.status(id)),
            worst: Arc::new(move |most| all.worst(most)),
            notices: self.notices.clone(),
        }
    }

    /// Reads the subscribers and what opens the listener again. What is wrong changes nothing.
    async fn reload(&self) {
        self.systemd.reloading();
        let (directory, rules) = (self.directory.clone(), self.rules.clone());
        let (door, certificates) = (self.door.clone(), self.certificates.clone());
        let read = tokio::task::spawn_blocking(move || {
            if door.renew() {
                certificates.renewed();
            }
            load_directory(&directory, &rules)
        });
        let read = read.await;
        match read {
            // An unmounted volume looks like this, and would turn every event away.
            Ok(Ok(loaded)) if loaded.set.counts() == (0, 0) && self.registry.in_files() > 0 => {
                error!(
                    directory = %self.directory.display(),
                    "there are no subscribers there any more; they stay as they were. To have none, restart"
                );
            }
            Ok(Ok(loaded)) => self.take_subscribers(&loaded),
            Ok(Err(mistakes)) => {
                for mistake in &mistakes {
                    error!("{mistake}");
                }
                error!(
                    mistakes = mistakes.len(),
                    "the subscribers stay as they were"
                );
            }
            Err(error) => error!("the subscribers stay as they were: {error}"),
        }
        self.systemd.reloaded();
    }

    fn take_subscribers(&self, loaded: &Loaded) {
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let (enabled, disabled) = loaded.set.counts();
        self.registry.take_files(&loaded.set);
        self.tidying()();
        info!(enabled, disabled, "subscribers loaded");
    }

    /// What makes the rest of the bridge fit the subscribers as they are now.
    fn tidying(&self) -> impl Fn() + Send + 'static {
        let (live, metrics) = (self.registry.live().clone(), self.metrics.clone());
        let deliver = self.deliver.clone();
        move || {
            let set = live.load_full();
            let (enabled, disabled) = set.counts();
            metrics.subscribers(enabled, disabled);
            deliver.courses.retain(|id| set.get(id.as_str()).is_some());
            deliver.amqp.retain(|id, uri| {
                let Some(subscriber) = set.get(id.as_str()) else {
                    return false;
                };
                let Target::Amqp(target) = &subscriber.target else {
                    return false;
                };
                target
                    .broker
                    .as_ref()
                    .map(|broker| broker.uri.expose_secret())
                    == uri
            });
        }
    }

    /// Stops taking in, finishes what is in flight, closes.
    async fn shut_down(self, after: &CancellationToken) {
        info!("stopping: no new deliveries, finishing what is in flight");
        self.readiness.set("bridge", Some("stopping".into()));
        self.systemd.stopping();
        self.stop.cancel();
        self.work.close();
        let until = Instant::now() + self.shutdown_timeout;
        let finished = async {
            self.work.wait().await;
            self.home.settled().await;
        };
        if tokio::time::timeout(self.shutdown_timeout, finished)
            .await
            .is_err()
        {
            warn!(
                in_flight = self.work.len(),
                "delivery.shutdown_timeout is over: what is in flight will be delivered again by the next bridge"
            );
        }
        after.cancel();
        let left = until.saturating_duration_since(Instant::now());
        tokio::join!(self.home.close(), self.traces.end(left));
        self.notices.say_rest();
        self.ends.cancel();
        info!("stopped");
    }
}

/// Waits until somebody asks for it, or the files have changed.
async fn told_to_reload(asked: &Notify, watch: &mut Watch) {
    tokio::select! {
        () = asked.notified() => {}
        () = watch.changed() => info!("the subscribers' files changed: reading them again"),
    }
}
