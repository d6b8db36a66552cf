//! Traces: a span for each step of an event's walk, sent to a collector over OTLP. Where
//! `telemetry.otlp_endpoint` is empty there is none: every call here looks at a `None`, and what an
//! event carries goes on as it is.
//!
//! The spans of an event's deliveries stand below that of its intake, whose context travels in the
//! lanes as `traceparent`. What a subscriber gets is the context of the attempt.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
        Span as SdkSpan,
    },
};
use thiserror::Error;
use tokio_util::task::TaskTracker;
use tracing::warn;
use url::Url;
use uuid::Uuid;

use super::metrics::Transport;
use crate::delivery::{Attempt, Delivery, Outcome};

mod collector;

use collector::Collector;

/// Spans that wait to be sent. Further ones are dropped: a collector that is away or slow must cost
/// neither memory nor time.
const WAITING: usize = 8_192;
/// Spans in one request.
const TOGETHER: usize = 1_024;
/// How often they are sent.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a stop waits for the last of them: never longer than this, and at least for a moment,
/// though its time may be over.
const LAST: Duration = Duration::from_secs(3);
const LEAST: Duration = Duration::from_millis(200);
/// What collectors take spans under.
const PATH: &str = "/v1/traces";

/// Why traces could not be set up.
#[derive(Debug, Error)]
#[error("telemetry.otlp_endpoint: {0}")]
pub struct TracesError(String);

/// Makes spans, if there is a collector. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Running>>);

struct Running {
    tracer: SdkTracer,
    provider: Mutex<Option<SdkTracerProvider>>,
}

impl Traces {
    /// Sends to the collector at `endpoint`, if there is one. `tasks` knows its requests. Must be
    /// called within the runtime.
    pub fn start(endpoint: Option<&Url>, tasks: &TaskTracker) -> Result<Self, TracesError> {
        let Some(endpoint) = endpoint else {
            return Ok(Self::default());
        };
        let collector = Collector::new(endpoint, tasks.clone()).map_err(TracesError)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_endpoint(address(endpoint))
            .build()
            .map_err(|error| TracesError(error.to_string()))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING)
            .with_max_export_batch_size(TOGETHER)
            .with_scheduled_delay(INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name("hookbridge")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new(
                "service.instance.id",
                Uuid::new_v4().to_string(),
            ))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // Whoever published the event decides whether it is traced; otherwise it is.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        Ok(Self(Some(Arc::new(Running {
            tracer: provider.tracer("hookbridge"),
            provider: Mutex::new(Some(provider)),
        }))))
    }

    /// Whether there are traces.
    pub fn on(&self) -> bool {
        self.0.is_some()
    }

    /// An event is taken in, since `began`: decoded, mapped, matched.
    pub fn intake(
        &self,
        traceparent: Option<&str>,
        kind: &'static str,
        began: Timestamp,
    ) -> Option<Span> {
        let running = self.0.as_ref()?;
        let attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("hookbridge.event.type", kind),
        ];
        let builder = SpanBuilder::from_name("intake")
            .with_kind(SpanKind::Consumer)
            .with_start_time(SystemTime::from(began))
            .with_attributes(attributes);
        Some(running.span(builder, traceparent))
    }

    /// Messages are published to the bridge's own exchanges: the `traceparent` and the exchange of
    /// each. Those without one belong to no trace.
    pub fn publish<'a>(
        &self,
        messages: impl Iterator<Item = (Option<&'a str>, &'a str)>,
    ) -> Vec<Span> {
        let Some(running) = &self.0 else {
            return Vec::new();
        };
        let traced = messages.filter_map(|(traceparent, exchange)| Some((traceparent?, exchange)));
        traced
            .map(|(traceparent, exchange)| {
                let attributes = vec![
                    KeyValue::new("messaging.system", "rabbitmq"),
                    KeyValue::new("messaging.destination.name", exchange.to_owned()),
                ];
                let builder = SpanBuilder::from_name("publish")
                    .with_kind(SpanKind::Producer)
                    .with_attributes(attributes);
                running.span(builder, Some(traceparent))
            })
            .collect()
    }

    /// A delivery waited since then, and its wait for this attempt is over now.
    pub fn waited(&self, delivery: &Delivery, attempt: Attempt, since: Timestamp) {
        let Some(running) = &self.0 else { return };
        let builder = SpanBuilder::from_name("wait")
            .with_start_time(SystemTime::from(since))
            .with_attributes(of_delivery(delivery, attempt));
        running.span(builder, delivery.traceparent.as_deref());
    }

    /// An attempt begins.
    pub fn attempt(
        &self,
        delivery: &Delivery,
        attempt: Attempt,
        transport: Transport,
    ) -> Option<Span> {
        let running = self.0.as_ref()?;
        let mut attributes = of_delivery(delivery, attempt);
        attributes.push(KeyValue::new("hookbridge.transport", transport.as_str()));
        let kind = if transport == Transport::Http {
            SpanKind::Client
        } else {
            SpanKind::Producer
        };
        let builder = SpanBuilder::from_name("attempt")
            .with_kind(kind)
            .with_attributes(attributes);
        Some(running.span(builder, delivery.traceparent.as_deref()))
    }

    /// Sends what is left, and ends. `left` is what is left of the time for a stop.
    pub async fn end(&self, left: Duration) {
        let Some(running) = &self.0 else { return };
        let provider = running
            .provider
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(provider) = provider else { return };
        let limit = left.clamp(LEAST, LAST);
        // It waits for its own thread.
        let ending = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        if let Ok(Err(error)) = ending.await {
            warn!("the last traces did not reach their collector: {error}");
        }
    }
}

