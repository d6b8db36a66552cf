//! What cannot be used is kept aside, whole and with the reason, and is in nobody's way.

use std::collections::BTreeMap;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use crate::support::{
    bridge::{RunningBridge, Setup},
    broker::Vhost,
    client::Message,
    eventually::{SOON, eventually},
    http::Receiver,
};

const REJECTED: &str = "hookbridge.rejected";
const MAX: usize = 200_000;

/// A good event, told by the name of its status.
fn good(name: &str) -> Value {
    json!({
        "specversion": "1.0", "id": name, "source": "/rejection", "type": "case.status.updated",
        "time": "2019-01-22T11:29:38.258Z",
        "data": {
            "case": {"id": "c-1"},
            "status": {
                "key": "final", "name": name,
                "createdAt": "2019-01-22T11:29:38.258Z", "updatedAt": "2019-01-22T11:29:38.258Z",
            },
        },
    })
}

/// A good event with one field changed, or removed by null's absence.
fn with(pointer: &str, value: Option<Value>) -> Vec<u8> {
    let mut event = good("bad");
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    event.to_string().into_bytes()
}

/// Reason, a part of the detail, and the event.
fn unusable() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut not_utf8 = good("bad").to_string().into_bytes();
    let at = not_utf8.windows(3).position(|w| w == b"bad").unwrap();
    not_utf8[at] = 0xff;
    let mut half = good("bad").to_string().into_bytes();
    half.truncate(half.len() / 2);
    let large = with("/data/note", Some("x".repeat(MAX).into()));
    let huge = vec![0_u8; 10 * 1024 * 1024];
    vec![
        ("too_large", "source.max_event_bytes", large),
        ("too_large", "10485760 bytes", huge),
        ("not_json", "UTF-8", not_utf8),
        ("not_json", "not JSON", half),
        ("not_json", "not JSON", Vec::new()),
        ("not_json", "not JSON", b"{} {}".to_vec()),
        ("not_json", "not JSON", b"\0\x01 binary \r\n".to_vec()),
        ("not_cloudevents", "is an array", b"[]".to_vec()),
        ("not_cloudevents", "is a string", b"\"event\"".to_vec()),
        ("not_cloudevents", "specversion", b"{}".to_vec()),
        (
            "not_cloudevents",
            "specversion",
            with("/specversion", Some("0.3".into())),
        ),
        ("missing_field", "id is absent", with("/id", None)),
        (
            "missing_field",
            "time is null",
            with("/time", Some(Value::Null)),
        ),
        ("missing_field", "data is absent", with("/data", None)),
        (
            "missing_field",
            "data.case is absent",
            with("/data/case", None),
        ),
        (
            "missing_field",
            "data.status.key is null",
            with("/data/status/key", Some(Value::Null)),
        ),
        ("invalid_field", "id", with("/id", Some("".into()))),
        ("invalid_field", "source", with("/source", Some(7.into()))),
        (
            "invalid_field",
            "time",
            with("/time", Some("2019-01-22T11:29:38".into())),
        ),
        ("invalid_field", "data", with("/data", Some("text".into()))),
        (
            "invalid_field",
            "data.case.id",
            with("/data/case/id", Some("a\u{7}b".into())),
        ),
        (
            "invalid_field",
            "data.status.updatedAt",
            with("/data/status/updatedAt", Some("soon".into())),
        ),
        (
            "unknown_type",
            "case.forgotten",
            with("/type", Some("case.forgotten".into())),
        ),
    ]
}

fn headers<const N: usize>(headers: [(&str, AMQPValue); N]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), value);
    }
    BasicProperties::default().with_headers(table)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Waits until as many rejected events are kept as there are in `expected`, takes them, and checks
/// each: by its body it is known what it must say.
async fn take_rejected(bridge: &RunningBridge, expected: usize) -> Vec<Message> {
    let count = u32::try_from(expected).unwrap();
    bridge.client.wait_for_depth(REJECTED, count, SOON).await;
    bridge.rejected().await
}

