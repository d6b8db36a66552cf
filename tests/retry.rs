//! A failing delivery is attempted exactly twice, and then it is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use lapin::{
    BasicProperties,
    types::{AMQPValue, ShortString},
};

use crate::support::{
    broker::Vhost,
    client::{Client, Published},
    eventually::{SOON, eventually},
    http::{Answer, Receiver},
    lane::{fast, hand_in, table, text},
    line::{
        KEY, Line, SOURCE, Setup, assert_dead_letter, event, everything, http, of, subscriber,
        webhook_id,
    },
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_these_headers_and_no_others() {
    let vhost = Vhost::new("retry");
    let receiver = Receiver::start().await;
    let answers = vec![Answer::Status(503), Answer::Body(404, b"gone".into())];
    receiver.answer_in_turn("/hook", answers);
    let subscribers = [everything("fixit", &http(&receiver.url("/hook")))];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;

    let copies = AMQPValue::FieldArray(vec![AMQPValue::LongString("elsewhere".into())].into());
    let properties = BasicProperties::default()
        .with_expiration("60000".into())
        .with_correlation_id("theirs".into())
        .with_priority(7)
        .with_headers(table(&[
            ("traceparent", text(TRACE)),
            ("CC", copies),
            ("hookbridge-replay", AMQPValue::LongInt(5)),
            ("hookbridge-attempts", AMQPValue::LongInt(9)),
            ("x-own", text("theirs")),
        ]));
    let before = Timestamp::now();
    let published = line
        .client
        .publish_with(SOURCE, KEY, &event("evt"), properties)
        .await;
    assert_eq!(published, Published::Routed);
    let dead = &line.dead_letters(1).await[0];

    assert_dead_letter(dead, "evt", "fixit", 2);
    let header = |name: &str| dead.header(name).unwrap();
    let names: BTreeSet<_> = dead
        .properties
        .headers()
        .as_ref()
        .unwrap()
        .inner()
        .keys()
        .collect();
    // The queue itself adds how often it has handed a message out.
    let names: Vec<_> = names
        .into_iter()
        .map(ShortString::as_str)
        .filter(|name| *name != "x-delivery-count")
        .collect();
    let expected = [
        "hookbridge-attempts",
        "hookbridge-case",
        "hookbridge-detail",
        "hookbridge-failed-at",
        "hookbridge-first-detail",
        "hookbridge-first-reason",
        "hookbridge-reason",
        "hookbridge-received-at",
        "hookbridge-replay",
        "hookbridge-subscriber",
        "traceparent",
        "webhook-type",
    ];
    assert_eq!(names, expected);
    assert_eq!(header("hookbridge-reason"), "http_status");
    assert_eq!(header("hookbridge-first-reason"), "http_status");
    let (detail, first) = (
        header("hookbridge-detail"),
        header("hookbridge-first-detail"),
    );
    assert!(
        detail.contains("404") && detail.contains("gone"),
        "{detail}"
    );
    assert!(first.contains("503"), "{first}");
    assert_eq!(header("traceparent"), TRACE);
    assert_eq!(
        header("hookbridge-case"),
        "a7afaf9-7c6e-4d0e-b756-16b4afa1382f"
    );
    let failed_at: Timestamp = header("hookbridge-failed-at").parse().unwrap();
    let milliseconds = header("hookbridge-received-at").parse().unwrap();
    let received_at = Timestamp::from_millisecond(milliseconds).unwrap();
    assert!(milliseconds >= before.as_millisecond(), "{received_at}");
    assert!(received_at < failed_at && failed_at <= Timestamp::now());

    let properties = &dead.properties;
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(*properties.expiration(), None);
    assert_eq!(*properties.correlation_id(), None);
    assert_eq!(*properties.priority(), None);
    assert_eq!(dead.exchange, "hookbridge.dead");
    assert_eq!(dead.routing_key, fast("fixit", 700));
    let arrivals = receiver.wait_for(2, SOON).await;
    for (arrival, attempt) in arrivals.iter().zip(["1", "2"]) {
        assert_eq!(arrival.body, dead.body, "byte for byte");
        assert_eq!(arrival.header("webhook-attempt"), Some(attempt));
        assert_eq!(arrival.header("traceparent"), Some(TRACE));
    }
    let series =
        r#"hookbridge_deliveries_total{outcome="dead",transport="http",webhook="StatusUpdate"}"#;
    line.wait_for_metric(series, 1.0).await;
    line.stop().await;
    assert_eq!(receiver.arrivals().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_with_different_delays_make_two_attempts_and_no_more() {
    const EVENTS: usize = 200;
    let vhost = Vhost::new("retry");
    let receiver = Receiver::start().await;
    receiver.answer("/hook", Answer::Status(500));
    let subscribers = [everything("fixit", &http(&receiver.url("/hook")))];
    let with = |milliseconds| Setup {
        retry_delay: Duration::from_millis(milliseconds),
        ..Setup::default()
    };
    let one = Line::start(&vhost.uri(), &with(500), &subscribers).await;
    let other = Line::start(&vhost.uri(), &with(900), &subscribers).await;
    for number in 0..EVENTS {
        one.publish(&format!("evt-{number}")).await;
    }

    let dead = one.dead_letters(EVENTS).await;
    let mut delays = BTreeMap::<_, usize>::new();
    for message in &dead {
        let delay = message.routing_key.split('.').nth(2).unwrap();
        *delays.entry(delay.to_owned()).or_default() += 1;
    }
    assert_eq!(delays.keys().collect::<Vec<_>>(), ["500", "900"]);
    let mut attempts = BTreeMap::<_, Vec<_>>::new();
    for arrival in receiver.arrivals() {
        let id = arrival.header("webhook-id").unwrap().to_owned();
        let attempt = arrival.header("webhook-attempt").unwrap().to_owned();
        attempts.entry(id).or_default().push((attempt, arrival.at));
    }
    assert_eq!(attempts.len(), EVENTS);
    for (id, attempts) in &attempts {
        let numbers: Vec<_> = attempts.iter().map(|(number, _)| number.as_str()).collect();
        assert_eq!(numbers, ["1", "2"], "{id}");
        let gap = attempts[1].1 - attempts[0].1;
        assert!(gap >= Duration::from_millis(500), "{id}: {gap:?}");
    }
    for line in [&one, &other] {
        let series =
            r#"hookbridge_attempts_total{attempt="2",result="http_status",transport="http"}"#;
        assert!(line.metric(series).await > 0.0, "both took part");
    }
    assert!(one.client.get("hookbridge.dead").await.is_none());
    one.stop().await;
    other.stop().await;
    assert_eq!(receiver.arrivals().len(), 2 * EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_subscriber_decides_at_each_attempt() {
    let vhost = Vhost::new("retry");
    let receiver = Receiver::start().await;
    receiver.answer("/failing", Answer::Status(500));
    let failing = http(&receiver.url("/failing"));
    let disabled = subscriber("disabled", "enabled = false", &failing);
    let setup = Setup {
        // Long enough to reload in.
        retry_delay: Duration::from_secs(4),
        ..Setup::default()
    };
    let liar = everything("liar", &failing);
    let before = [
        disabled.clone(),
        liar.clone(),
        everything("flips", &failing),
    ];
    let line = Line::start(&vhost.uri(), &setup, &before).await;
    for id in ["disabled", "ghost", "late", "flips", "liar"] {
        hand_in_forged(&line.client, "evt", id, 4000).await;
    }

    // Disabled: dead at once, whatever the message claims about attempts.
    let dead = line.dead_letters(1).await;
    assert_dead_letter(&dead[0], "evt", "disabled", 1);
    let reason = dead[0].header("hookbridge-reason");
    assert_eq!(reason.as_deref(), Some("subscriber_disabled"));

    let unknown =
        r#"hookbridge_attempts_total{attempt="1",result="subscriber_removed",transport="unknown"}"#;
    line.wait_for_metric(unknown, 2.0).await;
    let failed = r#"hookbridge_attempts_total{attempt="1",result="http_status",transport="http"}"#;
    line.wait_for_metric(failed, 2.0).await;
    let after = [
        disabled,
        liar,
        subscriber("flips", "enabled = false", &failing),
        everything("late", &http(&receiver.url("/late"))),
        everything("another", &http(&receiver.url("/another"))),
    ];
    line.reload(&after, 3).await;

    let dead = line.dead_letters(3).await;
    let reasons = |id: &str| {
        assert_dead_letter(of(&dead, id), "evt", id, 2);
        let header = |name: &str| of(&dead, id).header(name).unwrap();
        (
            header("hookbridge-first-reason"),
            header("hookbridge-reason"),
        )
    };
    let both = |first: &str, second: &str| (first.to_owned(), second.to_owned());
    assert_eq!(
        reasons("ghost"),
        both("subscriber_removed", "subscriber_removed")
    );
    assert_eq!(reasons("flips"), both("http_status", "subscriber_disabled"));
    assert_eq!(reasons("liar"), both("http_status", "http_status"));
    let late = eventually("the late one gets it", SOON, async || {
        receiver.arrivals_at("/late").pop()
    })
    .await;
    assert_eq!(late.header("webhook-attempt"), Some("2"));
    let id = webhook_id("/order-hub", "evt", "late");
    assert_eq!(late.header("webhook-id"), Some(&*id));
    line.stop().await;
    assert_eq!(receiver.arrivals_at("/late").len(), 1);
    assert_eq!(receiver.arrivals_at("/failing").len(), 3, "flips 1, liar 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_delivery_is_kept_and_what_the_broker_must_move_is_not_lost() {
    let vhost = Vhost::new("retry");
    let receiver = Receiver::start().await;
    receiver.answer("/failing", Answer::Status(500));
    let subscribers = [everything("fixit", &http(&receiver.url("/failing")))];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    let client = &line.client;

    // Messages in a lane that nothing of the bridge's put there.
    let body = b"{\"not\": \"a delivery\"}\xff\n";
    for (set, attempts) in [("first", "1"), ("second", "2")] {
        let exchange = format!("hookbridge.{set}");
        let published = client.publish(&exchange, "fast.03.700.x", body).await;
        assert_eq!(published, Published::Routed);
        let dead = &line.dead_letters(1).await[0];
        assert_eq!(dead.body, body, "byte for byte");
        assert_eq!(dead.routing_key, "fast.03.700.x");
        let header = |name: &str| dead.header(name).unwrap();
        assert_eq!(header("hookbridge-reason"), "protocol");
        assert!(header("hookbridge-detail").contains("message_id"));
        assert_eq!(header("hookbridge-attempts"), attempts);
    }

    // The bridge cannot publish to `retry`: the lane's own dead-letter exchange takes it there.
    let forbid = |names: &str| {
        let write = format!("^(?!hookbridge\\.({names})$).*");
        vhost.add_user(&vhost.name, [".*", &write, ".*"]);
    };
    forbid("retry");
    hand_in(client, "no-retry", &fast("fixit", 700), &[]).await;
    let dead = &line.dead_letters(1).await[0];
    let header = |name: &str| dead.header(name);
    assert_eq!(header("hookbridge-reason").as_deref(), Some("http_status"));
    assert_eq!(header("hookbridge-attempts").as_deref(), Some("2"));
    assert_eq!(
        header("hookbridge-first-reason"),
        None,
        "the broker says nothing"
    );
    assert_eq!(dead.routing_key, fast("fixit", 700));

    // Nor to `dead`: the broker takes it all the way, and there are no reasons in it.
    forbid("retry|dead");
    hand_in(client, "no-dead", &fast("fixit", 700), &[]).await;
    let dead = &line.dead_letters(1).await[0];
    let headers = dead.properties.headers().as_ref().unwrap().inner();
    assert!(!headers.contains_key("hookbridge-reason"), "{headers:?}");
    let id = webhook_id("/order-hub", "no-dead", "fixit");
    let message_id = dead.properties.message_id().as_ref();
    assert_eq!(message_id.map(ShortString::as_str), Some(&*id));
    assert_eq!(dead.body, receiver.arrivals()[0].body);

    // The wait queue is gone: what would have waited in it is in `lost`.
    forbid("nothing");
    vhost.delete_queue("hookbridge.retry.700");
    hand_in(client, "no-wait", &fast("fixit", 700), &[]).await;
    let lost = &client.receive("hookbridge.lost", 1, SOON).await[0];
    let header = |name: &str| lost.header(name);
    assert_eq!(header("hookbridge-reason").as_deref(), Some("http_status"));
    assert_eq!(header("hookbridge-attempts").as_deref(), Some("1"));
    assert_eq!(lost.body, receiver.arrivals()[0].body);

    line.stop().await;
    let after = vhost.connect().await;
    for queue in ["dead", "lost", "rejected"] {
        let left = after.drain(&format!("hookbridge.{queue}")).await;
        assert!(left.is_empty(), "{queue}: {left:?}");
    }
    let mut attempts = BTreeMap::<_, usize>::new();
    for arrival in receiver.arrivals() {
        let id = arrival.header("webhook-id").unwrap().to_owned();
        *attempts.entry(id).or_default() += 1;
    }
    for (event, expected) in [("no-retry", 2), ("no-dead", 2), ("no-wait", 1)] {
        let id = webhook_id("/order-hub", event, "fixit");
        assert_eq!(attempts.get(&id), Some(&expected), "{event}");
    }
}

/// Hands a delivery in with headers that claim what only a lane may tell.
async fn hand_in_forged(client: &Client, event: &str, subscriber: &str, delay: u32) {
    let forged = [
        ("hookbridge-attempts", AMQPValue::LongLongInt(2)),
        ("hookbridge-reason", text("tls")),
        ("hookbridge-detail", text("forged")),
    ];
    hand_in(client, event, &fast(subscriber, delay), &forged).await;
}
