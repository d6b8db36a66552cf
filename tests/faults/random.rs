//! Faults at random, one or two at once, for as long as is asked for: `make faults` has three
//! minutes of it, `make soak` half an hour. One bridge lives through it all and is measured; another
//! beside it is killed and stopped.

use std::{env, fmt::Write as _, fs, time::Duration};

use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use super::{
    cast::Who,
    process::Process,
    stage::{Options, SHUTDOWN, Stage},
};

/// What can go wrong, and be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    BrokerKilled,
    LineCut,
    LineFrozen,
    LineRefused,
    ConnectionsClosed,
    Alarm,
    AwayKilled,
    AwayFrozen,
    AwayCut,
    OtherBridgeKilled,
    OtherBridgeStopped,
    Burst,
}

const KINDS: [Kind; 12] = [
    Kind::BrokerKilled,
    Kind::LineCut,
    Kind::LineFrozen,
    Kind::LineRefused,
    Kind::ConnectionsClosed,
    Kind::Alarm,
    Kind::AwayKilled,
    Kind::AwayFrozen,
    Kind::AwayCut,
    Kind::OtherBridgeKilled,
    Kind::OtherBridgeStopped,
    Kind::Burst,
];

/// How long a fault is on: some end before a heartbeat would tell, some long after.
const HOLD: [(Duration, Duration); 3] = [
    (Duration::from_millis(200), Duration::from_secs(1)),
    (Duration::from_secs(1), Duration::from_secs(6)),
    (Duration::from_secs(6), Duration::from_secs(26)),
];
/// Load without a fault, between two.
const QUIET: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(6));
/// How long after a fault the bridge is measured.
const CALM: Duration = Duration::from_secs(45);
/// A flood beside the steady load.
const BURST: usize = 1_500;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "four minutes: make faults"]
async fn faults_at_random_together_lose_nothing() {
    run("at-random-together", Duration::from_mins(3)).await;
}

/// The soak: `make soak`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour: make soak"]
async fn a_long_time_of_faults_loses_nothing_and_leaks_nothing() {
    let minutes = env::var("SOAK_MINUTES").map_or(30, |minutes| minutes.parse().unwrap());
    run("soak", Duration::from_mins(minutes)).await;
}

async fn run(name: &'static str, time: Duration) {
    let options = Options {
        hurt: vec![Who::AwayWell, Who::AwayMissing, Who::AwayFull],
        ..Options::booting(name)
    };
    let (stage, bridge) = Stage::ready(options).await;
    let mut other = stage.start_bridge().await;
    let mut held = vec![Held::at_rest(&stage, &bridge, "start").await];
    stage.start_load();
    let began = Instant::now();
    let mut half = false;
    while began.elapsed() < time {
        stage.carry_on(QUIET.0, QUIET.1).await;
        let kinds = some_kinds(&stage);
        let mut fault = stage.fault(format!("{kinds:?}"), None);
        println!("{:.0?}: {kinds:?}", began.elapsed());
        for kind in &kinds {
            other = make(*kind, &stage, other).await;
        }
        let (least, most) = *stage.chance.borrow_mut().pick(&HOLD);
        stage.carry_on(least, most).await;
        for kind in &kinds {
            clear(*kind, &stage).await;
        }
        fault.cleared();
        stage.recovered(fault, &[&bridge, &other]).await;
        stage.take_what_ended().await;
        if !half && began.elapsed() > time / 2 {
            half = true;
            held.push(Held::at_rest(&stage, &bridge, "middle").await);
            stage.start_load();
        }
    }
    held.push(Held::at_rest(&stage, &bridge, "end").await);
    let table = table(&held);
    println!("{table}");
    fs::write(
        format!("{}/{name}.held.md", env!("CARGO_TARGET_TMPDIR")),
        table,
    )
    .unwrap();
    for what in growth(&held) {
        stage.wrong(what);
    }
    stage.finish(vec![bridge, other]).await.must_hold();
}

/// One kind of fault, or two.
fn some_kinds(stage: &Stage) -> Vec<Kind> {
    let mut chance = stage.chance.borrow_mut();
    let mut kinds = vec![*chance.pick(&KINDS)];
    if chance.below(2) == 0 {
        let second = *chance.pick(&KINDS);
        let same_bridge = [Kind::OtherBridgeKilled, Kind::OtherBridgeStopped];
        if !kinds.contains(&second) && !(same_bridge.contains(&second)) {
            kinds.push(second);
        }
    }
    kinds
}

