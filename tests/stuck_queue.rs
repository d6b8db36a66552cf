//! A subscriber's queue on the home broker that takes messages and confirms none, as one does
//! without a quorum: it hurts nobody else, and gets what is new once it is well again.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use hookbridge::{
    broker::{
        connection::{Dialer, TlsFiles, fixed_uri, system_resolver},
        message::Message,
        pool::Source,
        publisher::PublishError,
        publishers::Publishers,
    },
    cli::demo::node::{NodeOptions, PrivateNode},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::support::{
    client::Client,
    eventually::{SOON, eventually},
    http::Receiver,
    line::{Line, Setup, assert_dead_letter, everything, http, subscriber, webhook_id},
};

/// `delivery.timeout`: how long a queue that does not confirm may hold up a batch.
const TIMEOUT: Duration = Duration::from_secs(2);
/// More than a broker keeps of one channel before it stops reading the connection.
const FLOOD: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_confirms_nothing_fails_alone_and_is_reached_again_when_it_is_well() {
    let node = start().await;
    let client = Client::connect(&node.amqp_uri("/")).await;
    let receiver = Receiver::start().await;
    let subscribers = vec![
        everything("web", &http(&receiver.url("/"))),
        queued(&client, "stuck").await,
        queued(&client, "well").await,
    ];
    let line = Line::start(&node.amqp_uri("/"), &setup(), &subscribers).await;
    line.publish("before").await;
    client.receive("stuck", 1, SOON).await;
    client.receive("well", 1, SOON).await;

    let stuck = Stuck::new(&node, "stuck");
    for round in 0..3 {
        let id = format!("round-{round}");
        let began = Instant::now();
        line.publish(&id).await;
        let queued = &client.receive("well", 1, TIMEOUT).await[0];
        assert_eq!(
            queued.header("webhook-id"),
            Some(webhook_id("/order-hub", &id, "well"))
        );
        assert_eq!(queued.header("webhook-attempt").as_deref(), Some("1"));
        let left = TIMEOUT.saturating_sub(began.elapsed());
        receiver.wait_for(round + 2, left).await;
        // The event itself is acknowledged once its last delivery is on its way.
        let taken = format!("round {round} is taken in");
        let counted = async || {
            let series = r#"hookbridge_events_total{result="accepted",type="case.status.updated"}"#;
            (line.metric(series).await > f64::from(u32::try_from(round).unwrap()) + 1.5)
                .then_some(())
        };
        // The first finds out that the queue is stuck; those after it do not wait for it.
        let limit = if round == 0 { TIMEOUT * 2 } else { TIMEOUT / 2 };
        eventually(&taken, limit, counted).await;
    }
    for letter in line.dead_letters(3).await {
        let id = letter.properties.message_id().as_ref().unwrap().to_string();
        let round = (0..3)
            .map(|round| format!("round-{round}"))
            .find(|event| webhook_id("/order-hub", event, "stuck") == id)
            .expect("the stuck one's");
        assert_dead_letter(&letter, &round, "stuck", 2);
        for name in ["hookbridge-reason", "hookbridge-first-reason"] {
            assert_eq!(letter.header(name).as_deref(), Some("timeout"));
        }
    }

    stuck.resume();
    reached_again(&line, &client).await;
    line.stop().await;
    assert_eq!(client.depth("hookbridge.dead").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_for_a_queue_that_confirms_nothing_does_not_hold_up_other_queues() {
    // More subscribers than connections, so that some share theirs with the stuck one.
    const OTHERS: [&str; 3] = ["one", "two", "three"];
    let node = start().await;
    let client = Client::connect(&node.amqp_uri("/")).await;
    let mut subscribers = vec![queued(&client, "stuck").await];
    for name in OTHERS {
        subscribers.push(queued(&client, name).await);
    }
    let line = Line::start(&node.amqp_uri("/"), &setup(), &subscribers).await;
    line.publish("before").await;
    for name in ["stuck"].iter().chain(&OTHERS) {
        client.receive(name, 1, SOON).await;
    }

    let stuck = Stuck::new(&node, "stuck");
    line.publish_many((0..FLOOD).map(|number| number.to_string()))
        .await;
    for name in OTHERS {
        let messages = client.receive(name, FLOOD, SOON).await;
        let ids: BTreeSet<_> = messages
            .iter()
            .map(|message| {
                assert_eq!(
                    message.header("webhook-attempt").as_deref(),
                    Some("1"),
                    "{name}"
                );
                message.header("webhook-id").unwrap()
            })
            .collect();
        assert_eq!(ids.len(), FLOOD, "{name}");
    }
    // By now each of the flood has been given to the stuck queue, and some of it twice.
    for round in 0..3 {
        line.publish(&format!("round-{round}")).await;
        for name in OTHERS {
            let message = &client.receive(name, 1, TIMEOUT).await[0];
            assert_eq!(
                message.header("webhook-attempt").as_deref(),
                Some("1"),
                "{name}"
            );
        }
    }
    stuck.resume();
    reached_again(&line, &client).await;
    line.stop().await;
    for name in OTHERS {
        let rest = client.drain(name).await;
        let expected = webhook_id("/order-hub", "after", name);
        let ids: Vec<_> = rest.iter().map(|m| m.header("webhook-id")).collect();
        assert_eq!(ids, [Some(expected)], "{name}: none twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_has_a_connection_of_its_own_and_confirms_nothing_is_given_up_in_time() {
    const BATCH: usize = 4_000;
    let node = start().await;
    let client = Client::connect(&node.amqp_uri("/")).await;
    for name in ["stuck", "well"] {
        client.declare_quorum(name).await;
    }
    let dialer = Dialer {
        uri: fixed_uri(node.amqp_uri("/").into()),
        tls: TlsFiles::default(),
        resolver: system_resolver(),
        name: "stuck queue".into(),
        large_frames: false,
    };
    let source = Source::home(dialer, 1).unwrap();
    let publishers = Publishers::new(source, TaskTracker::new());
    let [busy, well] = ["stuck", "well"].map(|name| publishers.get(&name, None));
    let batch = || {
        let ids = 0..BATCH;
        ids.map(|id| Message::plain("", "stuck", id.to_string(), "{}"))
            .collect()
    };
    let message = Message::plain("", "well", "id", "{}");
    well.publish_one(message, TIMEOUT).await.unwrap();
    let (of_all, until) = (connections(&node), Instant::now() + SOON);
    while connections(&node) == of_all {
        assert!(Instant::now() < until, "no connection of its own");
        for results in join_all((0..4).map(|_| busy.publish(batch(), SOON))).await {
            assert!(results.iter().all(Result::is_ok));
        }
    }

    let stuck = Stuck::new(&node, "stuck");
    let began = Instant::now();
    let (results, ()) = tokio::join!(busy.publish(batch(), TIMEOUT), async {
        while began.elapsed() < TIMEOUT {
            let message = Message::plain("", "well", "id", "{}");
            well.publish_one(message, TIMEOUT).await.unwrap();
        }
    });
    let timed_out = |result: &_| matches!(result, Err(PublishError::Timeout(_)));
    assert!(results.iter().all(timed_out));
    assert!(began.elapsed() < TIMEOUT * 3, "{:?}", began.elapsed());
    stuck.resume();
}

/// How many there are to a node.
fn connections(node: &PrivateNode) -> usize {
    let listed = node.rabbitmqctl(&["-q", "list_connections", "name"]);
    listed.unwrap().lines().count()
}

fn setup() -> Setup {
    Setup {
        retry_delay: Duration::from_millis(500),
        timeout: TIMEOUT,
        ..Setup::default()
    }
}

async fn start() -> PrivateNode {
    let start = || PrivateNode::start(&NodeOptions::default()).unwrap();
    tokio::task::spawn_blocking(start).await.unwrap()
}

/// A subscriber to a queue of its own name.
async fn queued(client: &Client, name: &str) -> String {
    client.declare_quorum(name).await;
    subscriber(
        name,
        "max_in_flight = 512",
        &format!("[amqp]\nqueue = {name:?}"),
    )
}

/// New events come to the queue that was stuck.
async fn reached_again(line: &Line, client: &Client) {
    line.publish("after").await;
    let expected = webhook_id("/order-hub", "after", "stuck");
    let came = async || {
        // What was given to it while it was stuck comes before.
        while let Some(message) = client.get("stuck").await {
            if message.header("webhook-id").as_ref() == Some(&expected) {
                return Some(());
            }
        }
        None
    };
    eventually("an event after the resume", SOON, came).await;
}

/// A quorum queue whose process takes everything and does nothing, until it is resumed.
struct Stuck<'n> {
    node: &'n PrivateNode,
    queue: &'static str,
}

impl<'n> Stuck<'n> {
    fn new(node: &'n PrivateNode, queue: &'static str) -> Self {
        let stuck = Self { node, queue };
        stuck.tell("suspend");
        stuck
    }

    fn resume(&self) {
        self.tell("resume");
    }

    fn tell(&self, what: &str) {
        let eval = format!("sys:{what}('%2F_{}').", self.queue);
        let said = self.node.rabbitmqctl(&["eval", &eval]).unwrap();
        assert_eq!(said.trim(), "ok");
    }
}
