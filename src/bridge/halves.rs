//! Builds the two halves of the line, which meet only in what is handed to them here.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::BridgeError;
use crate::{
    broker::{connection::TlsFiles, home::Home, publisher::Publisher, publishers::Publishers},
    courses::Courses,
    deliver::{Deliver, Rotation, amqp::AmqpSender, guard::AddressGuard, http::HttpSender},
    delivery::wire::Lanes,
    intake::{Intake, Trouble},
    outcomes::Outcomes,
    registry::Registry,
    settings::Settings,
    telemetry::{metrics::Metrics, notices::Notices, traces::Traces},
};

/// What both halves need.
pub(super) struct Common<'a> {
    pub(super) settings: &'a Settings,
    pub(super) home: &'a Arc<Home>,
    pub(super) lanes: Lanes,
    pub(super) publisher: Publisher,
    pub(super) registry: &'a Registry,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) notices: &'a Arc<Notices>,
    pub(super) traces: &'a Traces,
    pub(super) work: &'a TaskTracker,
    pub(super) services: &'a TaskTracker,
    pub(super) stop: &'a CancellationToken,
}

impl Common<'_> {
    /// Both halves. The first has the second make its attempts, and does not know it.
    pub(super) fn halves(self) -> Result<(Intake, Arc<Deliver>), BridgeError> {
        let targets = &self.settings.targets;
        let queues = Arc::new(Publishers::new(
            self.home.subscribers().clone(),
            self.services.clone(),
        ));
        let guard = AddressGuard::new(targets.allow_networks.clone());
        let http = HttpSender::new(targets, guard.clone())?;
        let services = self.services.clone();
        let certificate = targets.client_certificate_file.clone();
        let tls = TlsFiles {
            ca: targets.ca_file.clone(),
            identity: certificate.zip(targets.client_key_file.clone()),
        };
        let amqp = AmqpSender::new(queues.clone(), Arc::new(guard), tls, services);
        let courses = Arc::new(Courses::new(self.notices.clone()));
        let outcomes = Outcomes {
            lanes: self.lanes.clone(),
            courses: courses.clone(),
            metrics: self.metrics.clone(),
            notices: self.notices.clone(),
        };
        let deliver = Arc::new(Deliver {
            lanes: self.lanes.clone(),
            publisher: self.publisher.clone(),
            broker: self.home.clone(),
            subscribers: self.registry.live().clone(),
            registry: self.registry.clone(),
            http,
            amqp,
            courses,
            rotation: Rotation::default(),
            outcomes: outcomes.clone(),
            metrics: self.metrics.clone(),
            notices: self.notices.clone(),
            traces: self.traces.clone(),
            tasks: self.work.clone(),
            stop: self.stop.clone(),
        });
        let attempting = deliver.clone();
        let intake = Intake {
            source: self.settings.source.clone(),
            timeout: self.settings.delivery.timeout,
            lanes: self.lanes,
            publisher: self.publisher,
            broker: self.home.clone(),
            home: queues,
            at_once: Arc::new(move |subscriber, place, delivery, settler| {
                let attempting = attempting.clone();
                Box::pin(attempting.at_once(subscriber, place, delivery, settler))
            }),
            outcomes,
            notices: self.notices.clone(),
            traces: self.traces.clone(),
            trouble: Trouble::default(),
            subscribers: self.registry.live().clone(),
            metrics: self.metrics.clone(),
            tasks: self.work.clone(),
        };
        Ok((intake, deliver))
    }
}
