//! What the client library cannot read in somebody else's message stops nothing: not the others,
//! not the connection, and not even that message.

use std::collections::BTreeMap;

use hookbridge::broker::connection::{Dialer, TlsFiles, fixed_uri, system_resolver};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    bridge::{RunningBridge, SOURCE, Setup},
    broker::Vhost,
    eventually::SOON,
    http::Receiver,
    raw::{FRAME_MAX, RawPublisher, entry, headers, long, property, short},
};

const EVENTS: &str = "hookbridge.events";
const REJECTED: &str = "hookbridge.rejected";
/// Not UTF-8, but somebody's name in Latin-1.
const LATIN: &[u8] = b"M\xfcller";
const KEY: &[u8] = b"case.status.updated";

/// A good event, told by the name of its status.
fn event(name: &str) -> Vec<u8> {
    let event = json!({
        "specversion": "1.0", "id": name, "source": "/poison", "type": "case.status.updated",
        "time": "2019-01-22T11:29:38.258Z",
        "data": {
            "case": {"id": "c-1"},
            "status": {
                "key": "final", "name": name,
                "createdAt": "2019-01-22T11:29:38.258Z", "updatedAt": "2019-01-22T11:29:38.258Z",
            },
        },
    });
    event.to_string().into_bytes()
}

/// Arrays nested as deep as a frame holds, nearly.
fn deep() -> Vec<u8> {
    let inner = (0..20_000).flat_map(|above| {
        let inside = u32::try_from((20_000 - above - 1) * 5 + 5).unwrap();
        [&inside.to_be_bytes()[..], b"A"].concat()
    });
    inner.chain(long(b"")).collect()
}

/// What a message has that the client library cannot read: a name for it, routing key, properties.
fn poisons() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let text = long(b"text");
    let nested = entry(b"inner", b'F', &long(&entry(LATIN, b'S', &text)));
    let in_array = [&b"F"[..], &long(&entry(LATIN, b'V', b""))].concat();
    let mut poisons = vec![
        ("routing key", [KEY, b".", LATIN].concat(), vec![0, 0]),
        (
            "header name",
            KEY.to_vec(),
            headers(&entry(LATIN, b'S', &text)),
        ),
        (
            "name in a table",
            KEY.to_vec(),
            headers(&entry(b"outer", b'F', &long(&nested))),
        ),
        (
            "name in an array",
            KEY.to_vec(),
            headers(&entry(b"outer", b'A', &long(&in_array))),
        ),
        (
            "tables nested deep",
            KEY.to_vec(),
            headers(&entry(b"outer", b'A', &deep())),
        ),
    ];
    let properties = [
        ("content type", 15),
        ("content encoding", 14),
        ("correlation id", 10),
        ("reply to", 9),
        ("message id", 7),
        ("type", 5),
        ("app id", 3),
        ("cluster id", 2),
    ];
    for (name, bit) in properties {
        poisons.push((name, KEY.to_vec(), property(bit, &short(LATIN))));
    }
    let owned = |(name, key, properties): (&str, _, _)| (name.to_owned(), key, properties);
    poisons.into_iter().map(owned).collect()
}

/// Properties that nearly fill a frame: with what a quorum queue adds when it delivers a message
/// again they do not fit into one.
fn nearly_a_frame() -> Vec<u8> {
    let header = |size| headers(&entry(b"padding", b'S', &long(&vec![b'x'; size])));
    let around = header(0).len() + 12 + 8;
    header(FRAME_MAX as usize - around)
}

/// Publishes messages with routing keys and properties of any bytes to the source exchange.
async fn publish_raw(vhost: &Vhost, messages: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>) {
    let uri = vhost.uri();
    let published = tokio::task::spawn_blocking(move || {
        let mut raw = RawPublisher::connect(&uri);
        for (key, properties, body) in messages {
            let published = raw.publish(SOURCE.as_bytes(), &key, &properties, &body);
            published.unwrap();
        }
    });
    published.await.unwrap();
}

fn setup(vhost: &Vhost, receiver: &Receiver) -> Setup {
    let url = receiver.url("/");
    let subscriber = format!("scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{url}\"");
    Setup::new(vhost).subscriber("all", &subscriber)
}

/// How often each event arrived.
fn arrived(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for arrival in receiver.arrivals() {
        let payload: Value = serde_json::from_slice(&arrival.body).unwrap();
        let name = payload["name"].as_str().unwrap().to_owned();
        *names.entry(name).or_default() += 1;
    }
    names
}

