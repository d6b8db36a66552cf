//! Traces, as a collector gets them: real OTLP, decoded as the protobuf that it is.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as AnyValue},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use serde_json::json;

use crate::support::{
    broker::Vhost,
    client::{Client, Published},
    eventually::{SOON, eventually},
    http::{Answer, Receiver},
    program::{EVENT_KEY, Setup, event},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector: a receiver of whatever comes to `/v1/traces`.
struct Collector(Receiver);

impl Collector {
    async fn start() -> Self {
        Self(Receiver::start().await)
    }

    fn endpoint(&self) -> String {
        self.0.url("")
    }

    /// Every span that came, of this trace.
    fn spans(&self, trace: &str) -> Vec<Span> {
        let mut spans = Vec::new();
        for arrival in self.0.arrivals() {
            assert_eq!(arrival.path, "/v1/traces");
            assert_eq!(
                arrival.header("content-type"),
                Some("application/x-protobuf")
            );
            let request = ExportTraceServiceRequest::decode(&*arrival.body).unwrap();
            for resource in request.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                assert_eq!(text(&attributes, "service.name"), "hookbridge");
                assert_eq!(
                    text(&attributes, "service.version"),
                    env!("CARGO_PKG_VERSION")
                );
                spans.extend(
                    resource
                        .scope_spans
                        .into_iter()
                        .flat_map(|scope| scope.spans),
                );
            }
        }
        spans.retain(|span| hex(&span.trace_id) == trace);
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }

    async fn wait_for(&self, trace: &str, count: usize) -> Vec<Span> {
        let enough = async || Some(self.spans(trace)).filter(|spans| spans.len() >= count);
        eventually(&format!("{count} spans"), SOON, enough).await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match attribute(attributes, key) {
        Some(AnyValue::StringValue(text)) => text.clone(),
        other => panic!("{key} is {other:?}"),
    }
}

/// What a span is, in a line: its name, whose it is, which attempt, and how that ended.
fn told(span: &Span) -> String {
    let mut words = vec![span.name.clone()];
    for key in [
        "hookbridge.subscriber",
        "messaging.destination.name",
        "hookbridge.result",
    ] {
        if attribute(&span.attributes, key).is_some() {
            words.push(text(&span.attributes, key));
        }
    }
    if let Some(AnyValue::IntValue(number)) = attribute(&span.attributes, "hookbridge.attempt") {
        words.push(number.to_string());
    }
    words.join(" ")
}

fn took(span: &Span) -> Duration {
    Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano)
}

/// What a subscriber gets when it is sent within this span.
fn context_of(span: &Span) -> String {
    format!("00-{TRACE}-{}-01", hex(&span.span_id))
}

