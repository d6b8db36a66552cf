//! The support that all other tests stand on does what it says.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use hookbridge::cli::demo::node::{NodeOptions, PrivateNode};
use lapin::{BasicProperties, ExchangeKind, options::QueueDeclareOptions, types::FieldTable};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{
    broker::{Vhost, node, unique},
    client::{Client, Published},
    eventually::{SOON, eventually},
    faults::{self, Alarm},
    http::{Answer, Receiver},
    management,
    proxy::{Proxy, Slow, Way},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_routes_returns_counts_and_is_gone_afterwards() {
    let vhost = Vhost::new("harness");
    let name = vhost.name.clone();
    let client = vhost.connect().await;
    client.declare_quorum("work").await;
    client.declare_exchange("orders", ExchangeKind::Topic).await;
    client.bind("work", "orders", "case.#").await;

    let mut headers = FieldTable::default();
    headers.insert(
        "traceparent".into(),
        lapin::types::AMQPValue::LongString("00-1".into()),
    );
    let properties = BasicProperties::default().with_headers(headers);
    assert_eq!(
        client
            .publish_with("orders", "case.1", b"one", properties)
            .await,
        Published::Routed
    );
    assert_eq!(
        client.publish("orders", "claim.1", b"stray").await,
        Published::Returned
    );
    assert_eq!(client.publish("", "work", b"two").await, Published::Routed);
    client.wait_for_depth("work", 2, SOON).await;

    let messages = client.receive("work", 2, SOON).await;
    assert_eq!(messages[0].text(), "one");
    assert_eq!(messages[0].exchange, "orders");
    assert_eq!(messages[0].routing_key, "case.1");
    assert!(!messages[0].redelivered);
    assert_eq!(messages[0].header("traceparent").as_deref(), Some("00-1"));
    assert_eq!(messages[1].text(), "two");
    assert!(client.drain("work").await.is_empty());
    assert_eq!(client.depth("missing").await, None);

    let path = format!("queues/{name}/work");
    let queue = management::call("GET", &path, &Value::Null).json();
    assert_eq!(queue["type"], "quorum");
    vhost.delete_queue("work");
    assert_eq!(client.depth("work").await, None);
    drop(vhost);
    let answer = management::call("GET", &format!("vhosts/{name}"), &Value::Null);
    assert_eq!(answer.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_only_what_it_was_given() {
    let vhost = Vhost::new("harness");
    vhost.connect().await.declare_quorum("work").await;
    let reader = unique("reader");
    vhost.add_user(&reader, ["", "", ".*"]);
    let client = Client::connect(&vhost.uri_as(&reader)).await;
    assert!(client.get("work").await.is_none());
    let channel = client.connection.create_channel().await.unwrap();
    let refused = channel
        .queue_declare(
            "other".into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await;
    assert!(refused.unwrap_err().to_string().contains("ACCESS_REFUSED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_closes_the_connections_of_one_virtual_host_only() {
    let (one, other) = (Vhost::new("harness"), Vhost::new("harness"));
    let (closed, open) = (one.connect().await, other.connect().await);
    one.close_connections();
    let gone = async || (!closed.connection.status().connected()).then_some(());
    eventually("the connection is closed", SOON, gone).await;
    open.declare_quorum("still-here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_notes_what_comes_and_answers_in_turn() {
    let receiver = Receiver::start().await;
    receiver.answer_in_turn(
        "/turn",
        vec![Answer::Status(503), Answer::Body(200, b"fine".into())],
    );
    receiver.answer("/moved", Answer::Redirect(receiver.url("/turn")));
    let slow = Answer::After(Duration::from_millis(300), Box::new(Answer::Status(204)));
    receiver.answer("/slow", slow);
    receiver.answer_with("/echo", |arrival, before| {
        Answer::Status(if arrival.text() == "good" {
            200
        } else {
            400 + u16::try_from(before).unwrap()
        })
    });
    let http = client();
    let post = async |path: &str, body: &'static str| {
        let request = http
            .post(receiver.url(path))
            .header("x-team", "repairs")
            .body(body);
        request.send().await.unwrap()
    };
    assert_eq!(post("/turn?a=b", "one").await.status(), 503);
    assert_eq!(post("/turn", "two").await.text().await.unwrap(), "fine");
    assert_eq!(post("/turn", "three").await.status(), 200);
    assert_eq!(post("/moved", "").await.status(), 302);
    assert_eq!(post("/echo", "good").await.status(), 200);
    assert_eq!(post("/echo", "bad").await.status(), 401);
    assert_eq!(post("/anything", "").await.status(), 200);
    let before = Instant::now();
    assert_eq!(post("/slow", "").await.status(), 204);
    assert!(before.elapsed() >= Duration::from_millis(300));

    let arrivals = receiver.wait_for(8, SOON).await;
    assert_eq!(arrivals[0].method, "POST");
    assert_eq!(arrivals[0].query.as_deref(), Some("a=b"));
    assert_eq!(arrivals[0].header("x-team"), Some("repairs"));
    assert_eq!(arrivals[0].text(), "one");
    assert!(arrivals[0].at < arrivals[1].at);
    assert_eq!(receiver.arrivals_at("/turn").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_misbehaves_in_every_way() {
    let receiver = Receiver::start().await;
    receiver.answer("/hang", Answer::Hang);
    receiver.answer("/drip", Answer::HangInBody(200));
    receiver.answer("/cut", Answer::CutOff(200));
    receiver.answer("/gone", Answer::Disconnect);
    let http = client();
    let get = |path| {
        http.get(receiver.url(path))
            .timeout(Duration::from_millis(500))
            .send()
    };

    assert!(get("/hang").await.unwrap_err().is_timeout());
    let drip = get("/drip").await.unwrap();
    assert_eq!(drip.status(), 200);
    assert!(drip.text().await.unwrap_err().is_timeout());
    let cut = get("/cut").await.unwrap();
    assert_eq!(cut.status(), 200);
    let error = cut.text().await.unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
    let error = get("/gone").await.unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
    receiver.wait_for(4, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxied_line_can_be_cut_frozen_and_taken_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port());
    let pair = async || pair(&proxy, &listener).await;
    let mut byte = [0];

    let (mut near, mut far) = pair().await;
    near.write_all(b"a").await.unwrap();
    far.read_exact(&mut byte).await.unwrap();
    assert_eq!(byte, *b"a");

    proxy.freeze();
    near.write_all(b"b").await.unwrap();
    let silence = timeout(Duration::from_millis(200), far.read_exact(&mut byte)).await;
    assert!(silence.is_err(), "nothing passes a frozen line");
    proxy.forward().await;
    timeout(SOON, far.read_exact(&mut byte))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(byte, *b"b");

    proxy.cut();
    assert!(matches!(
        timeout(SOON, near.read(&mut byte)).await.unwrap(),
        Ok(0) | Err(_)
    ));
    assert!(matches!(
        timeout(SOON, far.read(&mut byte)).await.unwrap(),
        Ok(0) | Err(_)
    ));

    let (mut near, _far) = pair().await;
    proxy.refuse().await;
    assert!(matches!(
        timeout(SOON, near.read(&mut byte)).await.unwrap(),
        Ok(0) | Err(_)
    ));
    assert!(
        TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .is_err()
    );
    proxy.forward().await;
    let (mut near, mut far) = pair().await;
    far.write_all(b"c").await.unwrap();
    near.read_exact(&mut byte).await.unwrap();
    assert_eq!(byte, *b"c");
    assert!(proxy.accepted() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxied_line_can_be_silenced_one_way_slowed_and_halved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port());
    let mut byte = [0];

    let (mut near, mut far) = pair(&proxy, &listener).await;
    proxy.silence(Way::Back);
    near.write_all(b"d").await.unwrap();
    timeout(SOON, far.read_exact(&mut byte))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(byte, *b"d", "the other direction goes on");
    far.write_all(b"e").await.unwrap();
    let silence = timeout(Duration::from_millis(200), near.read_exact(&mut byte)).await;
    assert!(silence.is_err(), "nothing passes against the silence");
    proxy.forward().await;
    timeout(SOON, near.read_exact(&mut byte))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(byte, *b"e");

    let [latency, bandwidth] = [Duration::from_millis(300), Duration::from_millis(500)];
    proxy.slow(Slow {
        latency: [latency, Duration::ZERO],
        bandwidth: Some(20_000),
    });
    let began = Instant::now();
    near.write_all(&[0; 10_000]).await.unwrap();
    let mut all = [1; 10_000];
    timeout(SOON, far.read_exact(&mut all))
        .await
        .unwrap()
        .unwrap();
    let took = began.elapsed();
    assert!(took >= latency + bandwidth, "{took:?}");
    proxy.forward().await;

    proxy.halve();
    assert!(matches!(
        timeout(SOON, far.read(&mut byte)).await.unwrap(),
        Ok(0) | Err(_)
    ));
    near.write_all(b"f").await.unwrap();
    let silence = timeout(Duration::from_millis(200), near.read(&mut byte)).await;
    assert!(silence.is_err(), "the near end learns nothing");
    let (_near, mut far) = pair(&proxy, &listener).await;
    let silence = timeout(Duration::from_millis(200), far.read(&mut byte)).await;
    assert!(silence.is_err(), "a new line is whole");
}

/// Both ends of a new line. Not every connection to the proxy gets through: one of its own, or one
/// that is cut while it is being made, does not. A line is known by what comes out at its other end.
async fn pair(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    static NUMBER: AtomicU8 = AtomicU8::new(0);
    eventually("a line through the proxy", SOON, async || {
        let token = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut near = TcpStream::connect(("127.0.0.1", proxy.port())).await.ok()?;
        near.write_all(&[token]).await.ok()?;
        loop {
            let accepted = timeout(Duration::from_secs(1), listener.accept()).await;
            let (mut far, _) = accepted.ok()?.ok()?;
            let mut come = [0];
            let read = timeout(Duration::from_secs(1), far.read_exact(&mut come)).await;
            if matches!(read, Ok(Ok(_))) && come == [token] {
                return Some((near, far));
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn amqp_passes_a_proxy() {
    let vhost = Vhost::new("harness");
    let proxy = Proxy::start(node().amqp_port());
    let client = Client::connect(&vhost.with_port(proxy.port())).await;
    client.declare_quorum("work").await;
    assert_eq!(client.publish("", "work", b"x").await, Published::Routed);
    proxy.cut();
    let gone = async || (!client.connection.status().connected()).then_some(());
    eventually("the connection is lost", SOON, gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_node_is_suspended_emptied_and_alarmed_and_recovers() {
    let node = PrivateNode::start(&NodeOptions::default()).unwrap();
    let client = Client::connect(&node.amqp_uri("/")).await;
    client.declare_quorum("work").await;
    for alarm in [Alarm::Memory, Alarm::Disk] {
        alarm.raise(&node);
        let publish = client.publish("", "work", b"late");
        let mut publish = std::pin::pin!(publish);
        let blocked = timeout(Duration::from_secs(1), publish.as_mut()).await;
        assert!(blocked.is_err(), "{alarm:?} holds a publisher up");
        alarm.clear(&node);
        assert_eq!(publish.await, Published::Routed, "{alarm:?} is over");
    }

    faults::pause(&node);
    let asked = timeout(Duration::from_secs(1), client.depth("work")).await;
    assert!(asked.is_err(), "a suspended node says nothing");
    faults::resume(&node);
    client.wait_for_depth("work", 2, SOON).await;

    let pid = node.pid().unwrap();
    faults::stop_app(&node);
    let refused = TcpStream::connect(("127.0.0.1", node.amqp_port())).await;
    assert!(refused.is_err());
    faults::start_app(&node);
    assert_eq!(node.pid().unwrap(), pid, "the process stayed");
    let client = Client::connect(&node.amqp_uri("/")).await;
    client.wait_for_depth("work", 2, SOON).await;
}

#[tokio::test]
#[should_panic(expected = "not within 50ms: a pig that flies")]
async fn waiting_ends_even_when_the_question_hangs() {
    let never = async || std::future::pending::<Option<()>>().await;
    eventually("a pig that flies", Duration::from_millis(50), never).await;
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    builder
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()
        .unwrap()
}