/// The bridge never lost its broker, and leaves nothing behind when it stops.
async fn stop_unharmed(bridge: RunningBridge) {
    let metrics = bridge.metrics().await;
    let reconnects = metrics.value("hookbridge_broker_reconnects_total", &[]);
    assert_eq!(reconnects, 0, "no connection was lost over it");
    let client = bridge.client.clone();
    bridge.stop().await;
    for queue in ["events", "dead", "lost", "rejected"] {
        let depth = client.depth(&format!("hookbridge.{queue}")).await;
        assert_eq!(depth, Some(0), "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_unreadable_names_is_delivered_and_so_are_those_around_it() {
    let (vhost, receiver) = (Vhost::new("poison"), Receiver::start().await);
    let bridge = setup(&vhost, &receiver).start().await;
    let mut expected = BTreeMap::new();
    let mut messages = Vec::new();
    for (name, key, properties) in poisons() {
        let after = format!("after {name}");
        messages.push((key, properties, event(&name)));
        messages.push((KEY.to_vec(), vec![0, 0], event(&after)));
        expected.extend([(name, 1), (after, 1)]);
    }
    publish_raw(&vhost, messages).await;
    receiver.wait_for(expected.len(), SOON).await;
    stop_unharmed(bridge).await;
    assert_eq!(arrived(&receiver), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_event_with_unreadable_names_is_kept_byte_for_byte() {
    let (vhost, receiver) = (Vhost::new("poison"), Receiver::start().await);
    let bridge = setup(&vhost, &receiver).start().await;
    let body = |name: &str| [name.as_bytes(), LATIN].concat();
    let messages = poisons()
        .into_iter()
        .map(|(name, key, properties)| (key, properties, body(&name)));
    publish_raw(&vhost, messages.collect()).await;
    let count = u32::try_from(poisons().len()).unwrap();
    bridge.client.wait_for_depth(REJECTED, count, SOON).await;
    let kept = bridge.rejected().await;
    for (name, key, _) in poisons() {
        let message = kept.iter().find(|message| message.body == body(&name));
        let message = message.unwrap_or_else(|| panic!("{name} is not there as it was"));
        let readable = if key == KEY {
            "case.status.updated"
        } else {
            "case.status.updated.M?ller"
        };
        assert_eq!(message.routing_key, readable);
        let reason = message.header("hookbridge-reason");
        assert_eq!(reason.as_deref(), Some("not_json"), "{name}");
    }
    stop_unharmed(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_outgrow_a_frame_when_they_are_delivered_again_are_left_out() {
    let (vhost, receiver) = (Vhost::new("poison"), Receiver::start().await);
    // Declares the topology, and is out of the way.
    setup(&vhost, &receiver).start().await.stop().await;
    let large = nearly_a_frame();
    let messages = vec![
        (KEY.to_vec(), large.clone(), event("large")),
        (b"bad".to_vec(), large, LATIN.to_vec()),
        (KEY.to_vec(), vec![0, 0], event("small")),
    ];
    publish_raw(&vhost, messages).await;
    let client = vhost.connect().await;
    client.give_back(EVENTS, 3).await;
    client.wait_for_depth(EVENTS, 3, SOON).await;
    let bridge = setup(&vhost, &receiver).start().await;
    receiver.wait_for(2, SOON).await;
    client.wait_for_depth(REJECTED, 1, SOON).await;
    let kept = bridge.rejected().await;
    assert_eq!(kept[0].body, LATIN);
    assert_eq!(
        kept[0].header("hookbridge-reason").as_deref(),
        Some("not_json")
    );
    stop_unharmed(bridge).await;
    let expected = ["large", "small"].map(|name| (name.to_owned(), 1));
    assert_eq!(arrived(&receiver), expected.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_unreadable_names_that_is_no_delivery_leaves_its_lane() {
    let (vhost, receiver) = (Vhost::new("poison"), Receiver::start().await);
    let bridge = setup(&vhost, &receiver).start().await;
    let uri = vhost.uri();
    let published = tokio::task::spawn_blocking(move || {
        let mut raw = RawPublisher::connect(&uri);
        let properties = headers(&entry(LATIN, b'V', b""));
        let key = [b"fast.00.500.", LATIN].concat();
        raw.publish(b"hookbridge.first", &key, &properties, LATIN)
    });
    published.await.unwrap().unwrap();
    bridge
        .client
        .wait_for_depth("hookbridge.dead", 1, SOON)
        .await;
    let dead = bridge.dead().await;
    assert_eq!(dead[0].body, LATIN);
    assert_eq!(
        dead[0].header("hookbridge-reason").as_deref(),
        Some("protocol")
    );
    stop_unharmed(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_of_a_message_is_not_touched() {
    let (vhost, receiver) = (Vhost::new("poison"), Receiver::start().await);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let bridge = setup(&vhost, &receiver).start().await;
    let entries = [
        entry(LATIN, b'S', &long(LATIN)),
        entry(b"traceparent", b'S', &long(trace.as_bytes())),
    ];
    let properties = headers(&entries.concat());
    publish_raw(&vhost, vec![(KEY.to_vec(), properties, event("traced"))]).await;
    let arrivals = receiver.wait_for(1, SOON).await;
    assert_eq!(arrivals[0].header("traceparent"), Some(trace));
    stop_unharmed(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_broker_that_nests_its_tables_deep_is_an_error_and_not_our_end() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = broker.local_addr().unwrap().port();
    let dialer = Dialer {
        uri: fixed_uri(format!("amqp://guest:guest@127.0.0.1:{port}").into()),
        tls: TlsFiles::default(),
        resolver: system_resolver(),
        name: "test".into(),
        large_frames: false,
    };
    let properties = long(&entry(b"deep", b'A', &deep()));
    let payload = [
        &[0, 10, 0, 10, 0, 9][..],
        &properties,
        &long(b"PLAIN"),
        &long(b"en_US"),
    ]
    .concat();
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let start = [&[1, 0, 0][..], &size, &payload, &[0xce]].concat();
    let serve = async {
        let (mut stream, _) = broker.accept().await.unwrap();
        stream.write_all(&start).await.unwrap();
        // Until the other side is gone.
        stream.read_to_end(&mut Vec::new()).await.ok();
    };
    let (connected, ()) = tokio::join!(dialer.connect(), serve);
    let error = connected.expect_err("no connection").to_string();
    assert!(error.contains("would end this process"), "{error}");
}
