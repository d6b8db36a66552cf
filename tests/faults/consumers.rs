//! A queue that the bridge consumes from is deleted while it is empty: its consumer is cancelled, and
//! the bridge declares it anew and consumes again.

use std::time::Duration;

use tokio::task::block_in_place;

use super::{
    cast::Who,
    leaders::lane,
    ledger::State,
    own_user,
    process::Process,
    stage::{Fault, Options, Stage},
};

const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(4);
const TIMES: usize = 3;
const SOON: Duration = Duration::from_secs(10);

/// What is published meanwhile is in `lost`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn lanes_that_are_deleted_come_back() {
    let options = Options {
        queues_deleted: true,
        ..Options::new("lane-deleted")
    };
    let (stage, bridge) = Stage::ready(options).await;
    let lanes = [
        lane("first", Who::HttpWell),
        lane("first", Who::AwayWell),
        lane("second", Who::HttpMoody),
    ];
    for _ in 0..TIMES {
        stage.carry_on(LEAST, MOST).await;
        stage.come_to_rest().await;
        let mut fault = stage.fault("three lanes are deleted", None);
        for lane in &lanes {
            own_user::delete_queue(&stage, lane);
        }
        fault.cleared();
        stage.start_load();
        for lane in &lanes {
            noticed(&stage, &bridge, &fault, lane).await;
        }
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// Nothing is published until the bridge is ready again, and everything from then on arrives: it is
/// not ready before the queue is bound.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn an_events_queue_that_is_deleted_comes_back() {
    let (stage, bridge) = Stage::ready(Options::new("events-deleted")).await;
    for time in 0..2 * TIMES {
        stage.carry_on(LEAST, MOST).await;
        stage.come_to_rest().await;
        let mut fault = stage.fault("the events queue is deleted", None);
        if !time.is_multiple_of(2) {
            // Another consumer brings the topology back at the same time.
            own_user::delete_queue(&stage, &lane("first", Who::HttpWell));
            stage
                .carry_on(Duration::ZERO, Duration::from_millis(300))
                .await;
        }
        own_user::delete_queue(&stage, "hookbridge.events");
        fault.cleared();
        noticed(&stage, &bridge, &fault, "hookbridge.events").await;
        let ready = async || bridge.ready().then_some(());
        let what = "the bridge consumes events again";
        bridge.program.watch(what, SOON, ready).await;
        stage.start_load();
        stage.recovered(fault, &[&bridge]).await;
    }
    let unrouted = {
        let book = stage.ledger.book();
        let events = book.events.iter();
        events
            .filter(|event| event.state == State::Uncertain)
            .count()
    };
    if unrouted > 0 {
        stage.wrong(format!(
            "{unrouted} events found no queue while the bridge was ready"
        ));
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// Waits until `/readyz` has said that the consumer of a deleted queue is not there, or it consumes
/// from the new one already: `/readyz` is asked ten times a second, which may be too seldom.
async fn noticed(stage: &Stage, bridge: &Process, fault: &Fault, queue: &str) {
    let reason = format!("consumer of {queue}");
    let noticed = async || {
        let samples = bridge.samples();
        let mut since = samples.iter().filter(|sample| sample.asked >= fault.from());
        let said = since.any(|sample| sample.status == 503 && sample.words.contains(&reason));
        (said || consumers(stage, queue) > 0).then_some(())
    };
    let what = format!("'{reason}' in /readyz, or it is there again");
    bridge.program.watch(&what, SOON, noticed).await;
}

/// How many consumers a queue has; none if there is no such queue.
fn consumers(stage: &Stage, queue: &str) -> usize {
    let list = ["-q", "list_queues", "name", "consumers"];
    let listed = block_in_place(|| stage.ground.home.rabbitmqctl(&list).unwrap());
    let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
    let found = lines.find(|(name, _)| *name == queue);
    found.map_or(0, |(_, consumers)| consumers.parse().unwrap())
}
