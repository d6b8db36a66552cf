//! The bridge is asked to stop while thousands of events wait and everything that it may hold at
//! once is in its hands: it ends in time, and the next one goes on without a repeat.

use std::time::Duration;

use hookbridge::broker::topology::Topology;

use super::{
    load::flood,
    stage::{Options, Stage},
};
use crate::support::{client::Client, line::SOURCE};

/// Events published at once.
const BACKLOG: usize = 2_000;
/// How long the bridge may work on them before it is asked to stop.
const MOST: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three minutes: make faults"]
async fn five_stops_under_full_load_lose_and_repeat_nothing() {
    stopped("stopped-under-load", 5).await;
}

async fn stopped(name: &'static str, times: usize) {
    let options = Options {
        // An endpoint that is well is slow, too, while bridge and brokers share its processors.
        timeout: Duration::from_secs(5),
        ..Options::new(name)
    };
    let stage = Stage::new(options).await;
    let uri = stage.ground.home.amqp_uri("/");
    let home = Client::connect(&uri).await;
    let mut bridge = stage.start_bridge().await;
    let mut stops = Vec::new();
    let mut exits = Vec::new();
    for _ in 0..times {
        loop {
            flood(&uri, BACKLOG, &stage.ledger).await;
            stage.carry_on(Duration::ZERO, MOST).await;
            if full(&home, &stage).await {
                break;
            }
        }
        stops.push(stage.stopping("the bridge is stopped under full load"));
        exits.push(stage.stop(bridge).await);
        bridge = stage.start_bridge().await;
    }
    // The backlog keeps retries waiting, too: as long as there is one, none of them is late.
    stage.come_to_rest().await;
    for stop in &stops {
        stage.over(stop);
    }
    let mut report = stage.finish(vec![bridge]).await;
    report.notes.push(format!("exits after {exits:.1?}"));
    report.must_hold_without_repeats();
}

/// Whether events and first attempts wait although somebody consumes them: they wait only while
/// their consumers hold as many as they may.
async fn full(home: &Client, stage: &Stage) -> bool {
    let bindings = ["#".to_owned()];
    let delay = stage.options.retry_delay;
    let topology = Topology::new("hookbridge", SOURCE, &bindings, delay);
    let mut waiting = 0;
    for lane in topology.lanes("first") {
        waiting += home.depth(lane).await.unwrap_or_default();
    }
    waiting > 0
        && home
            .depth(&topology.events_queue())
            .await
            .unwrap_or_default()
            > 0
}
