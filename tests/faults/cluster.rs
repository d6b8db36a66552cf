//! The home broker is a cluster of three nodes, which the bridge reaches by a load balancer: with two
//! of them everything goes on.

use std::time::Duration;

use tokio::task::block_in_place;

use super::{
    cast::Who,
    ground::ADVISED,
    process::Process,
    stage::{Options, Stage},
};
use crate::support::eventually::{SOON, eventually};

const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(4);
const NODES: [usize; 3] = [0, 1, 2];
/// Without [`ADVISED`]: the broker looks every three minutes, and moves what was refused three minutes
/// before, so that twice the time may pass.
const UNADVISED_PATIENCE: Duration = Duration::from_mins(7);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three minutes: make faults"]
async fn nodes_of_a_cluster_killed_at_random_lose_nothing() {
    let (stage, bridge) = begin("cluster-node-killed").await;
    for _ in 0..6 {
        let node = *stage.chance.borrow_mut().pick(&NODES);
        killed(&stage, &bridge, node).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_cluster_whose_leader_is_killed_loses_nothing() {
    let (stage, bridge) = begin("cluster-leader-killed").await;
    for queue in ["events", "first.fast.00", "retry.2000", "dead"] {
        let cluster = stage.ground.home.as_cluster();
        let queue = format!("hookbridge.{queue}");
        let leader = async || block_in_place(|| cluster.leader_of("/", &queue));
        let leader = eventually("the queue has a leader", SOON, leader).await;
        killed(&stage, &bridge, leader).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// Retries come late on brokers as they are by default, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "eight minutes: make faults"]
async fn a_cluster_by_default_loses_nothing_when_leaders_are_cut_off() {
    let options = Options {
        patience: UNADVISED_PATIENCE,
        ..options("cluster-by-default")
    };
    let (stage, bridge) = begin_with(options, None).await;
    for node in NODES {
        cut_off(&stage, &bridge, node).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_rolling_restart_of_a_cluster_loses_nothing() {
    let (stage, bridge) = begin("cluster-rolling-restart").await;
    for node in [NODES, NODES].concat() {
        stage.carry_on(LEAST, MOST).await;
        // In good order, as an upgrade does it.
        let stopped = stage.fault(format!("node {node} is stopped"), None);
        block_in_place(|| stage.ground.home.as_cluster().stop(node));
        stage.recovered(stopped, &[&bridge]).await;
        comes_back(&stage, &bridge, node).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three minutes: make faults"]
async fn a_minority_that_is_cut_off_loses_nothing() {
    let (stage, bridge) = begin("cluster-minority-cut-off").await;
    for node in NODES {
        cut_off(&stage, &bridge, node).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_node_that_is_suspended_loses_nothing() {
    let (stage, bridge) = begin("cluster-node-suspended").await;
    for node in NODES {
        stage.carry_on(LEAST, MOST).await;
        let cluster = stage.ground.home.as_cluster();
        let mut fault = stage.fault(format!("node {node} is suspended"), None);
        block_in_place(|| cluster.pause(node));
        stage
            .carry_on(Duration::from_secs(12), Duration::from_secs(15))
            .await;
        block_in_place(|| {
            cluster.resume(node);
            cluster.restart(node).unwrap();
        });
        fault.cleared();
        all_run(&stage).await;
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// A run on brokers that are set up as is advised.
async fn begin(name: &'static str) -> (Stage, Process) {
    begin_with(options(name), Some(ADVISED)).await
}

async fn begin_with(options: Options, advanced: Option<&'static str>) -> (Stage, Process) {
    let stage = Stage::on_cluster(options, advanced).await;
    let bridge = stage.begin().await;
    (stage, bridge)
}

fn options(name: &'static str) -> Options {
    Options {
        rate: 20,
        // Between two leaders a queue refuses messages, which is a failed first attempt there.
        hurt: vec![Who::HomeWell],
        ..Options::new(name)
    }
}

/// A node dies, the two others go on by themselves, and it comes back.
async fn killed(stage: &Stage, bridge: &Process, node: usize) {
    stage.carry_on(LEAST, MOST).await;
    let cluster = stage.ground.home.as_cluster();
    let mut fault = stage.fault(format!("node {node} is killed"), None);
    block_in_place(|| cluster.kill(node));
    fault.cleared();
    stage.recovered(fault, &[bridge]).await;
    comes_back(stage, bridge, node).await;
}

/// A node loses sight of the two others, and finds them again.
async fn cut_off(stage: &Stage, bridge: &Process, node: usize) {
    stage.carry_on(LEAST, MOST).await;
    let cluster = stage.ground.home.as_cluster();
    let mut fault = stage.fault(format!("node {node} is cut off"), None);
    block_in_place(|| cluster.cut_off(node));
    // The two others must do, also for a bridge that is connected to the third.
    fault.cleared();
    stage.recovered(fault, &[bridge]).await;
    let fault = stage.fault(format!("node {node} is let in again"), None);
    block_in_place(|| cluster.heal(node));
    all_run(stage).await;
    stage.recovered(fault, &[bridge]).await;
}

async fn comes_back(stage: &Stage, bridge: &Process, node: usize) {
    let fault = stage.fault(format!("node {node} comes back"), None);
    block_in_place(|| stage.ground.home.as_cluster().restart(node).unwrap());
    all_run(stage).await;
    stage.recovered(fault, &[bridge]).await;
}

async fn all_run(stage: &Stage) {
    let cluster = stage.ground.home.as_cluster();
    let all = async || (block_in_place(|| cluster.running()) == NODES).then_some(());
    eventually("all three nodes run", SOON * 4, all).await;
}
