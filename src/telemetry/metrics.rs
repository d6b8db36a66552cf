//! Every metric: its name, unit, labels and help. No label takes a value that an outsider chooses,
//! but for the ids of the fifty subscribers that fail most.

use std::time::Duration;

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::{
    delivery::{Attempt, Outcome},
    subscriber::{SubscriberId, Target},
    webhook::{EventType, WebhookType},
};

mod certificates;
mod store;

pub use certificates::{CertificateMetrics, Shown};
pub use store::StoreMetrics;

/// From 1 ms to a minute.
const BUCKETS: [f64; 15] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];
/// How many subscribers `hookbridge_subscriber_failures_in_a_row` names.
const WORST: usize = 50;

/// Tells which subscribers have the most failures in a row, the worst first and at most so many, and
/// how many each has.
pub type Worst = dyn Fn(usize) -> Vec<(SubscriberId, u64)> + Send + Sync;

/// What became of a domain event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventResult {
    /// Deliveries were made of it.
    Accepted,
    /// Its type is not in the catalogue.
    Ignored,
    /// No subscriber is entitled to it.
    Unmatched,
    /// It cannot be used.
    Rejected,
}

/// How a delivery travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// An HTTP POST.
    Http,
    /// A message to a queue or an exchange.
    Amqp,
    /// Nobody knows: the subscriber is gone.
    Unknown,
}

impl Transport {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Amqp => "amqp",
            Self::Unknown => "unknown",
        }
    }
}

impl From<&Target> for Transport {
    fn from(target: &Target) -> Self {
        match target {
            Target::Http(_) => Self::Http,
            Target::Amqp(_) => Self::Amqp,
        }
    }
}