impl Running {
    fn span(&self, builder: SpanBuilder, traceparent: Option<&str>) -> Span {
        let parent = traceparent.and_then(parsed);
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        Span(Box::new(self.tracer.build_with_context(builder, &context)))
    }
}

/// A span that is under way. It ends when it is dropped.
pub struct Span(Box<SdkSpan>);

impl Span {
    /// Its context, as W3C has it.
    pub fn traceparent(&self) -> String {
        let context = self.0.span_context();
        format!(
            "00-{:032x}-{:016x}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        )
    }

    /// The delivery as it is sent within this span.
    pub fn within(&self, delivery: &Delivery) -> Box<Delivery> {
        Box::new(Delivery {
            traceparent: Some(self.traceparent()),
            ..delivery.clone()
        })
    }

    /// Ends an attempt with its outcome.
    pub fn ended(mut self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed(failure) => {
                // The detail may quote what a subscriber answered: the log has it.
                self.0.set_status(Status::error(failure.reason.as_str()));
                failure.reason.as_str()
            }
        };
        self.0
            .set_attribute(KeyValue::new("hookbridge.result", result));
    }
}

fn of_delivery(delivery: &Delivery, attempt: Attempt) -> Vec<KeyValue> {
    vec![
        KeyValue::new(
            "hookbridge.subscriber",
            delivery.subscriber.as_str().to_owned(),
        ),
        KeyValue::new("hookbridge.webhook.id", delivery.webhook_id.to_string()),
        KeyValue::new("hookbridge.webhook.type", delivery.kind.name()),
        KeyValue::new("hookbridge.attempt", i64::from(attempt.number())),
    ]
}

/// Where a collector at this address takes spans.
fn address(endpoint: &Url) -> String {
    let base = endpoint.as_str().trim_end_matches('/');
    if base.ends_with(PATH) {
        base.to_owned()
    } else {
        format!("{base}{PATH}")
    }
}

/// The context in a `traceparent`, which was checked when it came.
fn parsed(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(fields.next()?).ok()?;
    let span = SpanId::from_hex(fields.next()?).ok()?;
    let flags = u8::from_str_radix(fields.next()?, 16).ok()?;
    let sampled = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(
        trace,
        span,
        sampled,
        true,
        TraceState::NONE,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_its_address_or_by_its_whole_path() {
        for (given, used) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("https://c/v1/traces", "https://c/v1/traces"),
        ] {
            assert_eq!(address(&given.parse().unwrap()), used);
        }
    }

    #[test]
    fn a_traceparent_of_a_version_to_come_is_read_as_far_as_it_is_known() {
        let text = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-more";
        let context = parsed(text).unwrap();
        assert_eq!(
            context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert!(parsed("nothing").is_none());
    }
}
