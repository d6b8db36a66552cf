//! What arrives: the documented payload byte for byte, with the promised headers and properties and
//! nothing else, over each transport.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable},
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    bridge::{RunningBridge, SOURCE, Setup},
    broker::Vhost,
    client::{Client, Message, Published},
    eventually::SOON,
    http::{Arrival, Receiver},
    planted::BARE,
};

/// Event, webhook type, and the event's time in seconds.
const EXAMPLES: [(&str, &str, u64); 11] = [
    ("01-status-update", "StatusUpdate", 1_548_156_578),
    ("02-new-cost-proposal", "NewCostProposal", 1_574_681_429),
    ("03-new-message", "NewMessage", 1_574_678_034),
    ("04-new-file-uploaded", "NewFileUploaded", 1_574_678_400),
    ("05-activity-change-claim", "ActivityChange", 1_618_304_330),
    ("06-activity-change-case", "ActivityChange", 1_618_304_330),
    (
        "07-claim-attribute-change",
        "ClaimAttributeChange",
        1_618_304_330,
    ),
    (
        "08-contact-attribute-change",
        "ContactAttributeChange",
        1_618_304_330,
    ),
    (
        "09-case-attribute-change",
        "CaseAttributeChange",
        1_618_304_330,
    ),
    (
        "10-activity-attribute-change",
        "ActivityAttributeChange",
        1_618_304_330,
    ),
    ("11-claim-status-change", "ClaimStatusChange", 1_631_110_940),
];

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER_TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn example(name: &str, side: &str) -> String {
    let path = format!(
        "{}/tests/examples/{name}.{side}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).unwrap()
}

fn event(name: &str) -> Value {
    serde_json::from_str(&example(name, "event")).unwrap()
}

/// The text without the white space between its tokens: nothing else is changed, neither the order
/// of the keys nor the digits of a number.
fn compact(text: &str) -> String {
    let mut compact = String::new();
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        compact.push(c);
    }
    compact
}

