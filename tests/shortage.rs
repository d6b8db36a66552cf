//! What the bridge itself lacks is no subscriber's failure: a process without a free descriptor
//! waits, says so, and goes on by itself.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    process::Command,
    time::Duration,
};

use crate::support::{
    broker::Vhost,
    client::{Client, Published},
    eventually::SOON,
    http::Receiver,
    program::{EVENT_KEY, Program, Setup, event_body},
};

const OUT_OF_DESCRIPTORS: &str = "the bridge itself is out of file descriptors";
const EVENTS: usize = 20;
/// The wait queue: as long as what is in it stays there to be seen.
const RETRY: &str = "hookbridge.retry.600000";

/// The descriptors that a program has open.
fn descriptors(program: &Program) -> BTreeSet<u64> {
    let folder = fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse().unwrap();
    folder.map_while(Result::ok).map(name).collect()
}

/// Limits a running program to descriptors below `limit`; those that it has stay open.
fn limit_descriptors(program: &Program, limit: u64) {
    let set = Command::new("prlimit")
        .args(["--pid", &program.pid().to_string()])
        // The soft limit alone, which can be raised again.
        .arg(format!("--nofile={limit}:"))
        .status();
    assert!(set.unwrap().success(), "prlimit");
}

/// Leaves a program no descriptor more than it has, once it opens and closes none any more.
async fn take_descriptors(program: &Program) {
    let mut before = BTreeSet::new();
    let mut quiet = 0;
    let at_rest = async || {
        let now = descriptors(program);
        if now == before {
            quiet += 1;
        } else {
            quiet = 0;
            // New ones get the lowest free number, so there must be none free below the limit.
            let free = (0..=1024).find(|number| !now.contains(number));
            limit_descriptors(program, free.unwrap());
            before = now;
        }
        // At most a tenth of a second lies between two looks.
        (quiet >= 20).then_some(())
    };
    program.watch("descriptors at rest", SOON, at_rest).await;
}

fn give_descriptors(program: &Program) {
    limit_descriptors(program, 1024);
}

/// Processor time that a program has used, in seconds.
fn processor_time(program: &Program) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |index: usize| fields.split_whitespace().nth(index).unwrap().parse::<f64>();
    // User and system time, of which there are a hundred ticks a second.
    (ticks(11).unwrap() + ticks(12).unwrap()) / 100.0
}

/// Makes the bridge open its connection to publish with, without an attempt: by an event that is
/// rejected.
async fn warm_up(client: &Client) {
    client
        .publish("domain.events", EVENT_KEY, b"no event")
        .await;
    client.wait_for_depth("hookbridge.rejected", 1, SOON).await;
}

