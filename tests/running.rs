//! The bridge runs: it starts before its broker, survives what happens to it, and stops cleanly.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};

use crate::support::{
    broker::{Vhost, node},
    client::{Client, Published},
    eventually::{SOON, eventually},
    http::{Answer, Receiver},
    program::{EVENT_KEY, Program, START, Setup, event_body},
    proxy::Proxy,
};

const CONNECTED: &str = "connected to the home broker";
const LOST: &str = "lost the home broker";
const ABSENT: &str = "cannot use the home broker";

/// Publishes the events `<label>-0` … and waits for their confirms, many at a time.
async fn publish_many(client: &Client, label: &str, count: usize) {
    let channel = client.connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let numbers: Vec<usize> = (0..count).collect();
    for numbers in numbers.chunks(200) {
        let publish = async |number: &usize| {
            let body = event_body(&format!("{label}-{number}"));
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default().with_delivery_mode(2);
            let sent = channel.basic_publish(
                "domain.events".into(),
                EVENT_KEY.into(),
                options,
                &body,
                properties,
            );
            assert!(sent.await.unwrap().await.unwrap().is_ack());
        };
        join_all(numbers.iter().map(publish)).await;
    }
}

/// Publishes one event and waits until it has come to the path `/`.
async fn assert_delivers(program: &Program, client: &Client, receiver: &Receiver, id: &str) {
    let published = client
        .publish("domain.events", EVENT_KEY, &event_body(id))
        .await;
    assert_eq!(published, Published::Routed);
    let came = async || {
        let mut all = receiver.arrivals().into_iter();
        all.any(|arrival| arrival.text().contains(id)).then_some(())
    };
    program
        .watch(&format!("{id} is delivered"), SOON, came)
        .await;
}

/// How many consumers a queue has; `None` if there is no such queue.
async fn consumers(client: &Client, queue: &str) -> Option<u32> {
    // A channel of its own, since a missing queue closes it.
    let channel = client.connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    Some(declared.await.ok()?.consumer_count())
}