/// Lets it happen; returns the other bridge, or its successor.
async fn make(kind: Kind, stage: &Stage, other: Process) -> Process {
    let ground = &stage.ground;
    match kind {
        Kind::BrokerKilled => block_in_place(|| ground.home.kill().unwrap()),
        Kind::LineCut => ground.home_line.cut(),
        Kind::LineFrozen => ground.home_line.freeze(),
        Kind::LineRefused => ground.home_line.refuse().await,
        Kind::ConnectionsClosed => block_in_place(|| {
            // The broker may be down by another fault.
            let _ = ground
                .home
                .rabbitmqctl(&["close_all_connections", "a fault"]);
        }),
        Kind::Alarm => block_in_place(|| {
            let _ = ground
                .home
                .rabbitmqctl(&["set_vm_memory_high_watermark", "0.000001"]);
        }),
        Kind::AwayKilled => block_in_place(|| ground.away.kill().unwrap()),
        Kind::AwayFrozen => ground.away_line.freeze(),
        Kind::AwayCut => ground.away_line.cut(),
        Kind::OtherBridgeKilled => {
            stage.keep(other.kill().await);
            return stage.launch_bridge().await;
        }
        Kind::OtherBridgeStopped => {
            let remains = other.stop(SHUTDOWN * 2).await;
            if remains.code != Some(0) {
                stage.wrong(format!("a stop ended with {:?}", remains.code));
            }
            stage.keep(remains);
            return stage.launch_bridge().await;
        }
        Kind::Burst => stage.burst(BURST).await,
    }
    other
}

/// Undoes it.
async fn clear(kind: Kind, stage: &Stage) {
    let ground = &stage.ground;
    match kind {
        Kind::BrokerKilled => block_in_place(|| ground.home.restart().unwrap()),
        Kind::LineFrozen | Kind::LineRefused => ground.home_line.forward().await,
        Kind::Alarm => block_in_place(|| {
            // A broker that was killed meanwhile comes back without the alarm.
            let _ = ground
                .home
                .rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]);
        }),
        Kind::AwayKilled => block_in_place(|| ground.away.restart().unwrap()),
        Kind::AwayFrozen => ground.away_line.forward().await,
        Kind::LineCut
        | Kind::ConnectionsClosed
        | Kind::AwayCut
        | Kind::OtherBridgeKilled
        | Kind::OtherBridgeStopped
        | Kind::Burst => {}
    }
}

/// What a bridge holds while it has nothing to do: what is more than before is not in use.
struct Held {
    when: &'static str,
    kilobytes: f64,
    tasks: f64,
    threads: f64,
    descriptors: f64,
    /// As the brokers count them.
    connections: usize,
    channels: usize,
}

impl Held {
    /// Measures once every delivery is somewhere, and after a while more without faults: what waited
    /// for connections that were lost has given up by then.
    async fn at_rest(stage: &Stage, bridge: &Process, when: &'static str) -> Self {
        stage.come_to_rest().await;
        sleep(CALM).await;
        let metrics = bridge.program.metrics().await;
        let value = |name: &str| metrics.get(name).copied().unwrap_or(f64::NAN);
        let count = |what: &str| -> usize {
            let list = |node: &hookbridge::cli::demo::node::PrivateNode| {
                node.rabbitmqctl(&[what, "pid"]).unwrap().lines().count()
            };
            block_in_place(|| list(&stage.ground.home) + list(&stage.ground.away))
        };
        Self {
            when,
            kilobytes: value("process_resident_memory_bytes") / 1024.0,
            tasks: value("hookbridge_tasks"),
            threads: value("process_threads"),
            descriptors: value("process_open_fds"),
            connections: count("list_connections"),
            channels: count("list_channels"),
        }
    }

    fn row(&self) -> [f64; 6] {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let [connections, channels] = [self.connections as f64, self.channels as f64];
        [
            self.kilobytes,
            self.tasks,
            self.threads,
            self.descriptors,
            connections,
            channels,
        ]
    }
}

const HEADS: [&str; 6] = [
    "memory (KiB)",
    "tasks",
    "threads",
    "descriptors",
    "connections",
    "channels",
];
/// What may be added between the middle and the end, beyond a tenth: a channel may idle at one of
/// these moments and be closed at the other.
const SLACK: [f64; 6] = [4096.0, 20.0, 4.0, 20.0, 2.0, 4.0];

fn table(held: &[Held]) -> String {
    let mut table = format!(
        "| when | {} |\n|{}\n",
        HEADS.join(" | "),
        " --- |".repeat(7)
    );
    for held in held {
        let row = held.row().map(|value| format!("{value:.0}"));
        let _ = writeln!(table, "| {} | {} |", held.when, row.join(" | "));
    }
    table
}

/// What has grown since the middle, when every kind of fault had happened.
fn growth(held: &[Held]) -> Vec<String> {
    let [.., middle, end] = held else {
        return vec!["nothing was measured".to_owned()];
    };
    let (middle, end) = (middle.row(), end.row());
    (0..HEADS.len())
        .filter(|at| end[*at].is_nan() || end[*at] > middle[*at] * 1.1 + SLACK[*at])
        .map(|at| format!("{} grew from {} to {}", HEADS[at], middle[at], end[at]))
        .collect()
}
