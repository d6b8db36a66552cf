//! A bridge that crashes as often as it starts, each time with everything in its hands that it may
//! hold: nothing leaves its queue by being delivered again and again, on brokers with a limit of
//! their own (20 since 4.0) neither.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use hookbridge::{
    broker::topology::Topology,
    cli::demo::node::{NodeOptions, PrivateNode},
};
use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::AMQPValue,
};
use tokio::task::{block_in_place, spawn_blocking};

use super::{account::Account, report::Report};
use crate::support::{
    client::Client,
    eventually::{SOON, eventually},
    http::{Answer, Receiver},
    line::{SOURCE, webhook_id},
    program::{EVENT_KEY, START, Setup, event},
};

mod endpoint;

use endpoint::Endpoint;

/// What a fast lane's consumer may hold.
const LANE: u32 = 128;
/// `source.prefetch`, by default.
const EVENTS: u32 = 1_000;
/// `delivery.max_in_flight_per_subscriber`, by default.
const IN_FLIGHT: usize = 64;
/// How long everything may take once nothing is in its way.
const PATIENCE: Duration = Duration::from_mins(1);
/// What is moved on stays where it can be seen.
const RETRY_DELAY: Duration = Duration::from_hours(1);
/// The queue of the subscriber on the home broker.
const THEIRS: &str = "theirs";

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_moves_nothing_on() {
    crash_loop("crash-loop-quick", 25).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three minutes: make faults"]
async fn two_hundred_crashes_move_nothing_on() {
    crash_loop("crash-loop", 200).await;
}

async fn crash_loop(name: &'static str, times: usize) {
    let began = Instant::now();
    let ground = Ground::new().await;
    let waiting = ground.fill_a_lane().await;
    ground.publish(0..EVENTS, "waits").await;
    // Intake takes the events and cannot publish what it makes of them.
    ground.rabbitmqctl(&["set_vm_memory_high_watermark", "0.0000001"]);
    for _ in 1..times {
        ground.crash(&waiting).await;
    }
    let counts = [
        ground.delivered_before("hookbridge.events").await,
        ground.delivered_before(&waiting.lane).await,
    ];
    for fewest in counts.iter().map(|count| count.0) {
        assert!(
            fewest + 1 >= times,
            "{counts:?}: not everything was held each time"
        );
    }
    // The alarm is over just after the last crash, when the broker cannot know yet that nobody is there.
    ground.crash(&waiting).await;
    let unread = ground.unread();
    ground.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]);
    ground.endpoint.well.store(true, Ordering::Relaxed);
    let cleared = Instant::now();
    ground.finish(&waiting).await;
    let cleared = cleared.elapsed();
    let account = ground.account(&unread).await;
    let version = block_in_place(|| ground.node.rabbitmqctl(&["version"]).unwrap());
    let report = Report {
        name,
        version,
        seed: 0,
        took: began.elapsed(),
        account,
        interruptions: times,
        recoveries: Vec::new(),
        log: Vec::new(),
        delays_promised: true,
        notes: vec![
            format!(
                "delivered before: events {:?} times, deliveries {:?}",
                counts[0], counts[1]
            ),
            format!("everything was delivered {cleared:.1?} after the alarm"),
            format!("connections of dead bridges: {unread:?}"),
        ],
        wrong: Vec::new(),
    };
    report.must_hold();
}

/// Deliveries that wait for an endpoint that hangs.
struct Waiting {
    lane: String,
    count: u32,
}

/// Connections that a bridge had published on when it was killed, and that the broker, blocking its
/// publishers, does not read: what is left on them is read when the alarm is over, unless the broker
/// finds out before that nobody is there. So each of them may make one more copy of a delivery.
#[derive(Debug)]
struct Unread {
    to_lanes: usize,
    to_subscribers: usize,
}

struct Ground {
    node: PrivateNode,
    client: Client,
    http: Receiver,
    endpoint: Arc<Endpoint>,
    setup: Setup,
    topology: Topology,
}

