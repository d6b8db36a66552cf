//! File descriptors run out: of the home broker, and of the bridge, which waits for them.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use super::{
    process::Process,
    stage::{Options, Stage},
};

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(3);
/// How long there are none, at least and at most.
const LASTS: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(11)];
const NOTICE: Duration = Duration::from_secs(1);
/// Fewer than any process has open: what closes cannot be opened again.
const NONE: u64 = 3;

/// The soft limit of a running process on its descriptors. What it has open stays open.
struct Descriptors {
    pid: u32,
    before: u64,
}

impl Descriptors {
    fn of(pid: u32) -> Self {
        let shown = prlimit(pid, &["--nofile", "--output", "SOFT", "--noheadings"]);
        Self {
            pid,
            before: shown.trim().parse().unwrap(),
        }
    }

    /// Leaves no more than it has; what it closes, it can open again.
    fn take(&self) {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        let number = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse().unwrap();
        let open: BTreeSet<u64> = folder.map_while(Result::ok).map(number).collect();
        // A new one gets the lowest free number, which must be below the limit.
        let numbers = 0..=u64::try_from(open.len()).unwrap();
        let free = numbers.into_iter().find(|number| !open.contains(number));
        self.limit(free.unwrap());
    }

    fn limit(&self, limit: u64) {
        prlimit(self.pid, &[&format!("--nofile={limit}:")]);
    }

    fn give_back(&self) {
        self.limit(self.before);
    }
}

fn prlimit(pid: u32, arguments: &[&str]) -> String {
    let mut command = Command::new("prlimit");
    let output = command.args(["--pid", &pid.to_string()]).args(arguments);
    let output = output.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// It takes no connection then, and says nothing: the bridge waits for it as for one that is away.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_without_descriptors_loses_nothing() {
    let (stage, bridge) = Stage::ready(Options::new("broker-descriptors")).await;
    let node = stage.ground.home.pid().unwrap().unwrap();
    let what = "the home broker has no descriptor for a connection";
    none_for_a_connection(&stage, &bridge, &Descriptors::of(node), what).await;
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_bridge_without_descriptors_for_its_home_broker_waits_for_them() {
    let (stage, bridge) = Stage::ready(Options::new("descriptors-disconnected")).await;
    let descriptors = Descriptors::of(bridge.program.pid());
    let what = "the bridge has no descriptor for the home broker";
    none_for_a_connection(&stage, &bridge, &descriptors, what).await;
    stage.finish(vec![bridge]).await.must_hold();
}

/// The connections to the home broker are lost, and there is no descriptor for new ones.
async fn none_for_a_connection(
    stage: &Stage,
    bridge: &Process,
    descriptors: &Descriptors,
    what: &str,
) {
    for _ in 0..3 {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault(what, Some(NOTICE));
        let make = async || {
            descriptors.limit(NONE);
            stage.ground.home_line.cut();
        };
        let undo = async || descriptors.give_back();
        stage.lasting(fault, LASTS, bridge, make, undo).await;
    }
}

/// Connections that there are go on; no attempt that needs a new one fails for want of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_bridge_without_descriptors_waits_for_them() {
    let (stage, bridge) = Stage::ready(Options::new("descriptors")).await;
    let descriptors = Descriptors::of(bridge.program.pid());
    for _ in 0..3 {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault("the bridge has no descriptor left", None);
        let fault = fault.that_repeats_nothing();
        let (make, undo) = (
            async || descriptors.take(),
            async || descriptors.give_back(),
        );
        stage.lasting(fault, LASTS, &bridge, make, undo).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}
