//! Memory and disk alarms. On the home broker everything waits, and nothing fails or is repeated; on
//! a subscriber's broker its deliveries fail, and nobody else notices.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hookbridge::cli::demo::node::PrivateNode;
use tokio::{task::block_in_place, time::sleep};

use super::{
    cast::Who,
    ledger::Ledger,
    stage::{Options, Stage},
};

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(3);
/// The bridge learns of an alarm only by publishing.
const NOTICE: Duration = Duration::from_secs(2);
/// Longer than the deadline of any operation, and, the second, than that of a consumer's start.
const HOLDS: [Duration; 2] = [Duration::from_secs(12), Duration::from_secs(35)];
/// Two attempts and the delay between them, and some time to spare.
const TWO_ATTEMPTS: Duration = Duration::from_secs(9);
/// What nine in ten deliveries to others may take meanwhile: half of one attempt that is given up. The
/// tenth may meet a machine that is busy.
const UNDISTURBED: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Alarm {
    Memory,
    Disk,
}

impl Alarm {
    fn raise(self, node: &PrivateNode) {
        Self::command(
            node,
            match self {
                Self::Memory => ["set_vm_memory_high_watermark", "0.0000001"],
                Self::Disk => ["set_disk_free_limit", "900000000000000"],
            },
        );
    }

    fn clear(self, node: &PrivateNode) {
        Self::command(
            node,
            match self {
                Self::Memory => ["set_vm_memory_high_watermark", "0.6"],
                Self::Disk => ["set_disk_free_limit", "50MB"],
            },
        );
    }

    fn command(node: &PrivateNode, command: [&str; 2]) {
        block_in_place(|| node.rabbitmqctl(&command).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_memory_alarm_of_the_home_broker_loses_and_repeats_nothing() {
    at_home("home-memory-alarm", Alarm::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_disk_alarm_of_the_home_broker_loses_and_repeats_nothing() {
    at_home("home-disk-alarm", Alarm::Disk).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_memory_alarm_of_a_subscribers_broker_is_its_own_affair() {
    away("away-memory-alarm", Alarm::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_disk_alarm_of_a_subscribers_broker_is_its_own_affair() {
    away("away-disk-alarm", Alarm::Disk).await;
}

async fn at_home(name: &'static str, alarm: Alarm) {
    let (stage, bridge) = Stage::ready(Options::new(name)).await;
    for (alarms, hold) in (1..).zip(HOLDS) {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault(format!("{alarm:?} alarm at home"), Some(NOTICE));
        let mut fault = fault.that_repeats_nothing();
        alarm.raise(&stage.ground.home);
        fault.in_force();
        sleep(hold).await;
        let words = bridge.samples().pop().unwrap().words;
        assert!(words.contains("blocks publishers"), "/readyz says {words}");
        let said = bridge.program.said("the home broker blocks publishers (");
        assert_eq!(said, alarms, "the log says it once for each alarm");
        fault.clearing();
        alarm.clear(&stage.ground.home);
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

async fn away(name: &'static str, alarm: Alarm) {
    let options = Options {
        // So that two attempts of each find room among what a subscriber may have in flight.
        rate: 12,
        hurt: vec![Who::AwayWell, Who::AwayMissing, Who::AwayFull],
        ..Options::new(name)
    };
    let (stage, bridge) = Stage::ready(options).await;
    let mut alarms = Vec::new();
    for hold in HOLDS {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault(format!("{alarm:?} alarm away"), None);
        let mut fault = fault.that_repeats_nothing();
        alarm.raise(&stage.ground.away);
        let raised = Instant::now();
        sleep(hold).await;
        assert!(bridge.ready(), "the home broker is well");
        alarms.push((raised, Instant::now()));
        alarm.clear(&stage.ground.away);
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    let ledger = Arc::clone(&stage.ledger);
    stage.finish(vec![bridge]).await.must_hold();
    for (raised, cleared) in alarms {
        for who in [Who::HttpWell, Who::HomeWell] {
            let waited = nine_in_ten(&ledger, who, raised, cleared);
            assert!(waited < UNDISTURBED, "{who} waited {waited:?}");
        }
        all_are_dead_as_blocked(&ledger, raised, cleared);
    }
}

/// Within which time nine in ten of the events sent in this time came from publisher to subscriber.
fn nine_in_ten(ledger: &Ledger, who: Who, from: Instant, to: Instant) -> Duration {
    let book = ledger.book();
    let mut times = Vec::new();
    for pair in book.pairs.values().filter(|pair| pair.who == who) {
        let sent = book.events[pair.event].sent;
        if let Some(first) = pair.arrivals.first()
            && (from..to).contains(&sent)
        {
            times.push(first.at - sent);
        }
    }
    times.sort_unstable();
    times[times.len() * 9 / 10]
}

/// Both attempts of what was sent while there was time for them fell into the alarm, but for what
/// waited so long for its turn in a slow lane that the alarm was over: that was delivered after it.
fn all_are_dead_as_blocked(ledger: &Ledger, raised: Instant, cleared: Instant) {
    let book = ledger.book();
    let in_time = raised..cleared.checked_sub(TWO_ATTEMPTS).unwrap();
    let (mut blocked, mut delivered) = (0, 0);
    for pair in book.pairs.values().filter(|pair| pair.who == Who::AwayWell) {
        if in_time.contains(&book.events[pair.event].sent) {
            let reasons: Vec<_> = pair.dead.iter().map(|dead| dead.reason.as_str()).collect();
            let after = pair.arrivals.iter().all(|arrival| arrival.at >= cleared);
            match reasons[..] {
                ["blocked"] if after => blocked += 1,
                [] if pair.delivered && after => delivered += 1,
                _ => panic!("{pair:?}"),
            }
        }
    }
    assert!(
        blocked > 10,
        "only {blocked} dead of an alarm, and {delivered} delivered after it"
    );
}
