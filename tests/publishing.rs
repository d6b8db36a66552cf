//! A publish is told its own answer: whatever else is in flight on its channel, however it ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hookbridge::broker::{
    connection::{Dialer, OPERATION_TIMEOUT, TlsFiles, fixed_uri, system_resolver},
    message::Message,
    pool::Source,
    publisher::{PublishError, Publisher},
    publishers::Publishers,
};
use lapin::types::AMQPValue;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use crate::support::{
    broker::{Vhost, node},
    client::Client,
    proxy::Proxy,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn publisher(vhost: &Vhost, tasks: &TaskTracker) -> Publisher {
    publisher_at(vhost.uri(), tasks)
}

fn publisher_at(uri: String, tasks: &TaskTracker) -> Publisher {
    Publisher::start(Source::home(dialer(uri), 1).unwrap(), None, tasks)
}

fn dialer(uri: String) -> Dialer {
    Dialer {
        uri: fixed_uri(uri.into()),
        tls: TlsFiles::default(),
        resolver: system_resolver(),
        name: "publishing".into(),
        large_frames: false,
    }
}

/// As many publishers that share one connection to a subscriber's broker.
fn sharing<const N: usize>(vhost: &Vhost) -> [Publisher; N] {
    let source = Source::outside(dialer(vhost.uri()), 1);
    let publishers = Publishers::new(source, TaskTracker::new());
    std::array::from_fn(|index| publishers.get(&index, None))
}

/// A message for a queue, through the default exchange.
fn to(queue: &str, id: impl Into<String>) -> Message {
    Message::plain("", queue, id, "{}")
}

/// The ids of the messages in a queue, as often as they are there.
async fn ids_in(client: &Client, queue: &str) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for message in client.drain(queue).await {
        let id = message
            .properties
            .message_id()
            .as_ref()
            .unwrap()
            .to_string();
        *ids.entry(id).or_default() += 1;
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_closed_again_and_again_costs_its_neighbours_nothing() {
    const COUNT: usize = 3000;
    let vhost = Vhost::new("publishing");
    vhost.connect().await.declare_quorum("work").await;
    let [refused, well] = sharing(&vhost);
    let nowhere = |id: String| Message {
        exchange: "nowhere".to_owned(),
        ..to("work", id)
    };
    let first = refused.publish_one(nowhere("first".into()), TIMEOUT).await;
    assert!(matches!(first, Err(PublishError::ChannelClosed(_))));
    // Whenever they come, some are about to be written when the broker closes the channel.
    let mut numbers = Numbers(1);
    let mut tasks = JoinSet::new();
    for number in 0..COUNT {
        let (refused, well) = (refused.clone(), well.clone());
        let after = Duration::from_micros(numbers.below(3_000_000) as u64);
        tasks.spawn(async move {
            sleep(after).await;
            let refused = refused.publish_one(nowhere(number.to_string()), TIMEOUT);
            let well = well.publish_one(to("work", number.to_string()), TIMEOUT);
            tokio::join!(refused, well)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (refused, well) = done.unwrap();
        let closed = matches!(refused, Err(PublishError::ChannelClosed(_)));
        assert!(closed, "{refused:?}");
        assert!(well.is_ok(), "{well:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_back_among_a_thousand_is_told_from_all_others() {
    const COUNT: usize = 1000;
    let vhost = Vhost::new("publishing");
    let client = vhost.connect().await;
    client.declare_quorum("work").await;
    let proxy = Proxy::start(node().amqp_port());
    let publisher = publisher_at(vhost.with_port(proxy.port()), &TaskTracker::new());
    publisher
        .publish_one(to("work", "first"), TIMEOUT)
        .await
        .unwrap();
    let mut numbers = Numbers(1);
    let mut arrived = 1;
    for round in 0..24 {
        // One, then many, at any place.
        let returned: BTreeSet<usize> = (0..if round % 2 == 0 { 1 } else { COUNT / 5 })
            .map(|_| numbers.below(COUNT))
            .collect();
        let messages = (0..COUNT)
            .map(|n| {
                let queue = if returned.contains(&n) {
                    "nowhere"
                } else {
                    "work"
                };
                to(queue, format!("{round}-{n}"))
            })
            .collect();
        for (n, result) in publisher
            .publish(messages, TIMEOUT)
            .await
            .iter()
            .enumerate()
        {
            match result {
                Ok(()) => assert!(!returned.contains(&n), "round {round}: {n} came back"),
                Err(PublishError::Returned(words)) => {
                    assert!(returned.contains(&n), "round {round}: {n} arrived");
                    assert!(words.contains("NO_ROUTE"), "{words}");
                }
                Err(error) => panic!("round {round}: {n}: {error}"),
            }
        }
        arrived += COUNT - returned.len();
    }
    assert_eq!(
        client.depth("work").await,
        Some(u32::try_from(arrived).unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_on_one_channel_are_each_told_what_became_of_their_own() {
    let vhost = Vhost::new("publishing");
    let client = vhost.connect().await;
    client.declare_quorum("work").await;
    let full = [
        ("x-max-length", AMQPValue::LongLongInt(40)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    client.declare("full", full).await;
    let publisher = publisher(&vhost, &TaskTracker::new());
    let task = |task: u64, publisher: Publisher| async move {
        let mut numbers = Numbers(task + 7);
        let mut told = Vec::new();
        for batch in 0..15 {
            let messages: Vec<Message> = (0..numbers.below(30))
                .map(|n| {
                    let queue = ["work", "full", "nowhere"][numbers.below(3)];
                    to(queue, format!("{task}-{batch}-{n}"))
                })
                .collect();
            let results = publisher.publish(messages.clone(), TIMEOUT).await;
            assert_eq!(results.len(), messages.len());
            told.extend(messages.into_iter().zip(results));
        }
        told
    };
    let tasks: JoinSet<_> = (0..10).map(|n| task(n, publisher.clone())).collect();
    let told = tasks.join_all().await.concat();
    let (mut work, mut full) = (BTreeMap::new(), BTreeMap::new());
    let mut nacked = 0;
    for (message, result) in told {
        match (message.routing_key.as_str(), result) {
            ("work", Ok(())) => _ = work.insert(message.message_id, 1),
            ("full", Ok(())) => _ = full.insert(message.message_id, 1),
            ("full", Err(PublishError::Nacked)) => nacked += 1,
            ("nowhere", Err(PublishError::Returned(_))) => {}
            (queue, result) => panic!("{} to {queue}: {result:?}", message.message_id),
        }
    }
    assert!(nacked > 200, "{nacked} nacked");
    assert_eq!(ids_in(&client, "work").await, work);
    assert_eq!(ids_in(&client, "full").await, full);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_broker_closes_fails_what_was_in_flight_and_not_what_follows() {
    let vhost = Vhost::new("publishing");
    let client = vhost.connect().await;
    client.declare_quorum("work").await;
    let publisher = publisher(&vhost, &TaskTracker::new());
    let mut confirmed = BTreeSet::new();
    for round in 0..20 {
        let mut messages: Vec<Message> = (0..20)
            .map(|n| to("work", format!("{round}-{n}")))
            .collect();
        messages[round].exchange = "missing".into();
        let results = publisher.publish(messages.clone(), TIMEOUT).await;
        for (n, (message, result)) in messages.into_iter().zip(results).enumerate() {
            match result {
                Ok(()) => {
                    assert_ne!(n, round, "nobody took it");
                    confirmed.insert(message.message_id);
                }
                Err(PublishError::ChannelClosed(words)) => {
                    assert!(words.contains("missing"), "{words}");
                }
                Err(error) => panic!("round {round}: {n}: {error}"),
            }
        }
        let next = format!("{round}-next");
        publisher
            .publish_one(to("work", &next), TIMEOUT)
            .await
            .unwrap();
        confirmed.insert(next);
    }
    // What was confirmed is there; what was not may be.
    let there = ids_in(&client, "work").await;
    for id in confirmed {
        assert!(
            there.contains_key(&id),
            "{id} was confirmed and is not there"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_key_that_amqp_cannot_carry_fails_alone() {
    let vhost = Vhost::new("publishing");
    let client = vhost.connect().await;
    client.declare_quorum("work").await;
    let publisher = publisher(&vhost, &TaskTracker::new());
    let longest = "q".repeat(255);
    let messages = vec![
        to("work", "before"),
        to(&"q".repeat(256), "too-long"),
        to(&longest, "longest"),
        // 128 characters of two bytes.
        to(&"é".repeat(128), "too-long-in-bytes"),
        to("work", "m".repeat(256)),
        to("work", "after"),
    ];
    let results = publisher.publish(messages, TIMEOUT).await;
    let told: Vec<String> = results
        .iter()
        .map(|result| match result {
            Ok(()) => "ok".to_owned(),
            Err(PublishError::Returned(_)) => "returned".to_owned(),
            Err(error) => error.to_string(),
        })
        .collect();
    let too_long = |what: &str| {
        format!("the message cannot be published: the {what} has 256 bytes; AMQP allows 255")
    };
    let [key, id] = ["routing key", "message id"].map(too_long);
    assert_eq!(told, ["ok", &key, "returned", &key, &id, "ok"]);
    let there = ids_in(&client, "work").await;
    assert_eq!(
        there,
        [("before".to_owned(), 1), ("after".to_owned(), 1)].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_with_the_same_id_are_never_both_taken_for_arrived_when_one_came_back() {
    let vhost = Vhost::new("publishing");
    let client = vhost.connect().await;
    client.declare_quorum("work").await;
    let publisher = publisher(&vhost, &TaskTracker::new());
    let both = vec![to("work", "same"), to("work", "same")];
    for result in publisher.publish(both, TIMEOUT).await {
        result.unwrap();
    }
    assert_eq!(
        ids_in(&client, "work").await,
        [("same".to_owned(), 2)].into()
    );
    let mut numbers = Numbers(3);
    for round in 0..40 {
        let mut messages: Vec<Message> = (0..50)
            .map(|n| to("work", format!("{round}-{n}")))
            .collect();
        let (good, bad) = (numbers.below(50), numbers.below(50));
        messages[good].message_id = "same".into();
        messages[bad] = to("nowhere", "same");
        for (n, result) in publisher
            .publish(messages, TIMEOUT)
            .await
            .iter()
            .enumerate()
        {
            let returned = matches!(result, Err(PublishError::Returned(_)));
            if n == bad {
                assert!(returned, "round {round}: {n}: {result:?}");
            } else if n != good {
                assert!(result.is_ok(), "round {round}: {n}: {result:?}");
            } else {
                // Nobody can tell the two apart: this one may be repeated, and is not lost.
                assert!(returned || result.is_ok(), "round {round}: {n}: {result:?}");
            }
        }
    }
}

/// Whoever asks something of a connection just when it breaks may never be answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_while_a_channel_is_opened_holds_nobody_up() {
    const ROUNDS: usize = 600;
    let vhost = Vhost::new("publishing");
    vhost.connect().await.declare_quorum("work").await;
    let proxy = Proxy::start(node().amqp_port());
    let source = Source::home(dialer(vhost.with_port(proxy.port())), 1).unwrap();
    let publishers = Publishers::new(source, TaskTracker::new());
    let mut numbers = Numbers(1);
    let mut cut_off = 0;
    for round in 0..ROUNDS {
        // Every other one opens its channel on a connection that there is already.
        let publisher = publishers.get(&round, None);
        let after = Duration::from_micros(numbers.below(3_000) as u64);
        let began = Instant::now();
        let (result, ()) = tokio::join!(publisher.publish_one(to("work", "id"), TIMEOUT), async {
            if round % 2 == 1 {
                sleep(after).await;
                proxy.cut();
            }
        });
        let took = began.elapsed();
        assert!(
            took < OPERATION_TIMEOUT / 2,
            "{took:?} in round {round}: {result:?}"
        );
        cut_off += usize::from(result.is_err());
        publishers.retain(|_| false);
    }
    assert!(cut_off > ROUNDS / 10, "only {cut_off} were cut off");
}
