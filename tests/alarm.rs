//! A memory alarm of the home broker: everything waits, nothing fails, and when it is over nothing
//! is missing and nothing came twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hookbridge::{
    broker::topology::Topology,
    cli::demo::node::{NodeOptions, PrivateNode},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::support::{
    client::{Client, Published},
    eventually::{SOON, eventually},
    faults::Alarm,
    http::{Answer, Receiver},
    line::{KEY, Line, SOURCE, Setup, event, everything, http, webhook_id},
};

/// Longer than any deadline of the bridge, and than `delivery.timeout` below.
const HOLD: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn failures_wait_for_the_end_of_an_alarm_and_are_attempted_exactly_twice() {
    const EVENTS: usize = 40;
    let node = start().await;
    let receiver = Receiver::start().await;
    // The alarm is raised before the first is answered.
    let (raised, answer) = watch::channel(false);
    let late = Answer::Once(answer, Box::new(Answer::Status(500)));
    receiver.answer_with("/fails", move |_, before| {
        if before < EVENTS {
            late.clone()
        } else {
            Answer::Status(500)
        }
    });
    let subscribers = [everything("fails", &http(&receiver.url("/fails")))];
    let line = Line::start(&node.amqp_uri("/"), &setup(), &subscribers).await;
    for number in 0..EVENTS {
        line.publish(&number.to_string()).await;
    }
    receiver.wait_for(EVENTS, SOON).await;
    Alarm::Memory.raise(&node);
    let failed = |attempt: u32| {
        format!(
            r#"hookbridge_attempts_total{{attempt="{attempt}",result="http_status",transport="http"}}"#
        )
    };
    assert!(
        line.metric(&failed(1)).await < 0.5,
        "the alarm came before the answers"
    );
    let began = Instant::now();
    raised.send_replace(true);

    line.wait_for_metric(&failed(1), 40.0).await;
    says_alarm(&line).await;
    sleep_until(began + HOLD).await;
    assert_eq!(receiver.arrivals().len(), EVENTS, "all of them wait");
    Alarm::Memory.clear(&node);

    let dead = line.dead_letters(EVENTS).await;
    let expected: BTreeMap<String, usize> =
        (0..EVENTS).map(|number| (id("fails", number), 2)).collect();
    let mut attempts = BTreeMap::new();
    for arrival in receiver.arrivals() {
        let id = arrival.header("webhook-id").unwrap().to_owned();
        *attempts.entry(id).or_insert(0) += 1;
    }
    assert_eq!(attempts, expected);
    let ids: BTreeSet<_> = dead
        .iter()
        .map(|letter| letter.properties.message_id().as_ref().unwrap().to_string())
        .collect();
    assert_eq!(ids, expected.into_keys().collect());
    for letter in &dead {
        for name in ["hookbridge-reason", "hookbridge-first-reason"] {
            assert_eq!(letter.header(name).as_deref(), Some("http_status"));
        }
    }
    line.wait_until_ready().await;
    line.wait_for_metric("hookbridge_broker_blocked", 0.0).await;
    let client = Client::connect(&node.amqp_uri("/")).await;
    line.stop().await;
    nothing_is_left(&client).await;
    assert_eq!(receiver.arrivals().len(), 2 * EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_on_the_home_broker_gets_each_webhook_once_although_an_alarm_came_in_between() {
    const EVENTS: usize = 200;
    let node = start().await;
    let client = waiting_events(&node, EVENTS).await;
    client.declare_quorum("theirs").await;
    // The broker itself raises it as soon as the first are there.
    let armed = r#"
        {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"theirs">>)),
        spawn(fun() ->
            Wait = fun Wait() ->
                case rabbit_amqqueue:stat(Queue) of
                    {ok, Ready, _} when Ready >= 20 ->
                        vm_memory_monitor:set_vm_memory_high_watermark(0.0000001);
                    _ -> timer:sleep(1), Wait()
                end
            end,
            Wait()
        end), ok."#;
    node.rabbitmqctl(&["eval", armed]).unwrap();
    let mut setup = setup();
    // So that the events come in many small batches.
    setup.targets.push_str("[source]\nprefetch = 10");
    let subscribers = [everything("queued", "[amqp]\nqueue = \"theirs\"")];
    let line = Line::start_unready(&node.amqp_uri("/"), &setup, &subscribers).await;
    says_alarm(&line).await;
    let raised = Instant::now();
    let came = client.depth("theirs").await.unwrap();
    assert!(
        came < u32::try_from(EVENTS).unwrap(),
        "the alarm came in between"
    );
    sleep_until(raised + HOLD).await;
    Alarm::Memory.clear(&node);

    let delivered = r#"hookbridge_attempts_total{attempt="1",result="delivered",transport="amqp"}"#;
    line.wait_for_metric(delivered, 200.0).await;
    line.wait_until_ready().await;
    line.stop().await;
    each_once(&client, "theirs", "queued", EVENTS).await;
    nothing_is_left(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_starts_during_an_alarm_waits_for_its_end_and_fails_nothing() {
    const EVENTS: usize = 30;
    const EACH: [u32; 3] = [0, 1, 2];
    let node = start().await;
    let client = waiting_events(&node, EVENTS).await;
    let mut subscribers = Vec::new();
    for number in EACH {
        // Those whose queue is made first are late: the others' publishes block the connection.
        client.declare_quorum(&format!("there-{number}")).await;
        for (name, declare) in [("there", false), ("made", true)] {
            let target = format!("[amqp]\nqueue = \"{name}-{number}\"\ndeclare = {declare}");
            subscribers.push(everything(&format!("{name}-{number}"), &target));
        }
    }
    Alarm::Memory.raise(&node);
    let line = Line::start_unready(&node.amqp_uri("/"), &setup(), &subscribers).await;
    says_alarm(&line).await;
    sleep_until(Instant::now() + HOLD).await;
    Alarm::Memory.clear(&node);

    let delivered = r#"hookbridge_attempts_total{attempt="1",result="delivered",transport="amqp"}"#;
    line.wait_for_metric(delivered, 180.0).await;
    line.wait_until_ready().await;
    line.stop().await;
    for number in EACH {
        for name in ["there", "made"] {
            let queue = format!("{name}-{number}");
            each_once(&client, &queue, &queue, EVENTS).await;
        }
    }
    nothing_is_left(&client).await;
}

fn setup() -> Setup {
    Setup {
        retry_delay: Duration::from_millis(500),
        timeout: Duration::from_secs(10),
        ..Setup::default()
    }
}

async fn start() -> PrivateNode {
    let start = || PrivateNode::start(&NodeOptions::default()).unwrap();
    tokio::task::spawn_blocking(start).await.unwrap()
}

/// Makes the topology and publishes events to it, before there is a bridge.
async fn waiting_events(node: &PrivateNode, count: usize) -> Client {
    let client = Client::connect(&node.amqp_uri("/")).await;
    let topology = Topology::new("hookbridge", SOURCE, &["#".to_owned()], setup().retry_delay);
    topology.declare(&client.connection).await.unwrap();
    for number in 0..count {
        let published = client
            .publish(SOURCE, KEY, &event(&number.to_string()))
            .await;
        assert_eq!(published, Published::Routed);
    }
    client
}

/// Waits until the bridge tells of the alarm: as not ready, and as a metric.
async fn says_alarm(line: &Line) {
    let named = async || {
        let (status, words) = line.readiness().await?;
        (status == 503 && words.contains("alarm")).then_some(())
    };
    eventually("/readyz names the alarm", SOON, named).await;
    line.wait_for_metric("hookbridge_broker_blocked", 1.0).await;
}

fn id(subscriber: &str, number: usize) -> String {
    webhook_id("/order-hub", &number.to_string(), subscriber)
}

/// The queue holds the webhook of each event once, as a first attempt.
async fn each_once(client: &Client, queue: &str, subscriber: &str, events: usize) {
    let messages = client.drain(queue).await;
    let ids: BTreeSet<_> = messages
        .iter()
        .map(|message| message.header("webhook-id").unwrap())
        .collect();
    let expected: BTreeSet<_> = (0..events).map(|number| id(subscriber, number)).collect();
    assert_eq!(ids, expected, "{queue}");
    assert_eq!(messages.len(), events, "{queue}: none twice");
    for message in messages {
        assert_eq!(message.header("webhook-attempt").as_deref(), Some("1"));
    }
}

/// Nothing lies in any of the bridge's queues.
async fn nothing_is_left(client: &Client) {
    let topology = Topology::new("hookbridge", SOURCE, &["#".to_owned()], setup().retry_delay);
    for (_, queue) in topology.groups() {
        assert_eq!(client.depth(queue).await, Some(0), "{queue}");
    }
}