/// The id that a receiver may rely on, worked out from its published definition.
fn webhook_id(source: &str, id: &str, subscriber: &str) -> String {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:hookbridge:webhook");
    let name = format!("[\"{source}\",\"{id}\",\"{subscriber}\"]");
    Uuid::new_v5(&namespace, name.as_bytes()).to_string()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// One bridge with a subscriber for each transport, entitled to everything there is.
struct Line {
    bridge: RunningBridge,
    receiver: Receiver,
    outside: Client,
    _vhosts: [Vhost; 2],
}

/// Subscriber and queue on each broker; `http` is the third subscriber.
const HOME: (&str, &str) = ("home", "home.webhooks");
const OUTSIDE: (&str, &str) = ("outside", "outside.webhooks");

impl Line {
    async fn start() -> Self {
        let (vhost, other) = (Vhost::new("payloads"), Vhost::new("payloads-outside"));
        let receiver = Receiver::start().await;
        let outside = other.connect().await;
        outside.declare_quorum(OUTSIDE.1).await;
        // The party that the example of a message is not from; the others say no party.
        let party = "party = \"northwind\"\nevents = [\"*\"]";
        let twins = [
            (
                "http",
                format!("[http]\nurl = \"{}\"", receiver.url("/hook")),
            ),
            (
                HOME.0,
                format!("[amqp]\nqueue = \"{}\"\ndeclare = true", HOME.1),
            ),
            (
                OUTSIDE.0,
                format!(
                    "[amqp]\nuri = \"{}\"\nqueue = \"{}\"",
                    other.uri(),
                    OUTSIDE.1
                ),
            ),
        ];
        let mut setup = Setup::new(&vhost);
        for (id, target) in twins {
            setup = setup.subscriber(id, &format!("{BARE}\n{party}\n{target}"));
        }
        Self {
            bridge: setup.start().await,
            receiver,
            outside,
            _vhosts: [vhost, other],
        }
    }

    /// Publishes an event and gives what came of it over HTTP, at home and outside.
    async fn pass(
        &self,
        event: &Value,
        properties: BasicProperties,
    ) -> (Arrival, Message, Message) {
        let before = self.receiver.arrivals().len();
        let key = event["type"].as_str().unwrap();
        let client = &self.bridge.client;
        let published = client
            .publish_with(SOURCE, key, event.to_string().as_bytes(), properties)
            .await;
        assert_eq!(published, Published::Routed);
        self.receiver.wait_for(before + 1, SOON).await;
        // The bridge declares the queue when there is something to publish; before it holds that,
        // the broker may not be able to get anything out of it.
        client.wait_for_depth(HOME.1, 1, SOON).await;
        let at_home = client.receive(HOME.1, 1, SOON).await.remove(0);
        let outside = self.outside.receive(OUTSIDE.1, 1, SOON).await.remove(0);
        let arrivals = self.receiver.arrivals();
        assert_eq!(arrivals.len(), before + 1);
        (arrivals[before].clone(), at_home, outside)
    }

    /// Ends the bridge; nothing must be left anywhere.
    async fn stop(self) {
        let client = self.bridge.client.clone();
        self.bridge.stop().await;
        for queue in ["events", "dead", "rejected", "lost"] {
            let depth = client.depth(&format!("hookbridge.{queue}")).await;
            assert_eq!(depth, Some(0), "{queue}");
        }
        assert_eq!(client.depth(HOME.1).await, Some(0));
        assert_eq!(self.outside.depth(OUTSIDE.1).await, Some(0));
    }
}

/// The names of the headers, sorted.
fn names(message: &Message) -> Vec<String> {
    let headers = message.properties.headers().clone().unwrap();
    headers.inner().keys().map(ToString::to_string).collect()
}

/// Checks everything that an AMQP subscriber gets but for the body.
fn check_message(
    message: &Message,
    queue: &str,
    id: &str,
    kind: &str,
    time: u64,
    trace: Option<&str>,
) {
    assert_eq!(
        (message.exchange.as_str(), message.routing_key.as_str()),
        ("", queue)
    );
    let sent = message.header("webhook-timestamp").unwrap();
    assert!(now() - sent.parse::<u64>().unwrap() < 60, "{sent}");
    let mut headers = FieldTable::default();
    let mut text = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    text("webhook-id", id);
    text("webhook-timestamp", &sent);
    text("webhook-type", kind);
    text("webhook-attempt", "1");
    if let Some(trace) = trace {
        text("traceparent", trace);
    }
    // Quorum queues say themselves how often they delivered.
    if let Some(count) = message.header("x-delivery-count") {
        headers.insert(
            "x-delivery-count".into(),
            AMQPValue::LongLongInt(count.parse().unwrap()),
        );
        assert_eq!(count, "0");
    }
    // All there is: no other header, and no other property.
    let expected = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(id.into())
        .with_type(kind.into())
        .with_timestamp(time)
        .with_app_id("hookbridge".into())
        .with_headers(headers);
    assert_eq!(message.properties, expected, "{:?}", names(message));
}

/// Checks everything that an HTTP subscriber gets but for the body.
fn check_request(request: &Arrival, id: &str, kind: &str, trace: Option<&str>) {
    assert_eq!(request.method, "POST");
    assert_eq!(
        (request.path.as_str(), request.query.as_deref()),
        ("/hook", None)
    );
    let sent = request.header("webhook-timestamp").unwrap();
    assert!(now() - sent.parse::<u64>().unwrap() < 60, "{sent}");
    let user_agent = format!("hookbridge/{}", env!("CARGO_PKG_VERSION"));
    let length = request.body.len().to_string();
    let mut expected = vec![
        ("content-type", "application/json"),
        ("content-length", &length),
        ("user-agent", &user_agent),
        ("webhook-id", id),
        ("webhook-timestamp", sent),
        ("webhook-type", kind),
        ("webhook-attempt", "1"),
    ];
    expected.extend(trace.map(|trace| ("traceparent", trace)));
    // What any HTTP client says.
    let plain = ["host", "accept", "accept-encoding"];
    let mut got: Vec<(&str, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .filter(|(name, _)| !plain.contains(name))
        .collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_arrives_byte_for_byte_over_each_transport() {
    let line = Line::start().await;
    for (name, kind, time) in EXAMPLES {
        let mut event = event(name);
        // The examples of the case administration name no party.
        event["data"]["case"]["parties"] = serde_json::json!(["northwind", "fixit"]);
        let (source, id) = (
            event["source"].as_str().unwrap(),
            event["id"].as_str().unwrap(),
        );
        let ids = ["http", HOME.0, OUTSIDE.0].map(|to| webhook_id(source, id, to));
        let (request, home, outside) = line.pass(&event, BasicProperties::default()).await;

        let expected = compact(&example(name, "webhook"));
        assert_eq!(request.text(), expected, "{name} over HTTP");
        assert_eq!(home.text(), expected, "{name} at home");
        assert_eq!(outside.text(), expected, "{name} outside");
        check_request(&request, &ids[0], kind, None);
        check_message(&home, HOME.1, &ids[1], kind, time, None);
        check_message(&outside, OUTSIDE.1, &ids[2], kind, time, None);
    }
    let delivered = line.bridge.metrics().await;
    for (transport, count) in [("http", 11), ("amqp", 22)] {
        let labels = [("transport", transport), ("outcome", "delivered")];
        let value = delivered.value("hookbridge_deliveries_total", &labels);
        assert_eq!(value, count, "{transport}");
    }
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_carried_and_nothing_else_of_a_hostile_message() {
    let line = Line::start().await;
    line.bridge.client.declare_quorum(STRAY).await;
    let base = event("01-status-update");
    let with_attribute = |trace: &str| {
        let mut event = base.clone();
        event["traceparent"] = trace.into();
        event
    };
    let with_header = |trace: &str| {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(trace.into()));
        BasicProperties::default().with_headers(headers)
    };
    let nothing = BasicProperties::default;
    let upper = TRACE.to_uppercase();
    let zeros = TRACE.replace("b7ad6b7169203331", "0000000000000000");
    let newer = format!("cc{}-more", &TRACE[2..]);
    let cases = [
        (base.clone(), with_header(TRACE), Some(TRACE)),
        (with_attribute(TRACE), nothing(), Some(TRACE)),
        (with_attribute(OTHER_TRACE), with_header(TRACE), Some(TRACE)),
        // An invalid one is dropped, and hides no valid one.
        (
            with_attribute(OTHER_TRACE),
            with_header("00-1"),
            Some(OTHER_TRACE),
        ),
        (base.clone(), with_header(&upper), None),
        (base.clone(), with_header(&format!("{TRACE}\r\nx: y")), None),
        (with_attribute(&zeros), with_header(""), None),
        (with_attribute(&newer), nothing(), Some(newer.as_str())),
        (base.clone(), hostile(), None),
    ];
    let ids = ["http", HOME.0, OUTSIDE.0].map(|to| webhook_id("/order-hub", "evt-01", to));
    for (event, properties, trace) in cases {
        let (request, home, outside) = line.pass(&event, properties).await;
        check_request(&request, &ids[0], "StatusUpdate", trace);
        check_message(&home, HOME.1, &ids[1], "StatusUpdate", EXAMPLES[0].2, trace);
        check_message(
            &outside,
            OUTSIDE.1,
            &ids[2],
            "StatusUpdate",
            EXAMPLES[0].2,
            trace,
        );
    }
    let stray = line.bridge.client.depth(STRAY).await;
    assert_eq!(stray, Some(0), "a copied CC or BCC");
    line.stop().await;
}

/// A queue that gets a copy of whatever is published to a queue with a hostile message's headers.
const STRAY: &str = "stray";

/// Everything that a publisher can put into a message to lead the bridge or the broker astray.
fn hostile() -> BasicProperties {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let list = |value: &str| AMQPValue::FieldArray(FieldArray::from(vec![text(value)]));
    let mut death = FieldTable::default();
    death.insert("queue".into(), text("hookbridge.second.fast.00"));
    death.insert("reason".into(), text("expired"));
    death.insert("count".into(), AMQPValue::LongLongInt(7));
    let mut headers = FieldTable::default();
    let mut put = |name: &str, value| {
        headers.insert(name.into(), value);
    };
    put(
        "x-death",
        AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()),
    );
    put("x-delivery-count", AMQPValue::LongLongInt(1_000_000_000));
    put("CC", list(STRAY));
    put("BCC", list(STRAY));
    for name in [
        "webhook-id",
        "webhook-type",
        "webhook-attempt",
        "webhook-signature",
        "x-anything",
    ] {
        put(name, text("forged"));
    }
    for name in [
        "subscriber",
        "reason",
        "detail",
        "attempts",
        "first-reason",
        "case",
    ] {
        put(&format!("hookbridge-{name}"), text("forged"));
    }
    put("hookbridge-replay", AMQPValue::LongLongInt(9));
    put("hookbridge-received-at", AMQPValue::LongLongInt(1));
    put("traceparent", AMQPValue::LongLongInt(1));
    BasicProperties::default()
        .with_headers(headers)
        .with_priority(9)
        .with_reply_to("elsewhere".into())
        .with_correlation_id("forged".into())
        .with_cluster_id("forged".into())
        .with_content_type("text/html".into())
        .with_content_encoding("gzip".into())
        .with_message_id("forged".into())
        .with_type("forged".into())
        .with_app_id("forged".into())
        .with_timestamp(1)
        .with_expiration("60000".into())
}