impl Ground {
    async fn new() -> Self {
        let start = || PrivateNode::start(&NodeOptions::default()).unwrap();
        let node = spawn_blocking(start).await.unwrap();
        let uri = node.amqp_uri("/");
        let client = Client::connect(&uri).await;
        client.declare_quorum(THEIRS).await;
        let http = Receiver::forgetful().await;
        let setup = Setup::new(&uri);
        setup.set("delivery.retry_delay", "1h");
        // Nothing times out meanwhile, however slow the machine is.
        setup.set("delivery.timeout", "4m");
        setup.set("delivery.shutdown_timeout", "5m");
        let waits = |name: &str, target: &str| {
            let who = format!("id = {name:?}\nparty = \"waits\"\nevents = [\"*\"]\n");
            setup.subscriber(name, &format!("{who}{target}\n"));
        };
        waits("waits", &format!("[http]\nurl = {:?}", http.url("/hook")));
        waits("queued", &format!("[amqp]\nqueue = {THEIRS:?}"));
        let ground = Self {
            topology: Topology::new("hookbridge", SOURCE, &["#".to_owned()], RETRY_DELAY),
            endpoint: Arc::default(),
            node,
            client,
            http,
            setup,
        };
        ground.hangs("");
        ground
    }

    /// Writes the file of the subscriber whose endpoint hangs, with these lines.
    fn hangs(&self, lines: &str) {
        let url = self.http.url("/hook");
        let text = format!(
            "id = \"hangs\"\nparty = \"hangs\"\nevents = [\"*\"]\n{lines}\n[http]\nurl = {url:?}\n"
        );
        self.setup.subscriber("hangs", &text);
    }

    fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        block_in_place(|| self.node.rabbitmqctl(arguments).unwrap())
    }

    /// How many connections of dead bridges the broker blocks, and has not read to their end.
    fn unread(&self) -> Unread {
        let listed = self.rabbitmqctl(&["list_connections", "state", "client_properties"]);
        let blocked = |name: &str| {
            let is = |line: &&str| line.starts_with("blocked") && line.contains(name);
            listed.lines().filter(is).count()
        };
        // Each name is in quotes.
        Unread {
            to_lanes: blocked(" publish\""),
            to_subscribers: blocked(" publish to subscribers\""),
        }
    }

    /// Publishes events for a party, over a connection of its own: one that has published is blocked
    /// by an alarm.
    async fn publish(&self, numbers: std::ops::Range<u32>, party: &str) {
        let client = Client::connect(&self.node.amqp_uri("/")).await;
        let channel = client.connection.create_channel().await.unwrap();
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.unwrap();
        for number in numbers {
            let body = event(&format!("{party}-{number}"), &[party]).to_string();
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel
                .basic_publish(
                    SOURCE.into(),
                    EVENT_KEY.into(),
                    options,
                    body.as_bytes(),
                    properties,
                )
                .await
                .unwrap();
        }
        channel.wait_for_confirms().await.unwrap();
        client.connection.close(200, "done".into()).await.unwrap();
    }

    /// Lets a bridge make deliveries, and stops it in good order before it has attempted more than a
    /// few of them. From then on the endpoint hangs.
    async fn fill_a_lane(&self) -> Waiting {
        self.hangs("max_in_flight = 1");
        let endpoint = Arc::clone(&self.endpoint);
        let slow = Answer::After(Duration::from_secs(1), Box::new(Answer::Status(200)));
        self.http.answer_with("/hook", move |arrival, _| {
            endpoint.note(arrival, true);
            slow.clone()
        });
        let program = self.setup.run_ready().await;
        self.publish(0..LANE, "hangs").await;
        let accepted = r#"hookbridge_events_total{result="accepted",type="case.status.updated"}"#;
        program.wait_metric(accepted, f64::from(LANE)).await;
        program.stop().await;
        self.hangs("");
        let endpoint = Arc::clone(&self.endpoint);
        self.http.answer_with("/hook", move |arrival, _| {
            let well = endpoint.well.load(Ordering::Relaxed);
            endpoint.note(arrival, well);
            if well {
                Answer::Status(200)
            } else {
                Answer::Hang
            }
        });
        assert_eq!(self.depth("hookbridge.events").await, 0);
        for lane in self.topology.lanes("first") {
            let count = self.depth(lane).await;
            if count > 0 {
                assert!(count as usize > IN_FLIGHT, "{count} wait");
                let lane = lane.to_owned();
                return Waiting { lane, count };
            }
        }
        panic!("nothing waits in any lane");
    }

    async fn depth(&self, queue: &str) -> u32 {
        self.client.depth(queue).await.expect(queue)
    }

    /// Starts a bridge, waits until it holds everything there is, and kills it; waits until all of
    /// that is back.
    async fn crash(&self, waiting: &Waiting) {
        self.endpoint.held.store(0, Ordering::Relaxed);
        let mut program = self.setup.run();
        let taken = async || {
            let held = self.endpoint.held.load(Ordering::Relaxed) >= IN_FLIGHT;
            let empty = held
                && self.depth("hookbridge.events").await == 0
                && self.depth(&waiting.lane).await == 0;
            empty.then_some(())
        };
        program
            .watch("the bridge holds everything", START, taken)
            .await;
        program.signal("KILL");
        program.wait_exit(SOON).await;
        let back = async || {
            for queue in ["rejected", "retry.3600000", "dead", "lost"] {
                let moved = self.depth(&format!("hookbridge.{queue}")).await;
                assert_eq!(moved, 0, "moved on to {queue} by redelivery alone");
            }
            let back = self.depth("hookbridge.events").await == EVENTS
                && self.depth(&waiting.lane).await == waiting.count;
            back.then_some(())
        };
        eventually("everything is back in its queue", SOON, back).await;
    }

    /// How often each message of a queue was delivered before, by the broker's own count: the fewest
    /// and the most. They go back where they were.
    async fn delivered_before(&self, queue: &str) -> (usize, usize) {
        let channel = self.client.connection.create_channel().await.unwrap();
        let mut counts = Vec::new();
        while let Some(got) = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .unwrap()
        {
            assert!(got.delivery.redelivered);
            counts.push(count(&got.delivery.properties));
        }
        channel.close(200, "done".into()).await.unwrap();
        (*counts.iter().min().unwrap(), *counts.iter().max().unwrap())
    }

    /// Lets a bridge do all of it in peace.
    async fn finish(&self, waiting: &Waiting) {
        let program = self.setup.run_ready().await;
        for (transport, count) in [("http", EVENTS + waiting.count), ("amqp", EVENTS)] {
            let series = format!(
                r#"hookbridge_attempts_total{{attempt="1",result="delivered",transport="{transport}"}}"#
            );
            // More would be deliveries that were made twice: the account tells.
            let made = async || {
                let made = program.metrics().await.get(&series).copied()?;
                (made >= f64::from(count)).then_some(())
            };
            program
                .watch(&format!("{series} = {count}"), PATIENCE, made)
                .await;
        }
        program.stop().await;
        for (_, queue) in self.topology.groups() {
            assert_eq!(self.depth(queue).await, 0, "{queue}");
        }
    }

    /// Every delivery is there, as a first attempt; and once, but for copies that the broker had not
    /// read from a dead bridge.
    async fn account(&self, unread: &Unread) -> Account {
        let mut account = Account {
            events: (EVENTS + LANE) as usize,
            pairs: (2 * EVENTS + LANE) as usize,
            ..Account::default()
        };
        let requests = self.endpoint.requests.lock().unwrap().clone();
        for (party, count, unread) in [("hangs", LANE, 0), ("waits", EVENTS, unread.to_lanes)] {
            for number in 0..count {
                let id = webhook_id("/tests", &format!("{party}-{number}"), party);
                let requests = requests.get(&id).map_or(&[][..], Vec::as_slice);
                let answered = requests.iter().filter(|request| request.1).count();
                account.delivered += answered.min(1);
                account.missing += usize::from(answered == 0);
                // What was held when the bridge was killed comes again; what was answered does not.
                account.unexplained += requests.iter().filter(|r| r.0 != "1").count();
                account.repeats += requests.len() - answered;
                copies(&mut account, answered, unread);
            }
        }
        let mut queued: HashMap<_, usize> = HashMap::new();
        for message in self.client.drain(THEIRS).await {
            assert_eq!(message.header("webhook-attempt").as_deref(), Some("1"));
            *queued.entry(message.header("webhook-id")).or_default() += 1;
        }
        for count in queued.values() {
            copies(&mut account, *count, unread.to_subscribers);
        }
        account.delivered += queued.len();
        account.missing += EVENTS as usize - queued.len();
        account
    }
}

/// Counts what came of one delivery, of which there may be one copy more for each connection unread.
fn copies(account: &mut Account, count: usize, unread: usize) {
    let more = count.saturating_sub(1);
    account.repeats += more.min(unread);
    account.unexplained += more.saturating_sub(unread);
}

/// How often the broker has delivered this message before. Brokers differ on what they count in
/// which of the two.
fn count(properties: &BasicProperties) -> usize {
    let headers = properties.headers().as_ref();
    let number = |name: &str| match headers?.inner().get(name)? {
        AMQPValue::LongLongInt(number) => usize::try_from(*number).ok(),
        AMQPValue::LongInt(number) => usize::try_from(*number).ok(),
        AMQPValue::LongUInt(number) => usize::try_from(*number).ok(),
        other => panic!("{name} is {other:?}"),
    };
    let counts = ["x-delivery-count", "x-acquired-count"].map(number);
    counts.into_iter().flatten().max().unwrap_or_default()
}