/// The names that came in webhooks, as often as they came.
fn names(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for arrival in receiver.arrivals() {
        let payload: Value = serde_json::from_slice(&arrival.body).unwrap();
        *names
            .entry(payload["name"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    names
}

async fn start(vhost: &Vhost, receiver: &Receiver, settings: &str) -> RunningBridge {
    let url = receiver.url("/");
    let subscriber = format!("scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{url}\"");
    Setup::new(vhost)
        .settings(settings)
        .subscriber("all", &subscriber)
        .start()
        .await
}

/// Stops the bridge. No event may be left, waiting or unacknowledged, nor anything lost or dead.
async fn stop(bridge: RunningBridge) {
    let client = bridge.client.clone();
    bridge.stop().await;
    for queue in ["events", "dead", "lost", "rejected"] {
        let depth = client.depth(&format!("hookbridge.{queue}")).await;
        assert_eq!(depth, Some(0), "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_event_is_kept_whole_with_its_reason_and_the_next_one_passes() {
    let (vhost, receiver) = (Vhost::new("rejection"), Receiver::start().await);
    let settings = format!("[source]\nunknown_events = \"reject\"\nmax_event_bytes = {MAX}");
    let bridge = start(&vhost, &receiver, &settings).await;
    let events = unusable();
    for (number, (reason, detail, body)) in events.iter().enumerate() {
        // What a publisher writes into the headers changes nothing and goes nowhere.
        let forged = headers([
            ("hookbridge-reason", text("forged")),
            ("hookbridge-detail", text("forged")),
            ("hookbridge-attempts", AMQPValue::LongLongInt(2)),
            (
                "x-death",
                AMQPValue::FieldArray(vec![text("forged")].into()),
            ),
            ("CC", AMQPValue::FieldArray(vec![text("second")].into())),
        ]);
        let properties = if number % 2 == 0 {
            BasicProperties::default()
        } else {
            forged.with_message_id("forged".into()).with_priority(3)
        };
        let key = format!("bad.{number}");
        bridge.publish_raw(&key, body, properties).await;
        let message = take_rejected(&bridge, 1).await.remove(0);
        assert!(message.body == *body, "{reason}: byte for byte");
        assert_eq!(message.routing_key, key);
        assert_eq!(
            message.header("hookbridge-reason").as_deref(),
            Some(*reason),
            "{detail}"
        );
        let said = message.header("hookbridge-detail").unwrap();
        assert!(
            said.contains(detail),
            "{reason}: {said:?} does not say {detail:?}"
        );
        assert!(!said.contains('\n'), "{said}");
        let table = message.properties.headers().clone().unwrap();
        let mut names: Vec<_> = table.inner().keys().map(ToString::to_string).collect();
        names.retain(|name| name != "x-delivery-count");
        let ours = [
            "hookbridge-detail",
            "hookbridge-failed-at",
            "hookbridge-reason",
        ];
        assert_eq!(names, ours, "nothing of the message's own headers");
        assert_ne!(
            message
                .properties
                .message_id()
                .as_ref()
                .map(ToString::to_string)
                .as_deref(),
            Some("forged")
        );
        assert_eq!(*message.properties.priority(), None);
        assert_eq!(*message.properties.delivery_mode(), Some(2));
    }
    bridge.publish(&good("behind-them-all")).await;
    receiver.wait_for(1, SOON).await;
    let rejected = [("result", "rejected")];
    let count = u64::try_from(events.len()).unwrap();
    bridge
        .wait_for_metric("hookbridge_events_total", &rejected, count)
        .await;
    stop(bridge).await;
    assert_eq!(names(&receiver), [("behind-them-all".to_owned(), 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_thousand_events_each_good_one_arrives_and_each_bad_one_is_kept() {
    let (vhost, receiver) = (Vhost::new("rejection"), Receiver::start().await);
    let bridge = start(&vhost, &receiver, "").await;
    // By default events of unknown types are none of the bridge's business.
    let unknown = with("/type", Some("case.forgotten".into()));
    let bodies: Vec<Vec<u8>> = (0..2000)
        .map(|number| match number % 5 {
            0 => format!("{{ not JSON, number {number}").into_bytes(),
            1 => unknown.clone(),
            2 => with("/data/status/name", Some(number.into())),
            _ => good(&number.to_string()).to_string().into_bytes(),
        })
        .collect();
    let keyed = bodies
        .iter()
        .map(|body| ("case.status.updated", body.as_slice()));
    bridge.publish_many(keyed).await;
    for (result, count) in [("accepted", 800), ("ignored", 400), ("rejected", 800)] {
        let labels = [("result", result)];
        bridge
            .wait_for_metric("hookbridge_events_total", &labels, count)
            .await;
    }
    let mut rejected: Vec<_> = take_rejected(&bridge, 800).await;
    rejected.sort_by(|a, b| a.body.cmp(&b.body));
    let mut expected: Vec<_> = bodies
        .iter()
        .zip(0..)
        .filter(|(_, n)| matches!(n % 5, 0 | 2))
        .collect();
    expected.sort();
    for (message, (body, number)) in rejected.iter().zip(&expected) {
        assert_eq!(message.body, **body);
        let reason = if number % 5 == 0 {
            "not_json"
        } else {
            "invalid_field"
        };
        assert_eq!(message.header("hookbridge-reason").as_deref(), Some(reason));
    }
    receiver.wait_for(800, SOON).await;
    stop(bridge).await;
    let good: BTreeMap<_, _> = (0..2000)
        .filter(|number| number % 5 > 2)
        .map(|number: usize| (number.to_string(), 1))
        .collect();
    assert_eq!(names(&receiver), good);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_as_large_as_the_broker_allows_keep_nothing_from_passing() {
    let (vhost, receiver) = (Vhost::new("rejection"), Receiver::start().await);
    let bridge = start(&vhost, &receiver, "").await;
    // A header has to fit into one frame, of 131,072 bytes by default.
    for kilobytes in [60, 100, 130] {
        let name = format!("{kilobytes}-kB");
        let padding = "x".repeat(kilobytes * 1000);
        let large = headers([("x-padding", text(&padding))]);
        let body = good(&name).to_string();
        bridge
            .publish_raw("case.status.updated", body.as_bytes(), large)
            .await;
        let bad = headers([("x-padding", text(&padding))]);
        bridge.publish_raw("bad", b"bad", bad).await;
        let passed = async || names(&receiver).contains_key(&name).then_some(());
        eventually(&format!("{name} of headers pass"), SOON, passed).await;
        let message = take_rejected(&bridge, 1).await.remove(0);
        assert_eq!(message.text(), "bad");
        assert_eq!(message.header("x-padding"), None);
    }
    bridge.publish(&good("small")).await;
    receiver.wait_for(4, SOON).await;
    let reconnects = bridge
        .metrics()
        .await
        .value("hookbridge_broker_reconnects_total", &[]);
    assert_eq!(reconnects, 0, "no connection was lost over it");
    stop(bridge).await;
    let each = ["100-kB", "130-kB", "60-kB", "small"].map(|name| (name.to_owned(), 1));
    assert_eq!(names(&receiver), each.into());
}
