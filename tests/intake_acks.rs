//! A domain event is acknowledged when all that is made of it is in safe hands, and not before.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lapin::ExchangeKind;
use serde_json::{Value, json};

use crate::support::{
    bridge::{RunningBridge, Setup},
    broker::{Vhost, unique},
    client::Message,
    eventually::{SOON, eventually},
    http::Receiver,
    management,
};

/// What a user may do that may publish to everything but the lanes of first attempts.
const NOT_TO_FIRST: [&str; 3] = [".*", r"^(?!hookbridge\.first$)", ".*"];
const EVERYTHING: [&str; 3] = [".*"; 3];
/// A queue on the home broker, which gets its deliveries from intake itself.
const QUEUE: &str = "home.webhooks";
/// One that is bound to a subscriber's exchange, which gets them from the lanes.
const BOUND: &str = "bound.webhooks";

fn event(number: usize) -> Value {
    json!({
        "specversion": "1.0", "id": number.to_string(), "source": "/acks",
        "type": "claim.status.changed", "time": "2021-09-08T14:22:20.361415Z",
        "data": {
            "case": {"id": "c-1"}, "claim": {"id": number.to_string()},
            "status": {"id": "s", "name": "n"},
        },
    })
}

async fn publish(bridge: &RunningBridge, numbers: std::ops::Range<usize>) {
    let bodies: Vec<_> = numbers.map(|n| event(n).to_string()).collect();
    let keyed = bodies
        .iter()
        .map(|body| ("claim.status.changed", body.as_bytes()));
    bridge.publish_many(keyed).await;
}

fn number(body: &[u8]) -> usize {
    let payload: Value = serde_json::from_slice(body).unwrap();
    payload["claimId"].as_str().unwrap().parse().unwrap()
}

/// Which events came over HTTP, and how often.
fn over_http(receiver: &Receiver) -> BTreeMap<usize, usize> {
    let mut came = BTreeMap::new();
    for arrival in receiver.arrivals() {
        *came.entry(number(&arrival.body)).or_default() += 1;
    }
    came
}

/// Which events came to the queue, each with the ids of its webhooks.
fn queued(messages: &[Message]) -> BTreeMap<usize, Vec<String>> {
    let mut queued: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for message in messages {
        let id = message.header("webhook-id").unwrap();
        queued.entry(number(&message.body)).or_default().push(id);
    }
    queued
}

fn setup(vhost: &Vhost, user: &str, receiver: &Receiver) -> Setup {
    let all = "scope = \"all\"\nevents = [\"*\"]";
    let url = receiver.url("/");
    Setup::new(vhost)
        .uri(vhost.uri_as(user))
        .subscriber("http", &format!("{all}\n[http]\nurl = \"{url}\""))
        .subscriber("home", &format!("{all}\n[amqp]\nqueue = \"{QUEUE}\""))
}

/// A bridge that delivers to both queues.
async fn setup_queues(vhost: &Vhost, user: &str) -> Setup {
    let client = vhost.connect().await;
    client.declare_quorum(QUEUE).await;
    client.declare_quorum(BOUND).await;
    client
        .declare_exchange("theirs", ExchangeKind::Fanout)
        .await;
    client.bind(BOUND, "theirs", "").await;
    let all = "scope = \"all\"\nevents = [\"*\"]\n[amqp]\n";
    Setup::new(vhost)
        .uri(vhost.uri_as(user))
        .subscriber("bound", &format!("{all}exchange = \"theirs\""))
        .subscriber("home", &format!("{all}queue = \"{QUEUE}\""))
}

/// Each of fifty events came once.
fn once(messages: &[Message]) {
    let queued = queued(messages);
    assert_eq!(queued.len(), 50);
    assert!(queued.values().all(|ids| ids.len() == 1), "{queued:?}");
}

/// Each of fifty events came twice, and its receiver can tell that it did.
fn repeated(messages: &[Message]) {
    let queued = queued(messages);
    assert_eq!(queued.len(), 50);
    for (number, ids) in queued {
        assert_eq!(ids.len(), 2, "{number}");
        assert_eq!(ids[0], ids[1], "{number}");
    }
}

