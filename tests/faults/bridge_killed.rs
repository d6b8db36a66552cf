//! The bridge is killed, stopped, or one of two: what was in flight is repeated at most, and a stop
//! repeats nothing.

use std::time::Duration;

use super::stage::{Options, Stage};

const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_loses_nothing() {
    killed("bridge-killed-quick", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_bridge_killed_thirty_times_loses_nothing() {
    killed("bridge-killed", 30).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute and a half: make faults"]
async fn a_bridge_stopped_ten_times_loses_and_repeats_nothing() {
    stopped("bridge-stopped", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn one_of_two_bridges_killed_ten_times_loses_nothing() {
    one_of_two_killed("one-of-two-killed", 10).await;
}

async fn killed(name: &'static str, times: usize) {
    let (stage, mut bridge) = Stage::ready(Options::new(name)).await;
    for _ in 0..times {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.fault("the bridge is killed", None);
        stage.keep(bridge.kill().await);
        fault.cleared();
        bridge = stage.launch_bridge().await;
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

async fn stopped(name: &'static str, times: usize) {
    let (stage, mut bridge) = Stage::ready(Options::new(name)).await;
    let mut exits = Vec::new();
    for _ in 0..times {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.stopping("the bridge is stopped");
        exits.push(stage.stop(bridge).await);
        fault.cleared();
        bridge = stage.launch_bridge().await;
        stage.recovered(fault, &[&bridge]).await;
    }
    let mut report = stage.finish(vec![bridge]).await;
    report.notes.push(format!("exits after {exits:.1?}"));
    report.must_hold_without_repeats();
}

/// The other goes on alone, before the killed one is started again.
async fn one_of_two_killed(name: &'static str, times: usize) {
    let (stage, first) = Stage::ready(Options::new(name)).await;
    let mut bridges = vec![first, stage.start_bridge().await];
    for _ in 0..times {
        stage.carry_on(LEAST, MOST).await;
        let victim = *stage.chance.borrow_mut().pick(&[0, 1]);
        let mut fault = stage.fault("one of two bridges is killed", None);
        stage.keep(bridges.remove(victim).kill().await);
        fault.cleared();
        stage.recovered(fault, &[&bridges[0]]).await;
        bridges.push(stage.start_bridge().await);
    }
    stage.finish(bridges).await.must_hold();
}
