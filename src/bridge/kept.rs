//! What stands on the store: the archiver, replays, and the news of other bridges.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Bridge, services::STATE_INTERVAL};
use crate::{
    archive::Archive,
    broker::{home::Home, publisher::Publisher, topology::Topology},
    delivery::wire::Lanes,
    registry::Registry,
    replay::Replays,
    store::{Store, dead_letters::Kind},
};

/// The store, among the parts that must be ready.
pub(super) const STORE: &str = "store";

/// What stands on the store, where there is one.
pub(super) struct Kept {
    store: Store,
    archive: Arc<Archive>,
    pub(super) replays: Replays,
}

impl Kept {
    pub(super) fn new(
        store: Store,
        archive: Archive,
        registry: &Registry,
        lanes: &Lanes,
        publisher: &Publisher,
        home: &Arc<Home>,
        topology: &Topology,
    ) -> Self {
        let replays = Replays::new(
            store.clone(),
            registry.clone(),
            lanes.clone(),
            publisher.clone(),
            home.clone(),
            topology.events_queue(),
        );
        Self {
            archive: Arc::new(archive),
            replays,
            store,
        }
    }
}

impl Bridge {
    /// What needs the store, and hears of the other bridges that use it.
    pub(super) fn start_store(&self, after: &CancellationToken) {
        let Some(Kept {
            store,
            archive,
            replays,
        }) = &self.kept
        else {
            return;
        };
        let (open, end) = (store.clone(), after.clone());
        self.services.spawn(async move { open.keep(end).await });
        let (registry, end) = (self.registry.clone(), after.clone());
        self.services.spawn(async move { registry.keep(end).await });
        let registry = self.registry.clone();
        self.consume_quietly(registry.options(), move |session| {
            registry.clone().listen(session)
        });
        for kind in Kind::ALL {
            let archive = archive.clone();
            self.consume_quietly(archive.options(&self.prefix, kind), move |session| {
                archive.clone().work(session, kind)
            });
        }
        let (counting, end) = (archive.clone(), after.clone());
        self.services
            .spawn(async move { counting.keep_count(end).await });
        let (sweeping, end) = (archive.clone(), after.clone());
        self.services
            .spawn(async move { sweeping.sweep(end).await });
        // It publishes, so it is work: to be finished before the connections close.
        let (replays, stop) = (replays.clone(), self.stop.clone());
        self.work.spawn(async move { replays.run(stop).await });
        let tidying = self.tidying();
        let (registry, end) = (self.registry.clone(), after.clone());
        self.services.spawn(async move {
            loop {
                tokio::select! {
                    () = end.cancelled() => return,
                    () = registry.changed() => tidying(),
                }
                // Many changes come together.
                tokio::time::sleep(STATE_INTERVAL).await;
            }
        });
    }
}

/// Why it is not known who is subscribed, if it is not: nothing is consumed meanwhile.
pub(super) fn lack(registry: &Registry) -> Option<String> {
    let why = registry.lack()?;
    Some(format!("nothing is consumed: {why}"))
}
