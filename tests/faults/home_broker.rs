//! The home broker goes away and comes back: nothing is lost, and the bridge goes on by itself.

use std::time::Duration;

use tokio::task::block_in_place;

use super::stage::{Options, Stage};

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(3);
/// How soon the bridge must notice that its connection is gone.
const NOTICE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing() {
    killed("broker-killed-quick", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_broker_killed_ten_times_loses_nothing() {
    killed("broker-killed", 10).await;
}

async fn killed(name: &'static str, times: usize) {
    let (stage, bridge) = Stage::ready(Options::booting(name)).await;
    for _ in 0..times {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.fault("the home broker is killed", Some(NOTICE));
        block_in_place(|| stage.ground.home.kill().unwrap());
        stage.carry_on(LEAST, MOST).await;
        fault.clearing();
        block_in_place(|| stage.ground.home.restart().unwrap());
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_whose_app_is_stopped_loses_nothing() {
    let (stage, bridge) = Stage::ready(Options::booting("app-stopped")).await;
    let home = &stage.ground.home;
    for _ in 0..6 {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.fault("the home broker's app is stopped", Some(NOTICE));
        block_in_place(|| home.rabbitmqctl(&["stop_app"]).unwrap());
        fault.in_force();
        stage.carry_on(LEAST, MOST).await;
        fault.clearing();
        block_in_place(|| home.rabbitmqctl(&["start_app"]).unwrap());
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}
