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