async fn publish(client: &Client, traceparent: Option<&str>, own: Option<&str>) {
    let mut event = event("traced", &["fixit"]);
    if let Some(own) = own {
        event["traceparent"] = json!(own);
    }
    let mut headers = FieldTable::default();
    if let Some(traceparent) = traceparent {
        let value = AMQPValue::LongString(traceparent.into());
        headers.insert("traceparent".into(), value);
    }
    let properties = BasicProperties::default().with_headers(headers);
    let body = event.to_string();
    let published = client
        .publish_with("domain.events", EVENT_KEY, body.as_bytes(), properties)
        .await;
    assert_eq!(published, Published::Routed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_leads_from_the_events_publisher_over_every_step_to_the_subscriber() {
    let vhost = Vhost::new("traces");
    let client = vhost.connect().await;
    client.declare_quorum("theirs").await;
    client
        .declare_exchange("open", lapin::ExchangeKind::Topic)
        .await;
    client.declare_quorum("behind").await;
    client.bind("behind", "open", "#").await;
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    receiver.answer_in_turn("/", vec![Answer::Status(503), Answer::Status(200)]);
    let setup = Setup::of(&vhost);
    setup.set("telemetry.otlp_endpoint", collector.endpoint());
    setup.http_subscriber("http", &receiver.url("/"));
    for (id, target) in [
        ("queue", "queue = \"theirs\""),
        ("exchange", "exchange = \"open\""),
    ] {
        let text = format!("id = \"{id}\"\nscope = \"all\"\nevents = [\"*\"]\n[amqp]\n{target}\n");
        setup.subscriber(id, &text);
    }
    let program = setup.run_ready().await;
    publish(&client, Some(&format!("00-{TRACE}-{PARENT}-01")), None).await;

    // A subscriber whose last attempt did not deliver goes through the lanes, and a new one has none.
    // So of two subscribers there is the way into a lane and out of it, and of one that to the retry.
    let spans = collector.wait_for(TRACE, 11).await;
    let mut names: Vec<_> = spans.iter().map(told).collect();
    names.sort();
    let expected = [
        "attempt exchange delivered 1",
        "attempt http delivered 2",
        "attempt http http_status 1",
        "attempt queue delivered 1",
        "intake",
        "publish hookbridge.first",
        "publish hookbridge.first",
        "publish hookbridge.retry",
        "wait exchange 1",
        "wait http 1",
        "wait http 2",
    ];
    assert_eq!(names, expected);

    let find = |name: &str| spans.iter().find(|span| told(span) == name).unwrap();
    let intake = find("intake");
    assert_eq!(
        hex(&intake.parent_span_id),
        PARENT,
        "below what published the event"
    );
    assert_eq!(intake.kind, SpanKind::Consumer as i32);
    assert_eq!(text(&intake.attributes, "hookbridge.event.type"), EVENT_KEY);
    for span in &spans {
        if span.name != "intake" {
            assert_eq!(span.parent_span_id, intake.span_id, "{}", told(span));
        }
        // The event's arrival travels in milliseconds.
        let began = span.start_time_unix_nano + 1_000_000;
        assert!(began >= intake.start_time_unix_nano, "{}", told(span));
        let failed = span
            .status
            .as_ref()
            .is_some_and(|s| s.code == StatusCode::Error as i32);
        assert_eq!(failed, told(span).contains("http_status"), "{}", told(span));
    }
    // The wait is the retry's, and lies between the two attempts.
    let wait = find("wait http 2");
    assert!(took(wait) >= Duration::from_millis(300), "{:?}", took(wait));
    let (first, second) = (
        find("attempt http http_status 1"),
        find("attempt http delivered 2"),
    );
    assert!(wait.end_time_unix_nano >= first.end_time_unix_nano);
    assert!(second.start_time_unix_nano >= wait.end_time_unix_nano);
    assert_eq!(first.kind, SpanKind::Client as i32);

    // Each subscriber goes on from the attempt that reached it.
    let arrivals = receiver.arrivals_at("/");
    assert_eq!(arrivals[0].header("traceparent"), Some(&*context_of(first)));
    assert_eq!(
        arrivals[1].header("traceparent"),
        Some(&*context_of(second))
    );
    for (queue, attempt) in [("theirs", "queue"), ("behind", "exchange")] {
        let message = &client.receive(queue, 1, SOON).await[0];
        let attempt = find(&format!("attempt {attempt} delivered 1"));
        assert_eq!(message.header("traceparent"), Some(context_of(attempt)));
    }
    program.stop().await;
}

/// The publisher decides whether an event is traced, in the message or in the event itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_to_be_traced_is_not_and_the_last_spans_come_with_the_stop() {
    let vhost = Vhost::new("traces");
    let client = vhost.connect().await;
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let setup = Setup::of(&vhost);
    setup.set("telemetry.otlp_endpoint", collector.endpoint());
    setup.http_subscriber("http", &receiver.url("/"));
    let program = setup.run_ready().await;
    let quiet = "1af7651916cd43dd8448eb211c80319c";
    publish(&client, None, Some(&format!("00-{quiet}-{PARENT}-00"))).await;
    // Only then is the next attempt made at once.
    let delivered = "hookbridge_deliveries_total{outcome=\"delivered\",transport=\"http\",webhook=\"StatusUpdate\"}";
    program.wait_metric(delivered, 1.0).await;
    publish(&client, None, Some(&format!("00-{TRACE}-{PARENT}-01"))).await;
    let arrivals = receiver.wait_for(2, SOON).await;
    // Before they would be sent by themselves.
    program.stop().await;
    let names: Vec<_> = collector.spans(TRACE).iter().map(told).collect();
    assert_eq!(names, ["intake", "attempt http delivered 1"]);
    assert_eq!(collector.spans(quiet).len(), 0);

    let untraced = arrivals[0].header("traceparent").unwrap();
    assert!(untraced.starts_with(&format!("00-{quiet}-")), "{untraced}");
    assert!(
        untraced.ends_with("-00"),
        "not to be traced further on either: {untraced}"
    );
    let own = &collector.spans(TRACE)[1];
    assert_eq!(arrivals[1].header("traceparent"), Some(&*context_of(own)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_hangs_costs_a_line_and_no_webhook() {
    let vhost = Vhost::new("traces");
    let client = vhost.connect().await;
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let setup = Setup::of(&vhost);
    setup.set("delivery.timeout", "4s");
    setup.set("delivery.shutdown_timeout", "5s");
    setup.set("telemetry.otlp_endpoint", collector.endpoint());
    collector.0.answer("/v1/traces", Answer::Status(400));
    setup.http_subscriber("http", &receiver.url("/"));
    let mut program = setup.run_ready().await;
    let context = format!("00-{TRACE}-{PARENT}-01");
    publish(&client, Some(&context), None).await;
    receiver.wait_for(1, SOON).await;
    program.wait_said("takes none: answered 400", SOON).await;
    publish(&client, Some(&context), None).await;
    let again = async || (collector.0.arrivals().len() >= 2).then_some(());
    eventually("another request", SOON, again).await;
    assert_eq!(program.said("takes none"), 1, "once, not each time");

    collector.0.answer("/v1/traces", Answer::Hang);
    publish(&client, Some(&context), None).await;
    receiver.wait_for(3, SOON).await;
    let stopping = Instant::now();
    program.signal("TERM");
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    let took = stopping.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_what_the_event_carries_goes_on_as_it_is() {
    let vhost = Vhost::new("traces");
    let client = vhost.connect().await;
    client.declare_quorum("theirs").await;
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("http", &receiver.url("/"));
    let text = "id = \"queue\"\nscope = \"all\"\nevents = [\"*\"]\n[amqp]\nqueue = \"theirs\"\n";
    setup.subscriber("queue", text);
    let program = setup.run_ready().await;
    // A version to come, with a field that nobody knows.
    let context = format!("cc-{TRACE}-{PARENT}-09-later");
    publish(&client, Some(&context), None).await;
    let arrivals = receiver.wait_for(1, SOON).await;
    assert_eq!(arrivals[0].header("traceparent"), Some(&*context));
    let message = &client.receive("theirs", 1, SOON).await[0];
    assert_eq!(message.header("traceparent"), Some(context));
    program.stop().await;
}
