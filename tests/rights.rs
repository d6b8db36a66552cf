//! The users of `deploy/rabbitmq/definitions.json`: the bridge's own, a publisher's and a
//! subscriber's. Each can do what it must, and nothing else.

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    alerts::project_file,
    support::{
        broker::{Vhost, node},
        client::Client,
        eventually::{SOON, eventually},
        http::{Answer, Receiver},
        management,
        program::{Setup, event},
    },
};

const DEFINITIONS: &str = "deploy/rabbitmq/definitions.json";
const EVENTS: &str = "domain.events";
const QUEUE: &str = "fixit.webhooks";

/// What is tried. Each on a connection of its own, since some end it.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// To this exchange, with this key.
    Publish(&'static str, &'static str),
    /// One message, which goes back.
    Get(&'static str),
    Consume(&'static str),
    Purge(&'static str),
    Declare(&'static str),
    DeleteQueue(&'static str),
    DeclareExchange(&'static str),
    DeleteExchange(&'static str),
    /// This queue to this exchange.
    Bind(&'static str, &'static str),
}

/// What nobody of the three may do.
const NOBODY: [Act; 13] = [
    Act::Publish("amq.topic", "x"),
    Act::Publish("amq.fanout", ""),
    Act::Declare("elsewhere"),
    Act::Declare("fixit.other"),
    // The broker would make up a name.
    Act::Declare(""),
    Act::DeclareExchange("elsewhere"),
    Act::DeleteExchange(EVENTS),
    Act::DeleteQueue(QUEUE),
    Act::Bind(QUEUE, EVENTS),
    Act::Bind(QUEUE, "amq.topic"),
    Act::Bind("hookbridge.events", "amq.topic"),
    Act::Get("somebody.webhooks"),
    Act::Purge("somebody.webhooks"),
];

/// Nor may a publisher or a subscriber touch what is the bridge's.
const BRIDGES: [Act; 16] = [
    Act::Get("hookbridge.events"),
    Act::Consume("hookbridge.events"),
    Act::Get("hookbridge.dead"),
    Act::Get("hookbridge.first.fast.00"),
    Act::Get("hookbridge.rejected"),
    Act::Get("hookbridge.lost"),
    Act::Purge("hookbridge.dead"),
    Act::DeleteQueue("hookbridge.events"),
    Act::Declare("hookbridge.mine"),
    Act::DeclareExchange("hookbridge.mine"),
    Act::DeleteExchange("hookbridge.first"),
    Act::Bind("hookbridge.events", EVENTS),
    // A forged delivery.
    Act::Publish("hookbridge.first", "fast.00.30000.fixit"),
    Act::Publish("hookbridge.registry", ""),
    Act::Publish("", "hookbridge.events"),
    Act::Publish("", QUEUE),
];

/// A virtual host with the definitions in it. Its users have its name before theirs, since users
/// are the whole broker's.
struct Ground {
    vhost: Vhost,
}

impl Ground {
    fn new() -> Self {
        let ground = Self {
            vhost: Vhost::new("rights"),
        };
        let mut all: Value = serde_json::from_str(&project_file(DEFINITIONS)).unwrap();
        all.as_object_mut().unwrap().remove("vhosts").unwrap();
        for (_, list) in all.as_object_mut().unwrap() {
            for entry in list.as_array_mut().unwrap() {
                if entry.get("vhost").is_some() {
                    entry["vhost"] = json!(ground.vhost.name);
                }
            }
        }
        for (list, key) in [("users", "name"), ("permissions", "user")] {
            for entry in all[list].as_array_mut().unwrap() {
                entry[key] = json!(ground.user(entry[key].as_str().unwrap()));
            }
        }
        management::must("POST", "definitions", &all);
        // What is another subscriber's.
        let theirs = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
        let path = format!("queues/{}/somebody.webhooks", ground.vhost.name);
        management::must("PUT", &path, &theirs);
        ground
    }

    fn user(&self, name: &str) -> String {
        format!("{}-{name}", self.vhost.name)
    }

    fn uri(&self, name: &str) -> String {
        let password = format!("{name}-for-a-look");
        node().amqp_uri_as(&self.user(name), &password, &self.vhost.name)
    }

    async fn client(&self, name: &str) -> Client {
        Client::connect(&self.uri(name)).await
    }

    async fn tries(&self, name: &str, act: Act) -> Result<(), String> {
        let uri = self.uri(name);
        let connecting = Connection::connect(&uri, ConnectionProperties::default());
        let connection = timeout(SOON, connecting).await.unwrap().unwrap();
        let channel = connection.create_channel().await.unwrap();
        let tried = timeout(SOON, perform(&channel, act)).await;
        tried.expect("in time").map_err(|error| error.to_string())
    }

    async fn may_not(&self, name: &str, acts: &[Act]) {
        for act in acts {
            let tried = self.tries(name, *act).await;
            let error = tried.expect_err(&format!("{name} may {act:?}"));
            assert!(error.contains("ACCESS_REFUSED"), "{name}, {act:?}: {error}");
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for name in ["hookbridge", "publisher", "fixit", "operator"] {
            management::call(
                "DELETE",
                &format!("users/{}", self.user(name)),
                &Value::Null,
            );
        }
    }
}

async fn perform(channel: &Channel, act: Act) -> lapin::Result<()> {
    let none = FieldTable::default;
    match act {
        Act::Publish(exchange, key) => {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let publish =
                channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties);
            publish.await?.await.map(drop)
        }
        Act::Get(queue) => {
            let got = channel.basic_get(queue.into(), BasicGetOptions::default());
            got.await.map(drop)
        }
        Act::Consume(queue) => {
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(queue.into(), "".into(), options, none());
            consumer.await.map(drop)
        }
        Act::Purge(queue) => {
            let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default());
            purged.await.map(drop)
        }
        Act::Declare(queue) => {
            let options = QueueDeclareOptions {
                exclusive: true,
                ..QueueDeclareOptions::default()
            };
            channel
                .queue_declare(queue.into(), options, none())
                .await
                .map(drop)
        }
        Act::DeleteQueue(queue) => {
            let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
            deleted.await.map(drop)
        }
        Act::DeclareExchange(name) => {
            let options = ExchangeDeclareOptions::default();
            channel
                .exchange_declare(name.into(), ExchangeKind::Topic, options, none())
                .await
        }
        Act::DeleteExchange(name) => {
            channel
                .exchange_delete(name.into(), ExchangeDeleteOptions::default())
                .await
        }
        Act::Bind(queue, exchange) => {
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue.into(), exchange.into(), "#".into(), options, none())
                .await
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definitions_are_what_the_bridge_asks_for_and_its_users() {
    let setup = Setup::new("amqp://guest:guest@127.0.0.1:1/%2f");
    // The default, and not that of the tests.
    setup.set("delivery.retry_delay", "30s");
    let exported = setup.call(&["topology", "--format", "definitions"]).await;
    assert_eq!(exported.code, Some(0), "{}", exported.err);
    let exported: Value = serde_json::from_str(&exported.out).unwrap();
    let mut shipped: Value = serde_json::from_str(&project_file(DEFINITIONS)).unwrap();
    let queues = shipped["queues"].as_array_mut().unwrap();
    let theirs = queues.pop().unwrap();
    assert_eq!(theirs["name"], QUEUE, "the subscriber's queue is the last");
    for kind in ["exchanges", "queues", "bindings"] {
        assert_eq!(
            shipped[kind], exported[kind],
            "{DEFINITIONS} is out of date: take {kind} over from `hookbridge topology --format definitions`"
        );
    }
}

/// The bridge's user runs the whole line: it takes in, delivers over HTTP and into a subscriber's
/// queue, retries, and puts into its store what failed, whether or not it may declare.
#[tokio::test(flavor = "multi_thread")]
async fn the_bridges_user_can_do_all_of_the_bridges_work_and_nothing_else() {
    let ground = Ground::new();
    let receiver = Receiver::start().await;
    receiver.answer("/failing", Answer::Status(503));
    for declare in [true, false] {
        let setup = Setup::new(&ground.uri("hookbridge"));
        setup.set("broker.declare", declare);
        setup.set("store.url", "sqlite://store.db");
        // What the definitions have: without the right to declare there is no other.
        setup.set(
            "delivery.retry_delay",
            if declare { "300ms" } else { "30s" },
        );
        setup.http_subscriber("fine", &receiver.url("/fine"));
        if declare {
            setup.http_subscriber("failing", &receiver.url("/failing"));
        }
        let target = format!("[amqp]\nqueue = {QUEUE:?}\n");
        let text = format!("id = \"fixit\"\nscope = \"all\"\nevents = [\"*\"]\n{target}");
        setup.subscriber("fixit", &text);
        let program = setup.run_ready().await;
        let file = setup.path("event.json");
        std::fs::write(&file, event("one", &["fixit"]).to_string()).unwrap();
        let sender = Setup::new(&ground.uri("publisher"));
        let published = sender.call(&["publish", file.to_str().unwrap()]).await;
        assert_eq!(published.code, Some(0), "{}", published.err);

        let mut taken = ground.client("fixit").await.receive(QUEUE, 1, SOON).await;
        assert!(taken.pop().unwrap().text().contains("\"final\""));
        let before = usize::from(!declare);
        let arrived = async || (receiver.arrivals_at("/fine").len() > before).then_some(());
        program.watch("the webhook arrives", SOON, arrived).await;
        if declare {
            program.wait_metric("hookbridge_dead_letters", 1.0).await;
            let again = setup.call(&["topology", "--apply"]).await;
            assert_eq!(again.code, Some(0), "{}", again.err);
        }
        let said = program.log_text();
        assert!(!said.contains("ACCESS_REFUSED"), "{said}");
        program.stop().await;
    }
    ground.may_not("hookbridge", &NOBODY).await;
    ground
        .may_not(
            "hookbridge",
            &[Act::Get(QUEUE), Act::Consume(QUEUE), Act::Purge(QUEUE)],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_can_publish_domain_events_and_do_nothing_else() {
    let ground = Ground::new();
    let publish = Act::Publish(EVENTS, "case.status.updated");
    ground.tries("publisher", publish).await.unwrap();
    let came = ground
        .vhost
        .connect()
        .await
        .receive("hookbridge.events", 1, SOON)
        .await;
    assert_eq!(came.len(), 1);
    ground.may_not("publisher", &NOBODY).await;
    ground.may_not("publisher", &BRIDGES).await;
    ground
        .may_not("publisher", &[Act::Get(QUEUE), Act::Consume(QUEUE)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_can_read_its_own_queue_and_do_nothing_else() {
    let ground = Ground::new();
    let all = ground.vhost.connect().await;
    all.publish("", QUEUE, b"{}").await;
    let client = ground.client("fixit").await;
    let channel = client.connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default());
    let mut consumer = consumer.await.unwrap();
    let delivery = timeout(SOON, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    all.wait_for_depth(QUEUE, 0, SOON).await;

    ground.may_not("fixit", &NOBODY).await;
    ground.may_not("fixit", &BRIDGES).await;
    ground
        .may_not("fixit", &[Act::Publish(EVENTS, "case.status.updated")])
        .await;
}

/// The queues of subscribers are limited, so that one that nobody reads does not fill the broker's
/// disk; those of the bridge are not.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_that_of_subscribers_queues_and_of_no_other() {
    let ground = Ground::new();
    let of = |queue: &str| {
        let path = format!("queues/{}/{queue}", ground.vhost.name);
        management::call("GET", &path, &Value::Null).json()
    };
    // The broker tells of a policy some seconds after it has it.
    let limited = async || {
        let theirs = of(QUEUE);
        let definition = &theirs["effective_policy_definition"];
        let limited = theirs["policy"] == "subscribers-queues"
            && definition["overflow"] == "reject-publish"
            && definition["max-length-bytes"] == 1_073_741_824_u64;
        limited.then_some(())
    };
    eventually("the policy is that of the queue", SOON, limited).await;
    for queue in [
        "hookbridge.events",
        "hookbridge.dead",
        "hookbridge.first.slow.03",
    ] {
        assert!(of(queue)["policy"].is_null(), "{queue}");
    }
}
