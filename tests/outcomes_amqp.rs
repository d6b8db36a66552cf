//! What each answer of a broker makes of a delivery to a queue or an exchange.

use std::time::Duration;

use hookbridge::cli::demo::node::{NodeOptions, PrivateNode, free_listener};
use lapin::{
    ExchangeKind,
    options::ExchangeDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use standardwebhooks::Webhook;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{
    broker::{Vhost, node, unique},
    certificates::Authority,
    client::{Client, Message},
    eventually::SOON,
    faults::Alarm,
    line::{Line, Setup, WEBHOOK, assert_dead_letter, everything, of, subscriber, webhook_id},
    management,
};

const SECRET: &str = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldw==";
const CASE: &str = "a7afaf9-7c6e-4d0e-b756-16b4afa1382f";

#[tokio::test(flavor = "multi_thread")]
async fn the_home_broker_delivers_to_a_queue_and_through_an_exchange() {
    let vhost = Vhost::new("amqp");
    let client = vhost.connect().await;
    places(&client).await;
    let secret = format!("signing_secret = {SECRET:?}");
    let subscribers = [
        subscriber("queued", &secret, "[amqp]\nqueue = \"theirs\""),
        subscriber("keyed", &secret, "[amqp]\nexchange = \"open\""),
    ];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    line.publish("evt").await;

    let queued = client.receive("theirs", 1, SOON).await;
    assert_webhook(&queued[0], "queued", "1");
    let keyed = client.receive("behind-open", 1, SOON).await;
    assert_webhook(&keyed[0], "keyed", "1");
    assert_eq!(keyed[0].exchange, "open");
    assert_eq!(keyed[0].routing_key, format!("StatusUpdate.{CASE}"));
    let series = r#"hookbridge_deliveries_total{outcome="delivered",transport="amqp",webhook="StatusUpdate"}"#;
    line.wait_for_metric(series, 2.0).await;
    line.stop().await;
    assert!(client.get("theirs").await.is_none(), "once");
    assert!(client.get("behind-open").await.is_none(), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_on_the_home_broker_is_tried_twice_and_then_lies_dead_with_its_reason() {
    let vhost = Vhost::new("amqp");
    places(&vhost.connect().await).await;
    let long = "{case}".repeat(8);
    let table = [
        ("no-queue", queue("nowhere"), "returned", "NO_ROUTE"),
        ("full", queue("full"), "nacked", "refused the message"),
        (
            "no-exchange",
            exchange("nowhere"),
            "channel_closed",
            "nowhere",
        ),
        ("unbound", exchange("unbound"), "returned", "NO_ROUTE"),
        (
            "internal",
            exchange("internal"),
            "access_refused",
            "internal",
        ),
        (
            "long-key",
            format!("{}\nrouting_key = {long:?}", exchange("open")),
            "protocol",
            "255",
        ),
    ];
    fails_twice(&vhost, &Setup::default(), &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_their_own_is_delivered_to_by_queue_and_through_an_exchange() {
    let (vhost, theirs) = (Vhost::new("amqp"), Vhost::new("theirs"));
    let client = theirs.connect().await;
    places(&client).await;
    let secret = format!("signing_secret = {SECRET:?}");
    let key = "routing_key = \"{subscriber}/{type}/{party}\"";
    let subscribers = [
        subscriber("queued", &secret, &at(&theirs.uri(), &queue("theirs"))),
        subscriber(
            "keyed",
            &secret,
            &at(&theirs.uri(), &format!("{}\n{key}", exchange("open"))),
        ),
        everything(
            "made",
            &at(&theirs.uri(), "queue = \"made\"\ndeclare = true"),
        ),
    ];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    line.publish("evt").await;

    let queued = client.receive("theirs", 1, SOON).await;
    assert_webhook(&queued[0], "queued", "1");
    let keyed = client.receive("behind-open", 1, SOON).await;
    assert_webhook(&keyed[0], "keyed", "1");
    assert_eq!(keyed[0].routing_key, "keyed/StatusUpdate/");
    line.wait_for_metric(
        r#"hookbridge_attempts_total{attempt="1",result="delivered",transport="amqp"}"#,
        3.0,
    )
    .await;
    assert_quorum(&theirs, "made");
    assert_eq!(client.receive("made", 1, SOON).await.len(), 1);
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_on_their_own_broker_is_tried_twice_and_then_lies_dead_with_its_reason() {
    let (vhost, theirs) = (Vhost::new("amqp"), Vhost::new("theirs"));
    places(&theirs.connect().await).await;
    let reader = unique("reader");
    theirs.add_user(&reader, ["", "", ".*"]);
    let uri = theirs.uri();
    let port = node().amqp_port().to_string();
    let closed = free_listener().unwrap().local_addr().unwrap().port();
    // Connections are taken by the kernel, and then nobody says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let wrong_password = uri.replacen(":theirs", ":not-theirs", 1);
    assert_ne!(wrong_password, uri);
    let to = |uri: &str| at(uri, &queue("theirs"));
    let table = [
        ("no-queue", at(&uri, &queue("nowhere")), "returned", ""),
        ("full", at(&uri, &queue("full")), "nacked", ""),
        (
            "no-exchange",
            at(&uri, &exchange("nowhere")),
            "channel_closed",
            "nowhere",
        ),
        ("unbound", at(&uri, &exchange("unbound")), "returned", ""),
        (
            "not-allowed",
            at(&theirs.uri_as(&reader), &exchange("open")),
            "access_refused",
            "refused",
        ),
        ("password", to(&wrong_password), "access_refused", "refused"),
        (
            "no-vhost",
            to(&format!("{uri}-not")),
            "access_refused",
            "not",
        ),
        (
            "refused",
            to(&theirs.with_port(closed)),
            "connect",
            "refused",
        ),
        (
            "nameless",
            to("amqp://u:p@no-such-host.invalid/v"),
            "dns",
            "",
        ),
        ("silent", to(&theirs.with_port(silent_port)), "timeout", ""),
        (
            "plain",
            to(&format!("amqps://u:p@127.0.0.1:{port}/v")),
            "tls",
            "TLS",
        ),
    ];
    fails_twice(&vhost, &Setup::default(), &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_at_a_forbidden_address_is_dead_at_once_and_never_connected_to() {
    let vhost = Vhost::new("amqp");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = [
        ("literal", "127.0.0.1"),
        ("name", "localhost"),
        ("mapped", "[::ffff:127.0.0.1]"),
    ];
    let subscribers = hosts
        .map(|(id, host)| everything(id, &at(&format!("amqp://u:p@{host}:{port}/v"), &queue("q"))));
    let setup = Setup {
        local_targets: false,
        // What comes before this is over was not retried.
        retry_delay: SOON * 10,
        ..Setup::default()
    };
    let line = Line::start(&vhost.uri(), &setup, &subscribers).await;
    line.publish("evt").await;
    let dead = line.dead_letters(hosts.len()).await;
    for (id, _) in hosts {
        let message = of(&dead, id);
        let detail = message.header("hookbridge-detail").unwrap();
        let reason = message.header("hookbridge-reason").unwrap();
        assert_eq!(reason, "target_forbidden", "{id}: {detail}");
        assert!(detail.contains("loopback"), "{id}: {detail}");
        assert_dead_letter(message, "evt", id, 1);
    }
    let nobody = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(nobody.is_err(), "somebody connected");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_to_be_declared_is_made_and_made_again_after_somebody_deletes_it() {
    let (vhost, theirs) = (Vhost::new("amqp"), Vhost::new("theirs"));
    let made = "queue = \"made\"\ndeclare = true";
    let subscribers = [
        everything("home", &format!("[amqp]\n{made}")),
        everything("outside", &at(&theirs.uri(), made)),
    ];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    let places = [
        (&vhost, vhost.connect().await, "home"),
        (&theirs, theirs.connect().await, "outside"),
    ];
    let delivered = r#"hookbridge_deliveries_total{outcome="delivered",transport="amqp",webhook="StatusUpdate"}"#;
    for (event, so_far) in [("one", 2.0), ("two", 4.0), ("three", 6.0)] {
        line.publish(event).await;
        line.wait_for_metric(delivered, so_far).await;
        for (vhost, client, id) in &places {
            let message = &client.receive("made", 1, SOON).await[0];
            let expected = webhook_id("/order-hub", event, id);
            assert_eq!(message.header("webhook-id"), Some(expected));
            assert_quorum(vhost, "made");
            vhost.delete_queue("made");
        }
    }
    assert_eq!(line.client.depth("hookbridge.dead").await, Some(0));
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_an_authority_that_is_trusted_and_an_alarm_of_theirs_is_blocked() {
    let folder = TempDir::new().unwrap();
    let at_path = |name: &str| folder.path().join(name).display().to_string();
    certificates(&folder);
    let port = free_listener().unwrap().local_addr().unwrap().port();
    let options = NodeOptions {
        config: vec![
            format!("listeners.ssl.1 = 127.0.0.1:{port}"),
            format!("ssl_options.cacertfile = {}", at_path("ca.pem")),
            format!("ssl_options.certfile = {}", at_path("server.pem")),
            format!("ssl_options.keyfile = {}", at_path("server.key")),
            "ssl_options.verify = verify_none".to_owned(),
            "ssl_options.fail_if_no_peer_cert = false".to_owned(),
        ],
        ..NodeOptions::default()
    };
    let start = tokio::task::spawn_blocking(move || PrivateNode::start(&options).unwrap());
    let private = start.await.unwrap();
    let client = Client::connect(&private.amqp_uri("/")).await;
    places(&client).await;
    let uri = |host: &str| format!("amqps://guest:guest@{host}:{port}/%2f");

    let vhost = Vhost::new("amqp");
    let table = [(
        "untrusted",
        at(&uri("localhost"), &queue("theirs")),
        "tls",
        "TLS",
    )];
    fails_twice(&vhost, &Setup::default(), &table).await;

    let setup = Setup {
        targets: format!("ca_file = {:?}", at_path("ca.pem")),
        timeout: Duration::from_millis(1500),
        ..Setup::default()
    };
    let vhost = Vhost::new("amqp");
    let subscribers = [
        everything("trusted", &at(&uri("localhost"), &queue("theirs"))),
        everything("misnamed", &at(&uri("127.0.0.1"), &queue("theirs"))),
    ];
    let line = Line::start(&vhost.uri(), &setup, &subscribers).await;
    line.publish("evt").await;
    let message = &client.receive("theirs", 1, SOON).await[0];
    let expected = webhook_id("/order-hub", "evt", "trusted");
    assert_eq!(message.header("webhook-id"), Some(expected));
    let dead = line.dead_letters(1).await;
    assert_dead_letter(&dead[0], "evt", "misnamed", 2);
    assert_eq!(
        dead[0].header("hookbridge-reason").as_deref(),
        Some("tls"),
        "another name than the certificate's"
    );

    let only = [subscribers[0].clone()];
    line.reload(&only, 1).await;
    Alarm::Memory.raise(&private);
    line.publish("alarm").await;
    let dead = line.dead_letters(1).await;
    assert_dead_letter(&dead[0], "alarm", "trusted", 2);
    for name in ["hookbridge-reason", "hookbridge-first-reason"] {
        let detail = dead[0].header("hookbridge-detail");
        assert_eq!(
            dead[0].header(name).as_deref(),
            Some("blocked"),
            "{detail:?}"
        );
    }
    Alarm::Memory.clear(&private);
    line.publish("after").await;
    let expected = webhook_id("/order-hub", "after", "trusted");
    loop {
        // What was in flight during the alarm may still come, before.
        let message = &client.receive("theirs", 1, SOON).await[0];
        let id = message.header("webhook-id").unwrap();
        if id == expected {
            break;
        }
        assert_eq!(id, webhook_id("/order-hub", "alarm", "trusted"));
    }
    line.stop().await;
}

fn queue(name: &str) -> String {
    format!("queue = {name:?}")
}

fn exchange(name: &str) -> String {
    format!("exchange = {name:?}")
}

/// An `[amqp]` table for a broker of their own.
fn at(uri: &str, destination: &str) -> String {
    format!("[amqp]\nuri = {uri:?}\n{destination}")
}

/// Queues and exchanges of every behaviour.
async fn places(client: &Client) {
    client.declare_quorum("theirs").await;
    let limits = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    client.declare("full", limits).await;
    client.publish("", "full", b"the only one").await;
    client.declare_exchange("open", ExchangeKind::Topic).await;
    client.declare_quorum("behind-open").await;
    client.bind("behind-open", "open", "#").await;
    client
        .declare_exchange("unbound", ExchangeKind::Topic)
        .await;
    let channel = client.connection.create_channel().await.unwrap();
    let options = ExchangeDeclareOptions {
        durable: true,
        internal: true,
        ..ExchangeDeclareOptions::default()
    };
    let kind = ExchangeKind::Topic;
    channel
        .exchange_declare("internal".into(), kind, options, FieldTable::default())
        .await
        .unwrap();
}

/// One subscriber for each row: id, target, and the reason and a part of the detail of both its
/// failures.
async fn fails_twice(vhost: &Vhost, setup: &Setup, table: &[(&str, String, &str, &str)]) {
    let subscribers: Vec<_> = table
        .iter()
        .map(|(id, target, ..)| {
            let target = if target.starts_with('[') {
                target.clone()
            } else {
                format!("[amqp]\n{target}")
            };
            subscriber(id, "timeout = \"1500ms\"", &target)
        })
        .collect();
    let line = Line::start(&vhost.uri(), setup, &subscribers).await;
    line.publish("evt").await;
    let dead = line.dead_letters(table.len()).await;
    let mut wrong = Vec::new();
    for (id, _, reason, detail) in table {
        let message = of(&dead, id);
        assert_dead_letter(message, "evt", id, 2);
        for prefix in ["hookbridge-first", "hookbridge"] {
            let header = |name: &str| message.header(&format!("{prefix}-{name}")).unwrap();
            let (is, words) = (header("reason"), header("detail"));
            if is != *reason || !words.contains(detail) {
                wrong.push(format!("{id}: {prefix} is {is} ({words}), not {reason}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    line.stop().await;
}

#[track_caller]
fn assert_webhook(message: &Message, subscriber: &str, attempt: &str) {
    let header = |name: &str| message.header(name);
    let id = webhook_id("/order-hub", "evt", subscriber);
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    let properties = &message.properties;
    assert_eq!(text(properties.message_id()), Some(id.clone()));
    assert_eq!(
        text(properties.content_type()).as_deref(),
        Some("application/json")
    );
    assert_eq!(text(properties.kind()).as_deref(), Some("StatusUpdate"));
    assert_eq!(text(properties.app_id()).as_deref(), Some("hookbridge"));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(header("webhook-id"), Some(id));
    assert_eq!(header("webhook-attempt").as_deref(), Some(attempt));
    assert_eq!(header("webhook-type").as_deref(), Some("StatusUpdate"));
    let headers = properties.headers().as_ref().unwrap().inner();
    let own = headers.keys().map(ToString::to_string);
    let own: Vec<_> = own.filter(|name| name.starts_with("hookbridge-")).collect();
    assert_eq!(own, Vec::<String>::new(), "nothing of the lanes leaks");
    let verified = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .into_iter()
        .map(|name| {
            let value = header(name).unwrap();
            (
                name.parse::<http::HeaderName>().unwrap(),
                value.parse().unwrap(),
            )
        })
        .collect::<http::HeaderMap>();
    Webhook::new(SECRET)
        .unwrap()
        .verify(&message.body, &verified)
        .unwrap();
    let payload: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(payload, serde_json::from_str::<Value>(WEBHOOK).unwrap());
}

#[track_caller]
fn assert_quorum(vhost: &Vhost, queue: &str) {
    let path = format!("queues/{}/{queue}", vhost.name);
    let found = management::call("GET", &path, &Value::Null).json();
    assert_eq!(found["type"], "quorum");
    assert_eq!(found["durable"], true);
}

/// An authority, and a server's certificate for `localhost` by it.
fn certificates(folder: &TempDir) {
    let authority = Authority::new();
    authority.server("localhost").write(folder.path(), "server");
    std::fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
}
