//! What serves the line: it tells of its state, counts its queues, says what was summed up, and
//! answers on the admin listener.

use std::{sync::PoisonError, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Bridge,
    kept::{STORE, lack},
};
use crate::{
    admin::{BROKER, Readiness},
    broker::{connection::Connection, home::Home, queues::QueueCounter},
    telemetry::metrics::Metrics,
};

/// How often the home broker's state is told.
pub(super) const STATE_INTERVAL: Duration = Duration::from_millis(250);
/// How often queues are counted.
const QUEUES_INTERVAL: Duration = Duration::from_secs(5);

impl Bridge {
    /// Starts all of it, until `after`.
    pub(super) fn start_services(&self, after: &CancellationToken) {
        let (systemd, readiness, end) =
            (self.systemd.clone(), self.readiness.clone(), after.clone());
        self.services.spawn(async move {
            let reasons = || readiness.reasons();
            systemd.keep_telling(reasons, end).await;
        });
        let (home, readiness, metrics) = (
            self.home.clone(),
            self.readiness.clone(),
            self.metrics.clone(),
        );
        let (intake, deliver) = (self.intake.clone(), self.deliver.clone());
        let registry = self.registry.clone();
        let end = after.clone();
        self.services.spawn(async move {
            let mut said = false;
            while tokio::time::timeout(STATE_INTERVAL, end.cancelled())
                .await
                .is_err()
            {
                tell_state(&home, &readiness, &metrics, &mut said);
                readiness.set("deliveries", intake.trouble.why());
                metrics.slow(deliver.courses.slow());
                readiness.set(STORE, lack(&registry));
                metrics.ready(readiness.reasons().is_empty());
            }
        });
        let (certificates, end) = (self.certificates.clone(), after.clone());
        self.services
            .spawn(async move { certificates.keep(end).await });
        let (home, topology, metrics) = (
            self.home.clone(),
            self.topology.clone(),
            self.metrics.clone(),
        );
        let end = after.clone();
        self.services.spawn(async move {
            let mut counter = QueueCounter::default();
            let mut said = String::new();
            while tokio::time::timeout(QUEUES_INTERVAL, end.cancelled())
                .await
                .is_err()
            {
                let connection = home.link().borrow().connection().cloned();
                if let Some(connection) = connection {
                    let (counts, missing) = counter.count(&connection, &topology).await;
                    metrics.queues(&counts);
                    if !missing.is_empty() && connection.status().connected() {
                        bring_back(&home, &connection, &missing, &mut said).await;
                    } else {
                        said.clear();
                    }
                }
            }
        });
        let (notices, end) = (self.notices.clone(), after.clone());
        self.services
            .spawn(async move { notices.keep_saying(end).await });
        let (deliver, end) = (self.deliver.clone(), after.clone());
        self.services
            .spawn(async move { deliver.amqp.sweep(end).await });
        if let Some(admin) = self
            .admin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            let (handles, end) = (self.api(), after.clone());
            self.services
                .spawn(async move { admin.serve(handles, end).await });
        }
    }
}

/// A wait queue or a dead-letter queue that somebody deleted has no consumer to miss it. Says so
/// unless it has said the same before.
async fn bring_back(home: &Home, connection: &Connection, missing: &[&str], said: &mut String) {
    let line = match home.repair(connection).await {
        Ok(()) => format!(
            "queues were missing, and are declared again: {}",
            missing.join(", ")
        ),
        Err(error) => format!("queues are missing: {error}"),
    };
    if *said != line {
        warn!("{line}");
        *said = line;
    }
}

/// `said` is whether the log tells of an alarm that is on.
fn tell_state(home: &Home, readiness: &Readiness, metrics: &Metrics, said: &mut bool) {
    let (connected, blocked) = (home.connected(), home.blocked());
    metrics.broker(connected, blocked, home.reconnects());
    readiness.set(BROKER, home.down());
    let alarm =
        "blocks publishers (a memory or disk alarm): deliveries wait, and go on when it clears";
    readiness.set("home broker alarm", blocked.then(|| alarm.to_owned()));
    match (std::mem::replace(said, blocked), blocked) {
        (false, true) => warn!("the home broker {alarm}"),
        (true, false) => info!("the home broker blocks publishers no more"),
        _ => {}
    }
}