async fn publish(client: &Client) {
    for number in 0..EVENTS {
        let body = event_body(&format!("evt-{number}"));
        let published = client.publish("domain.events", EVENT_KEY, &body).await;
        assert_eq!(published, Published::Routed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_free_descriptors_deliveries_wait_and_no_attempt_is_counted() {
    let vhost = Vhost::new("shortage");
    let theirs = Vhost::new("shortage-theirs");
    let receiver = Receiver::start().await;
    let client = vhost.connect().await;
    let outside = theirs.connect().await;
    outside.declare_quorum("webhooks").await;
    let setup = Setup::of(&vhost);
    setup.set("delivery.retry_delay", "10m");
    setup.http_subscriber("address", &receiver.url("/address"));
    let named = receiver.url("/name").replace("127.0.0.1", "localhost");
    setup.http_subscriber("name", &named);
    let broker = |id: &str, uri: &str| {
        let target = format!("[amqp]\nuri = \"{uri}\"\nqueue = \"webhooks\"\n");
        let text = format!("id = \"{id}\"\nscope = \"all\"\nevents = [\"*\"]\n{target}");
        setup.subscriber(id, &text);
    };
    broker("broker", &theirs.uri());
    broker("named", &theirs.uri().replace("127.0.0.1", "localhost"));
    let program = setup.run_ready().await;
    warm_up(&client).await;
    take_descriptors(&program).await;
    let used = processor_time(&program);

    publish(&client).await;
    let first = program.wait_said(OUT_OF_DESCRIPTORS, SOON).await;
    assert!(first.text.contains("LimitNOFILE"), "{}", first.text);
    // Long enough for every delivery to have been tried over and over.
    let again = async || (program.said(OUT_OF_DESCRIPTORS) >= 2).then_some(());
    program.watch("it is said again", SOON, again).await;
    let log = program.log();
    let again = log
        .iter()
        .filter(|line| line.text.contains(OUT_OF_DESCRIPTORS))
        .nth(1);
    let apart = again.unwrap().at - first.at;
    assert!(apart >= Duration::from_secs(9), "{apart:?}");
    let used = processor_time(&program) - used;
    assert!(used < apart.as_secs_f64() / 2.0, "{used} s of processor");
    assert_eq!(program.said("attempt failed"), 0, "{}", program.log_text());
    assert_eq!(client.depth(RETRY).await, Some(0));
    assert_eq!(client.depth("hookbridge.dead").await, Some(0));
    assert_eq!(receiver.arrivals().len(), 0);
    assert_eq!(outside.depth("webhooks").await, Some(0));

    give_descriptors(&program);
    let arrivals = receiver.wait_for(2 * EVENTS, SOON).await;
    // These need a connection first, beside whatever else this machine does.
    let patience = Duration::from_mins(1);
    outside
        .wait_for_depth("webhooks", 2 * u32::try_from(EVENTS).unwrap(), patience)
        .await;
    let attempts: HashSet<_> = arrivals
        .iter()
        .map(|arrival| arrival.header("webhook-attempt").unwrap())
        .collect();
    assert_eq!(attempts, HashSet::from(["1"]));
    let ids: HashSet<_> = arrivals.iter().map(|a| a.header("webhook-id")).collect();
    assert_eq!(ids.len(), 2 * EVENTS, "each once");
    let metrics = attempts_counted(&program).await;
    assert_eq!(metrics, HashMap::from([("delivered".to_owned(), 80.0)]));
    assert_eq!(program.said("attempt failed"), 0, "{}", program.log_text());
    assert_eq!(client.depth(RETRY).await, Some(0));
    assert_eq!(client.depth("hookbridge.dead").await, Some(0));
    program.stop().await;
}

/// The attempts that were counted, by result.
async fn attempts_counted(program: &Program) -> HashMap<String, f64> {
    let mut counted = HashMap::new();
    for (series, value) in program.metrics().await {
        if let Some((_, labels)) = series.split_once("hookbridge_attempts_total{")
            && value > 0.0
        {
            let (_, result) = labels.split_once("result=\"").unwrap();
            let (result, _) = result.split_once('"').unwrap();
            *counted.entry(result.to_owned()).or_default() += value;
        }
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_bridge_waits_for_its_broker_and_its_probes_come_back() {
    let vhost = Vhost::new("shortage");
    let receiver = Receiver::start().await;
    let client = vhost.connect().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("fixit", &receiver.url("/hooks"));
    let program = setup.run_ready().await;
    warm_up(&client).await;
    // Fewer than it has: what closes cannot be opened again.
    limit_descriptors(&program, 3);
    let used = processor_time(&program);
    vhost.close_connections();
    let first = program.wait_said("cannot use the home broker", SOON).await;
    assert!(first.text.contains(OUT_OF_DESCRIPTORS), "{}", first.text);
    // Somebody knocks and is not let in.
    let knocks = tokio::net::TcpStream::connect(program.admin().await).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let used = processor_time(&program) - used;
    assert!(used < 4.0, "{used} s of processor");
    assert_eq!(program.said("home broker"), 3, "{}", program.log_text());

    give_descriptors(&program);
    drop(knocks);
    program.wait_ready().await;
    let client = vhost.connect().await;
    publish(&client).await;
    let arrivals = receiver.wait_for(EVENTS, SOON).await;
    assert_eq!(arrivals.len(), EVENTS);
    assert_eq!(program.said("connected to the home broker"), 2);
    program.stop().await;
}