/// Stops the bridge: no event may be left, waiting or unacknowledged, nor anything else.
async fn stop(bridge: RunningBridge) {
    let client = bridge.client.clone();
    bridge.stop().await;
    for queue in ["events", "dead", "rejected", "lost"] {
        let depth = client.depth(&format!("hookbridge.{queue}")).await;
        assert_eq!(depth, Some(0), "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stays_until_the_broker_takes_all_that_is_made_of_it() {
    let vhost = Vhost::new("acks");
    let user = unique("acks-user");
    vhost.add_user(&user, NOT_TO_FIRST);
    let client = vhost.connect().await;
    let bridge = setup_queues(&vhost, &user).await.start().await;
    publish(&bridge, 0..50).await;
    client.wait_for_depth(QUEUE, 50, SOON).await;
    // The half that the broker took is there; the other half is tried for, again and again.
    assert_eq!(
        bridge.metrics().await.value("hookbridge_events_total", &[]),
        0
    );
    assert_eq!(client.depth(BOUND).await, Some(0));

    // Nor does losing the connections lose them: each is delivered again, and stays again.
    management::must(
        "DELETE",
        &format!("connections/username/{user}"),
        &Value::Null,
    );
    bridge
        .wait_for_metric("hookbridge_broker_reconnects_total", &[], 1)
        .await;
    client.wait_for_depth(QUEUE, 100, SOON).await;
    assert_eq!(client.depth(BOUND).await, Some(0));

    vhost.add_user(&user, EVERYTHING);
    client.wait_for_depth(BOUND, 50, SOON).await;
    bridge
        .wait_for_metric("hookbridge_events_total", &[("result", "accepted")], 50)
        .await;
    stop(bridge).await;
    once(&client.drain(BOUND).await);
    repeated(&client.drain(QUEUE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_gone_in_between_leaves_the_event_to_the_next() {
    let vhost = Vhost::new("acks");
    let (user, next) = (unique("acks-user"), unique("acks-user"));
    vhost.add_user(&user, NOT_TO_FIRST);
    vhost.add_user(&next, EVERYTHING);
    let client = vhost.connect().await;
    let bridge = setup_queues(&vhost, &user).await.start().await;
    publish(&bridge, 0..50).await;
    client.wait_for_depth(QUEUE, 50, SOON).await;
    assert_eq!(
        client.depth("hookbridge.events").await,
        Some(0),
        "all are taken"
    );
    bridge.crash();
    client.wait_for_depth("hookbridge.events", 50, SOON).await;
    assert_eq!(client.depth(BOUND).await, Some(0));

    let bridge = setup_queues(&vhost, &next).await.start().await;
    client.wait_for_depth(BOUND, 50, SOON).await;
    client.wait_for_depth(QUEUE, 100, SOON).await;
    bridge
        .wait_for_metric("hookbridge_events_total", &[("result", "accepted")], 50)
        .await;
    stop(bridge).await;
    once(&client.drain(BOUND).await);
    repeated(&client.drain(QUEUE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_connections_break_while_events_are_taken_in() {
    let (vhost, receiver) = (Vhost::new("acks"), Receiver::start().await);
    let user = unique("acks-user");
    vhost.add_user(&user, EVERYTHING);
    let client = vhost.connect().await;
    client.declare_quorum(QUEUE).await;
    let bridge = setup(&vhost, &user, &receiver).start().await;
    for round in 0..3 {
        publish(&bridge, round * 200..(round + 1) * 200).await;
        // Events are under way, and more are in the queue.
        receiver.wait_for(round * 200 + 1, SOON).await;
        let reconnects = u64::try_from(round).unwrap();
        let path = format!("connections/username/{user}");
        management::must("DELETE", &path, &Value::Null);
        bridge
            .wait_for_metric("hookbridge_broker_reconnects_total", &[], reconnects + 1)
            .await;
    }
    bridge.wait_until_ready().await;
    let all: BTreeSet<usize> = (0..600).collect();
    let arrived = async || {
        let came = over_http(&receiver);
        (came.len() == all.len()).then_some(())
    };
    eventually("every event is posted", SOON * 2, arrived).await;
    let mut messages = Vec::new();
    let arrived = async || {
        messages.extend(client.drain(QUEUE).await);
        (queued(&messages).len() == all.len()).then_some(())
    };
    eventually("every event is in the queue", SOON * 2, arrived).await;
    client.wait_for_depth("hookbridge.events", 0, SOON).await;
    let idle = async || {
        let metrics = bridge.metrics().await;
        let taken_in = metrics.value("hookbridge_events_total", &[("result", "accepted")]);
        (taken_in >= 600 && metrics.value("hookbridge_in_flight", &[]) == 0).then_some(())
    };
    eventually("every event is acknowledged", SOON, idle).await;
    stop(bridge).await;
    for (number, ids) in queued(&messages) {
        let different: BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), 1, "{number} keeps its id: {ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_not_there_costs_its_subscriber_the_delivery_and_nobody_else() {
    let (vhost, receiver) = (Vhost::new("acks"), Receiver::start().await);
    let user = unique("acks-user");
    vhost.add_user(&user, EVERYTHING);
    let client = vhost.connect().await;
    client.declare_quorum(QUEUE).await;
    let gone = "scope = \"all\"\nevents = [\"*\"]\n[amqp]\nqueue = \"nowhere\"";
    let bridge = setup(&vhost, &user, &receiver)
        .subscriber("gone", gone)
        .start()
        .await;
    publish(&bridge, 0..20).await;
    receiver.wait_for(20, SOON).await;
    client.wait_for_depth(QUEUE, 20, SOON).await;
    client.wait_for_depth("hookbridge.dead", 20, SOON).await;
    let dead = bridge.dead().await;
    for message in &dead {
        let says = |name: &str| message.header(name).unwrap_or_default();
        assert_eq!(says("hookbridge-subscriber"), "gone");
        assert_eq!(says("hookbridge-attempts"), "2");
        for which in ["", "first-"] {
            assert_eq!(says(&format!("hookbridge-{which}reason")), "returned");
            let detail = says(&format!("hookbridge-{which}detail"));
            assert!(detail.contains("NO_ROUTE"), "{detail}");
        }
        let failed: jiff::Timestamp = says("hookbridge-failed-at").parse().unwrap();
        let taken_in: i64 = says("hookbridge-received-at").parse().unwrap();
        let waited = failed.as_millisecond() - taken_in;
        assert!(
            Duration::from_millis(u64::try_from(waited).unwrap()) >= Duration::from_millis(500)
        );
    }
    assert_eq!(
        dead.iter()
            .map(|m| number(&m.body))
            .collect::<BTreeSet<_>>(),
        (0..20).collect()
    );
    let metrics = bridge.metrics().await;
    for attempt in ["1", "2"] {
        let labels = [
            ("transport", "amqp"),
            ("attempt", attempt),
            ("result", "returned"),
        ];
        assert_eq!(
            metrics.value("hookbridge_attempts_total", &labels),
            20,
            "{attempt}"
        );
    }
    let results = [("result", "accepted")];
    bridge
        .wait_for_metric("hookbridge_events_total", &results, 20)
        .await;
    stop(bridge).await;
    assert_eq!(over_http(&receiver).values().sum::<usize>(), 20);
    assert_eq!(client.depth(QUEUE).await, Some(20));
}