/// The metrics of one bridge.
pub struct Metrics {
    registry: Registry,
    events: IntCounterVec,
    deliveries: IntCounterVec,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    delivery_latency: HistogramVec,
    in_flight: IntGaugeVec,
    failures_in_a_row: GaugeVec,
    queue_messages: IntGaugeVec,
    subscribers: IntGaugeVec,
    ready: IntGauge,
    broker_connected: IntGauge,
    broker_blocked: IntGauge,
    broker_reconnects: IntCounter,
    tasks: IntGauge,
    slow: IntGauge,
    /// What is told of the store.
    pub store: StoreMetrics,
    /// What is told of certificates.
    pub certificates: CertificateMetrics,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name, help, labels: &[_]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name, help, labels: &[_]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name, help| registered(&registry, IntGauge::new(name, help));
        let histograms = |name, help| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            registered(&registry, HistogramVec::new(options, &["transport"]))
        };
        let version = Opts::new(
            "hookbridge_build_info",
            "Always 1; the version is in the label.",
        )
        .const_label("version", env!("CARGO_PKG_VERSION"));
        registered(&registry, Gauge::with_opts(version))?.set(1.0);
        let worst = Opts::new(
            "hookbridge_subscriber_failures_in_a_row",
            "Failed attempts since the last success, for the 50 subscribers with the most.",
        );
        let metrics = Self {
            events: counters(
                "hookbridge_events_total",
                "Domain events taken in, by catalogue type or 'other', and by what became of them.",
                &["type", "result"],
            )?,
            deliveries: counters(
                "hookbridge_deliveries_total",
                "Deliveries that ended: delivered, or dead.",
                &["webhook", "transport", "outcome"],
            )?,
            attempts: counters(
                "hookbridge_attempts_total",
                "Attempts by number (1 or 2) and result: delivered, or the reason of the failure.",
                &["transport", "attempt", "result"],
            )?,
            attempt_duration: histograms(
                "hookbridge_attempt_duration_seconds",
                "How long attempts took.",
            )?,
            delivery_latency: histograms(
                "hookbridge_delivery_latency_seconds",
                "From the arrival of the domain event to its delivery, the wait for a retry included.",
            )?,
            in_flight: gauges(
                "hookbridge_in_flight",
                "Attempts under way.",
                &["transport"],
            )?,
            failures_in_a_row: registered(&registry, GaugeVec::new(worst, &["subscriber"]))?,
            queue_messages: gauges(
                "hookbridge_queue_messages",
                "Messages ready in the bridge's queues, looked up every few seconds.",
                &["queue"],
            )?,
            subscribers: gauges("hookbridge_subscribers", "Subscribers known.", &["state"])?,
            ready: gauge(
                "hookbridge_ready",
                "Whether the bridge does its work, as /readyz says (1), or not (0).",
            )?,
            broker_connected: gauge(
                "hookbridge_broker_connected",
                "Whether the home broker is connected (1) or not (0).",
            )?,
            broker_blocked: gauge(
                "hookbridge_broker_blocked",
                "Whether the home broker blocks publishers, as in a memory or disk alarm (1), or not (0).",
            )?,
            broker_reconnects: registered(
                &registry,
                IntCounter::new(
                    "hookbridge_broker_reconnects_total",
                    "Times the home broker was reconnected.",
                ),
            )?,
            tasks: gauge(
                "hookbridge_tasks",
                "Tasks alive in the bridge's runtime: it holds one for each consumer, channel and attempt.",
            )?,
            slow: gauge(
                "hookbridge_slow_subscribers",
                "Subscribers whose deliveries go through the slow lanes.",
            )?,
            store: StoreMetrics::new(&registry)?,
            certificates: CertificateMetrics::new(&registry)?,
            registry: registry.clone(),
        };
        metrics.touch();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Creates the series that alerts look at, so that a first failure is a step from 0 and not a
    /// series out of nowhere.
    fn touch(&self) {
        for transport in [Transport::Http, Transport::Amqp] {
            let transport = transport.as_str();
            for kind in WebhookType::ALL {
                for outcome in ["delivered", "dead"] {
                    self.deliveries
                        .with_label_values(&[kind.name(), transport, outcome]);
                }
            }
            for attempt in ["1", "2"] {
                self.attempts
                    .with_label_values(&[transport, attempt, "delivered"]);
            }
            self.attempt_duration.with_label_values(&[transport]);
            self.delivery_latency.with_label_values(&[transport]);
            self.in_flight.with_label_values(&[transport]);
        }
        for kind in WebhookType::ALL {
            let unknown = Transport::Unknown.as_str();
            self.deliveries
                .with_label_values(&[kind.name(), unknown, "dead"]);
        }
        for kind in EventType::ALL {
            for result in ["accepted", "rejected"] {
                self.events.with_label_values(&[kind.name(), result]);
            }
        }
        self.events.with_label_values(&["other", "rejected"]);
    }

    /// A domain event was dealt with.
    pub fn event(&self, kind: Option<EventType>, result: EventResult) {
        let result = match result {
            EventResult::Accepted => "accepted",
            EventResult::Ignored => "ignored",
            EventResult::Unmatched => "unmatched",
            EventResult::Rejected => "rejected",
        };
        self.events
            .with_label_values(&[kind.map_or("other", EventType::name), result])
            .inc();
    }

    /// An attempt begins; it ends when the guard is dropped.
    pub fn attempt_begins(&self, transport: Transport) -> InFlight {
        let gauge = self.in_flight.with_label_values(&[transport.as_str()]);
        gauge.inc();
        InFlight(gauge)
    }

    /// An attempt ended. `took` is absent where none was made: the subscriber is gone or disabled.
    pub fn attempt(
        &self,
        transport: Transport,
        attempt: Attempt,
        outcome: &Outcome,
        took: Option<Duration>,
    ) {
        let number = if attempt == Attempt::First { "1" } else { "2" };
        let result = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed(failure) => failure.reason.as_str(),
        };
        self.attempts
            .with_label_values(&[transport.as_str(), number, result])
            .inc();
        if let Some(took) = took {
            self.attempt_duration
                .with_label_values(&[transport.as_str()])
                .observe(took.as_secs_f64());
        }
    }

    /// A delivery arrived, `latency` after its domain event.
    pub fn delivered(&self, kind: WebhookType, transport: Transport, latency: Duration) {
        self.deliveries
            .with_label_values(&[kind.name(), transport.as_str(), "delivered"])
            .inc();
        self.delivery_latency
            .with_label_values(&[transport.as_str()])
            .observe(latency.as_secs_f64());
    }

    /// A delivery became a dead letter.
    pub fn dead(&self, kind: WebhookType, transport: Transport) {
        self.deliveries
            .with_label_values(&[kind.name(), transport.as_str(), "dead"])
            .inc();
    }

    /// The messages in each group of queues.
    pub fn queues(&self, messages: &[(&'static str, u64)]) {
        for (queue, count) in messages {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.queue_messages.with_label_values(&[queue]).set(count);
        }
    }

    /// How many subscribers there are.
    pub fn subscribers(&self, enabled: usize, disabled: usize) {
        for (state, count) in [("enabled", enabled), ("disabled", disabled)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.subscribers.with_label_values(&[state]).set(count);
        }
    }

    /// How many subscribers are slow.
    pub fn slow(&self, count: usize) {
        self.slow.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the bridge does its work.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// The state of the home broker.
    pub fn broker(&self, connected: bool, blocked: bool, reconnects: u64) {
        self.broker_connected.set(connected.into());
        self.broker_blocked.set(blocked.into());
        self.broker_reconnects
            .inc_by(reconnects.saturating_sub(self.broker_reconnects.get()));
    }

    /// Everything in Prometheus' text format; `worst` is asked who fails most.
    pub fn render(&self, worst: &Worst) -> Result<Vec<u8>, prometheus::Error> {
        self.name_the_worst(worst(WORST));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks();
            self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn name_the_worst(&self, worst: Vec<(SubscriberId, u64)>) {
        self.failures_in_a_row.reset();
        for (id, count) in worst {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge is a float; no count gets near 2^52"
            )]
            self.failures_in_a_row
                .with_label_values(&[id.as_str()])
                .set(count as f64);
        }
    }
}

/// Makes a metric known to the registry.
fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<M, prometheus::Error>,
) -> Result<M, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Counts an attempt as under way until dropped.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
