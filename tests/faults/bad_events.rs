//! Bad events among the good, and forged headers on both: each bad one is kept whole with its reason,
//! each good one is delivered as if it had no headers, and nobody gets what is not theirs.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use lapin::BasicProperties;
use tokio::time::sleep;

use super::{
    cast::Who,
    chance::Chance,
    ledger::{State, forged},
    letters::judge_latency,
    process::Process,
    stage::{Options, RECOVERY, SHUTDOWN, Stage},
};
use crate::support::{
    client::{Client, Message, Published},
    line::SOURCE,
};

mod forgeries;
mod specimens;

use specimens::Becomes;

/// How long the next of what is owed may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the backlog of large events may take.
const BACKLOG: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(50);
/// What a bridge may take with a backlog of large events; it takes a tenth of it without any.
const MOST_MEMORY: u64 = 512 * 1024 * 1024;
/// Lines of log in a minute: each of six reasons is said once in ten seconds, and what is read
/// otherwise than it is written, once for each connection.
const SAID: usize = 40;
const MEGABYTE: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_kept_whole_and_hurt_nobody() {
    among_the_good("bad-events-quick", 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn many_bad_events_are_kept_whole_and_hurt_nobody() {
    among_the_good("bad-events", 800).await;
}

/// What must be found at the end: bodies, and how often with which reason and number of attempts.
#[derive(Default)]
struct Owed(HashMap<Vec<u8>, Vec<(&'static str, &'static str)>>);

impl Owed {
    fn add(&mut self, body: Vec<u8>, reason: &'static str, attempts: &'static str) {
        self.0.entry(body).or_default().push((reason, attempts));
    }

    /// Finds a message among what is owed; says what is wrong with it otherwise. What nobody read is as
    /// it was published.
    fn find(&mut self, message: &Message, read: bool) -> Result<(), String> {
        let header = |name: &str| match message.header(name) {
            Some(text) if read => text,
            _ => String::new(),
        };
        let is = (header("hookbridge-reason"), header("hookbridge-attempts"));
        let words = || {
            let start = &message.body[..message.body.len().min(200)];
            let detail = header("hookbridge-detail");
            format!("{} ({is:?}, {detail})", String::from_utf8_lossy(start))
        };
        if read && forged(message.said().as_bytes()) {
            return Err(format!("something forged is copied: {}", words()));
        }
        let Some(owed) = self.0.get_mut(&message.body) else {
            return Err(format!("not expected there: {}", words()));
        };
        let found = owed
            .iter()
            .position(|(reason, attempts)| is.0 == *reason && is.1 == *attempts);
        let Some(found) = found else {
            return Err(format!("should be {owed:?}: {}", words()));
        };
        owed.swap_remove(found);
        if owed.is_empty() {
            self.0.remove(&message.body);
        }
        Ok(())
    }
}

async fn among_the_good(name: &'static str, count: usize) {
    let options = Options {
        // Retries wait for the large ones, too, as everything else does there.
        late: RECOVERY,
        settings: vec![("source.unknown_events", "reject".into())],
        ..Options::new(name)
    };
    let (stage, bridge) = Stage::ready(options).await;
    let client = Client::connect(&stage.ground.home.amqp_uri("/")).await;
    let mut chance = Chance::new(0, name);
    std::mem::swap(&mut chance, &mut stage.chance.borrow_mut());
    let (mut rejected, mut dead, mut lost) = (Owed::default(), Owed::default(), Owed::default());

    let mut fault = stage.trouble("bad events");
    fault.may_say(SAID);
    let from = Instant::now();
    for number in 0..count {
        let forgery = forgeries::properties(&mut chance);
        if chance.below(8) == 0 {
            let stray = forgeries::stray(&mut chance, number);
            publish(
                &client,
                stray.exchange,
                &stray.key,
                &stray.body,
                stray.properties,
            )
            .await;
            match stray.reason {
                Some(reason) => dead.add(stray.body, reason, stray.attempts),
                None => lost.add(stray.body, "", ""),
            }
            continue;
        }
        let good = (chance.below(4) == 0).then(|| stage.ledger.send());
        let specimen = match good {
            Some(event) => specimens::good(&mut chance, event),
            None => specimens::bad(&mut chance, number),
        };
        publish(&client, SOURCE, specimen.key, &specimen.body, forgery).await;
        if let Some(event) = good {
            stage.ledger.set(event, State::Confirmed);
        }
        if let Becomes::Rejected(reason) = specimen.becomes {
            rejected.add(specimen.body, reason, "");
        }
    }
    find(&stage, &client, "hookbridge.rejected", &mut rejected).await;
    find(&stage, &client, "hookbridge.lost", &mut lost).await;
    find(&stage, &client, "hookbridge.dead", &mut dead).await;
    stage.recovered(fault, &[&bridge]).await;
    // The good ones wait behind the large ones in one queue.
    judge_latency(&stage, &Who::WELL, from, RECOVERY);
    judge_memory(&stage, &bridge);
    stage.finish(vec![bridge]).await.must_hold();
}

async fn publish(client: &Client, exchange: &str, key: &str, body: &[u8], with: BasicProperties) {
    let published = client.publish_with(exchange, key, body, with).await;
    assert_eq!(published, Published::Routed);
}

/// Takes everything out of a queue until all that is owed there is found. Deliveries among it are
/// noted as they are at the end of every run.
async fn find(stage: &Stage, client: &Client, queue: &str, owed: &mut Owed) {
    let mut until = Instant::now() + PATIENCE;
    while !owed.0.is_empty() && Instant::now() < until {
        let Some(message) = client.get(queue).await else {
            sleep(PAUSE).await;
            continue;
        };
        until = Instant::now() + PATIENCE;
        let id = message.properties.message_id().as_ref();
        let id = id.map(ToString::to_string).unwrap_or_default();
        if queue == "hookbridge.dead" && stage.ledger.event_of(&id).is_some() {
            if forged(message.said().as_bytes()) || forged(&message.body) {
                stage
                    .ledger
                    .stranger(format!("{id} is dead with something of its event's"));
            }
            let reason = message.header("hookbridge-reason").unwrap_or_default();
            stage.ledger.dead(&id, reason);
        } else if let Err(wrong) = owed.find(&message, queue != "hookbridge.lost") {
            stage.wrong(format!("{queue}: {wrong}"));
        }
    }
    for (body, owed) in owed.0.iter().take(10) {
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]);
        stage.wrong(format!("not in {queue}: {owed:?}: {start}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_backlog_of_ten_megabyte_events_does_not_fill_the_memory() {
    const LARGE: usize = 60;
    // What comes meanwhile is attempted all at once afterwards, and is not what this is about.
    let options = Options {
        rate: 10,
        ..Options::new("backlog-of-10-mb-events")
    };
    let stage = Stage::new(options).await;
    let first = stage.begin().await;
    let calm = most_memory(&first);
    let mut fault = stage.fault("the bridge is stopped, and 10 MB events come", None);
    // What is published afterwards waits behind them.
    fault.within(BACKLOG);
    stage.keep(first.stop(SHUTDOWN * 2).await);
    let client = Client::connect(&stage.ground.home.amqp_uri("/")).await;
    let mut rejected = Owed::default();
    for number in 0..LARGE {
        let mut body = vec![b' '; 10 * MEGABYTE];
        body[..8].copy_from_slice(format!("{number:08}").as_bytes());
        publish(&client, SOURCE, "large", &body, BasicProperties::default()).await;
        rejected.add(body, "too_large", "");
    }
    // One that its publisher lets expire is kept, too, by the broker itself.
    let expires = BasicProperties::default().with_expiration("1".into());
    publish(&client, SOURCE, "expires", b"expires", expires).await;
    rejected.add(b"expires".to_vec(), "", "");
    fault.cleared();
    let bridge = stage.launch_bridge().await;
    let took = stage.recovered(fault, &[&bridge]).await;
    find(&stage, &client, "hookbridge.rejected", &mut rejected).await;
    stage.remark(format!(
        "{} MB in calm, the backlog took {took:.1?}",
        calm / MEGABYTE as u64
    ));
    judge_memory(&stage, &bridge);
    stage.finish(vec![bridge]).await.must_hold();
}

fn judge_memory(stage: &Stage, bridge: &Process) {
    let most = most_memory(bridge);
    let megabytes = most / MEGABYTE as u64;
    stage.remark(format!("the bridge took {megabytes} MB at most"));
    if most > MOST_MEMORY {
        stage.wrong(format!("the bridge took {megabytes} MB"));
    }
}

/// The most memory that it ever had, in bytes.
fn most_memory(bridge: &Process) -> u64 {
    let path = format!("/proc/{}/status", bridge.program.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}