/// How often each case came.
fn cases(receiver: &Receiver) -> HashMap<String, usize> {
    let mut cases = HashMap::new();
    for arrival in receiver.arrivals() {
        let webhook: serde_json::Value = serde_json::from_slice(&arrival.body).unwrap();
        let case = webhook["guid"].as_str().unwrap().to_owned();
        *cases.entry(case).or_default() += 1;
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_broker_waits_for_it_and_works_once_it_is_there() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let proxy = Proxy::start(node().amqp_port());
    proxy.refuse().await;
    let setup = Setup::new(&vhost.with_port(proxy.port()));
    setup.http_subscriber("all", &receiver.url("/"));
    let program = setup.run();

    program.wait_said(ABSENT, SOON).await;
    program.wait_unready("home broker: ", SOON).await;
    assert_eq!(program.get("/livez").await.0, 200);
    let (_, reasons) = program.get("/readyz").await;
    assert!(reasons.contains("refused"), "{reasons}");
    assert_eq!(
        reasons.lines().count(),
        1,
        "without a broker there are no consumers, which goes without saying: {reasons}"
    );
    program
        .wait_metric("hookbridge_broker_connected", 0.0)
        .await;
    let address = program.admin().await;
    let health = setup.call(&["healthcheck", "--address", &address]).await;
    assert_eq!(health.code, Some(1));
    assert!(health.err.contains("not ready: "), "{}", health.err);
    assert!(health.err.contains("refused"), "{}", health.err);
    assert_eq!(program.said(ABSENT), 1, "{}", program.log_text());

    proxy.forward().await;
    let back = Instant::now();
    program.wait_said(CONNECTED, START).await;
    program.wait_ready().await;
    let took = back.elapsed();
    // Three seconds of backoff at most, and half a hundred queues to declare on a busy machine.
    assert!(took < Duration::from_secs(20), "{took:?}");
    let health = setup.call(&["healthcheck", "--address", &address]).await;
    assert_eq!(health.code, Some(0), "{}", health.err);
    assert_eq!(health.err, "");
    assert_delivers(&program, &vhost.connect().await, &receiver, "first").await;
    program
        .wait_metric("hookbridge_broker_connected", 1.0)
        .await;
    program
        .wait_metric("hookbridge_broker_reconnects_total", 0.0)
        .await;
    let log = program.log_text();
    assert_eq!(program.said("WARN"), 1, "{log}");
    assert_eq!(program.said(CONNECTED), 1, "{log}");
    program.stop().await;
    let health = setup.call(&["healthcheck", "--address", &address]).await;
    assert_eq!(health.code, Some(1));
    assert!(
        health.err.contains("is the bridge running?"),
        "{}",
        health.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_comes_back_and_is_said_once_each_way() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let proxy = Proxy::start(node().amqp_port());
    let setup = Setup::new(&vhost.with_port(proxy.port()));
    setup.http_subscriber("all", &receiver.url("/"));
    let program = setup.run_ready().await;
    let client = vhost.connect().await;
    assert_delivers(&program, &client, &receiver, "before").await;

    // Cut, with nobody to dial for a while.
    proxy.refuse().await;
    program.wait_said(LOST, SOON).await;
    program.wait_unready("home broker: ", SOON).await;
    program
        .wait_metric("hookbridge_broker_connected", 0.0)
        .await;
    let published = client
        .publish("domain.events", EVENT_KEY, &event_body("meanwhile"))
        .await;
    assert_eq!(published, Published::Routed);
    proxy.forward().await;
    program
        .wait_metric("hookbridge_broker_reconnects_total", 1.0)
        .await;
    program.wait_ready().await;
    assert_delivers(&program, &client, &receiver, "after the cut").await;
    let log = program.log_text();
    assert_eq!(program.said(LOST), 1, "{log}");
    assert_eq!(program.said(ABSENT), 0, "{log}");
    assert_eq!(program.said(CONNECTED), 2, "{log}");

    // Closed by the broker, on every connection at once; and again, if its management does not
    // answer in time and is asked again.
    drop(client);
    vhost.close_connections();
    let times = async || {
        let now = program.metrics().await["hookbridge_broker_reconnects_total"];
        (2..20_u8).find(|times| (f64::from(*times) - now).abs() < 1e-9)
    };
    eventually("the connections came back", SOON, times).await;
    program.wait_ready().await;
    let client = vhost.connect().await;
    assert_delivers(&program, &client, &receiver, "after the close").await;
    let times = usize::from(eventually("it is counted", SOON, times).await);
    let log = program.log_text();
    assert_eq!(program.said(LOST), times, "{log}");
    assert_eq!(program.said(CONNECTED), times + 1, "{log}");
    assert_eq!(program.said(ABSENT), 0, "{log}");
    assert_eq!(program.said("WARN"), times, "{log}");
    assert!(cases(&receiver).contains_key("meanwhile"));
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_line_is_noticed_by_its_heartbeats() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let proxy = Proxy::start(node().amqp_port());
    let setup = Setup::new(&vhost.with_port(proxy.port()));
    setup.http_subscriber("all", &receiver.url("/"));
    let program = setup.run_ready().await;
    let client = vhost.connect().await;
    assert_delivers(&program, &client, &receiver, "before").await;

    proxy.freeze();
    let frozen = Instant::now();
    program.wait_said(LOST, Duration::from_secs(40)).await;
    let took = frozen.elapsed();
    assert!(took < Duration::from_secs(35), "{took:?}");
    program.wait_unready("home broker: ", SOON).await;
    assert_eq!(program.get("/livez").await.0, 200);
    proxy.forward().await;
    program.wait_ready().await;
    assert_delivers(&program, &client, &receiver, "after").await;
    assert_eq!(program.said(LOST), 1, "{}", program.log_text());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_anew_and_consumed_from() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    let program = setup.run_ready().await;
    let client = vhost.connect().await;
    assert_delivers(&program, &client, &receiver, "before").await;

    let lanes: Vec<_> = (0..8)
        .map(|lane| format!("hookbridge.first.fast.0{lane}"))
        .collect();
    for deleted in [lanes, vec!["hookbridge.events".to_owned()]] {
        for queue in &deleted {
            vhost.delete_queue(queue);
        }
        for queue in &deleted {
            let consumed = async || (consumers(&client, queue).await == Some(1)).then_some(());
            let what = format!("{queue} is back, with its consumer");
            program.watch(&what, SOON, consumed).await;
            // That it cannot be consumed, that it was declared again, that it is consumed again; fewer
            // if another's repair came first.
            let told = program.said(queue);
            assert!(told <= 3, "{}", program.log_text());
        }
    }
    // Brokers may even close the connection over it, with an internal error of their own.
    assert!(program.said("consuming again") > 0);
    program.wait_ready().await;
    assert_delivers(&program, &client, &receiver, "after").await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_stays_away_is_told_by_readyz_until_it_is_back() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    setup.call(&["topology", "--apply"]).await;
    setup.set("broker.declare", false);
    let program = setup.run_ready().await;
    vhost.delete_queue("hookbridge.events");
    program
        .wait_unready("consumer of hookbridge.events: ", SOON)
        .await;
    assert_eq!(program.get("/readyz").await.1.lines().count(), 1);
    program.wait_said("cannot consume", SOON).await;
    let applied = setup.call(&["topology", "--apply"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    program.wait_ready().await;
    assert_delivers(&program, &vhost.connect().await, &receiver, "after").await;
    assert_eq!(program.said("cannot consume"), 1, "{}", program.log_text());
    program.stop().await;
}

/// Stops a bridge in the middle of its work, so many times, and lets a last one do the rest.
async fn stop_under_load(signal: &str, stops: usize, events: usize) {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let slow = Answer::After(Duration::from_millis(20), Box::new(Answer::Status(200)));
    receiver.answer("/", slow);
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    let applied = setup.call(&["topology", "--apply"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    let client = vhost.connect().await;
    publish_many(&client, "load", events).await;
    for stop in 1..=stops {
        let mut program = setup.run();
        receiver.wait_for(events * stop / (stops + 2), START).await;
        program.signal(signal);
        let asked = Instant::now();
        let code = program.wait_exit(START).await;
        let log = program.log_text();
        assert_eq!(code, Some(0), "{log}");
        // Nothing takes longer than the 20 ms of the receiver.
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}\n{log}");
        let stopped = program.wait_said("stopped", SOON).await;
        let after = stopped.at.elapsed();
        assert!(after < Duration::from_secs(2), "{after:?} after 'stopped'");
        assert_eq!(program.said("shutdown_timeout"), 0, "{log}");
        assert_eq!(program.said(LOST), 0, "the broker was lost\n{log}");
        let then = receiver.arrivals().len();
        assert!(then < events, "the stop came too late to show anything");
    }
    let program = setup.run_ready().await;
    let whole = async || (cases(&receiver).len() == events).then_some(());
    program
        .watch("every event is delivered", START, whole)
        .await;
    program.stop().await;
    let twice: Vec<_> = cases(&receiver)
        .into_iter()
        .filter(|(_, times)| *times > 1)
        .collect();
    assert_eq!(twice, [], "delivered more than once");
    for queue in ["events", "retry.300", "dead", "rejected", "lost"] {
        let queue = format!("hookbridge.{queue}");
        assert_eq!(client.depth(&queue).await, Some(0), "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_and_repeats_nothing() {
    stop_under_load("TERM", 4, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_under_load_loses_and_repeats_nothing() {
    stop_under_load("INT", 1, 600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_attempt_under_way_and_a_second_signal_does_not() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let late = Answer::After(Duration::from_secs(3), Box::new(Answer::Status(200)));
    receiver.answer("/", late);
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    let mut program = setup.run_ready().await;
    let client = vhost.connect().await;
    publish_many(&client, "one", 1).await;
    receiver.wait_for(1, SOON).await;
    program.signal("TERM");
    program.wait_said("stopping", SOON).await;
    program.wait_unready("bridge: stopping", SOON).await;
    program.signal("TERM");
    let asked = Instant::now();
    assert_eq!(program.wait_exit(SOON).await, Some(1));
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(program.said("stopped"), 0);

    // What was under way is attempted again, and this stop waits for it.
    let mut program = setup.run_ready().await;
    let arrivals = receiver.wait_for(2, SOON).await;
    program.signal("INT");
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    assert!(arrivals[1].at.elapsed() >= Duration::from_secs(3));
    let program = setup.run_ready().await;
    program.stop().await;
    assert_eq!(receiver.arrivals().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_receiver_holds_a_stop_up_no_longer_than_its_timeout() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    receiver.answer("/", Answer::Hang);
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    setup.set("delivery.timeout", "2s");
    setup.set("delivery.shutdown_timeout", "4s");
    setup.set("delivery.retry_delay", "1h");
    let mut program = setup.run_ready().await;
    let client = vhost.connect().await;
    publish_many(&client, "hang", 100).await;
    receiver.wait_for(64, SOON).await;
    program.signal("TERM");
    let asked = Instant::now();
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(program.said("shutdown_timeout"), 0);
    // What failed meanwhile waits for its second attempt; the rest for its first.
    let attempted = u32::try_from(receiver.arrivals().len()).unwrap();
    assert!(attempted < 100, "all were attempted: this shows nothing");
    let retry = "hookbridge.retry.3600000";
    client.wait_for_depth(retry, attempted, SOON).await;
    let lanes = async || {
        let mut waiting = client.depth("hookbridge.events").await?;
        for lane in 0..8 {
            let lane = format!("hookbridge.first.fast.0{lane}");
            waiting += client.depth(&lane).await?;
        }
        (waiting == 100 - attempted).then_some(())
    };
    eventually("the rest waits where it was", SOON, lanes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_broker_holds_a_stop_up_no_longer_than_shutdown_timeout() {
    let vhost = Vhost::new("running");
    let receiver = Receiver::start().await;
    let late = Answer::After(Duration::from_millis(1_500), Box::new(Answer::Status(500)));
    receiver.answer("/", late);
    let proxy = Proxy::start(node().amqp_port());
    let setup = Setup::new(&vhost.with_port(proxy.port()));
    setup.http_subscriber("all", &receiver.url("/"));
    setup.set("delivery.timeout", "2s");
    setup.set("delivery.shutdown_timeout", "3s");
    let mut program = setup.run_ready().await;
    publish_many(&vhost.connect().await, "one", 1).await;
    receiver.wait_for(1, SOON).await;
    // The attempt ends within its time, but cannot be settled.
    proxy.freeze();
    program.signal("TERM");
    let asked = Instant::now();
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(3), "{took:?}");
    // Closing has a deadline, too.
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert_eq!(program.said("shutdown_timeout is over"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_broker_is_absent_is_prompt() {
    let vhost = Vhost::new("running");
    let proxy = Proxy::start(node().amqp_port());
    proxy.refuse().await;
    let setup = Setup::new(&vhost.with_port(proxy.port()));
    let mut program = setup.run();
    program.wait_said(ABSENT, SOON).await;
    program.signal("TERM");
    let asked = Instant::now();
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2));

    // Absent only since a while, and in the middle of dialling a broker that says nothing.
    proxy.forward().await;
    let mut program = setup.run_ready().await;
    proxy.freeze();
    proxy.cut();
    program.wait_said(LOST, SOON).await;
    program.signal("TERM");
    let asked = Instant::now();
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4));
}
