//! A broker of the subscribers' own is in trouble: those with a queue there fail twice with the right
//! reason and get what is new once it is well, and nobody else notices anything.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::{
    cast::Who,
    letters::{Because, USUAL, judge_latency, judge_letters},
    stage::{Options, Stage},
};
use crate::support::eventually::SOON;

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(2);
/// Longer than two attempts that run into their timeout, and the delay between them.
const LONGER_THAN_A_RETRY: Duration = Duration::from_secs(7);
const AT_MOST: Duration = Duration::from_secs(8);

/// Everybody on that broker.
const ALL_AWAY: [Who; 4] = [
    Who::AwayWell,
    Who::AwayClosing,
    Who::AwayMissing,
    Who::AwayFull,
];
/// Those who take everything, wherever they are.
const WELL: [Who; 4] = [
    Who::HttpWell,
    Who::HomeWell,
    Who::AwayWell,
    Who::AwayClosing,
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_that_is_down_hurts_only_its_own() {
    let make = async |stage: &Stage| {
        block_in_place(|| stage.ground.away.kill().unwrap());
        stage.ground.away_line.refuse().await;
    };
    let undo = async |stage: &Stage| {
        block_in_place(|| stage.ground.away.restart().unwrap());
        stage.ground.away_line.forward().await;
    };
    in_trouble("away-broker-down", 2, &both(&["connect"]), make, undo).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_that_blocks_hurts_only_its_own() {
    let set = |stage: &Stage, share: &str| {
        let command = ["set_vm_memory_high_watermark", share];
        block_in_place(|| stage.ground.away.rabbitmqctl(&command).unwrap());
    };
    let make = async |stage: &Stage| set(stage, "0.0000001");
    let undo = async |stage: &Stage| set(stage, "0.6");
    in_trouble("away-broker-blocked", 2, &both(&["blocked"]), make, undo).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_that_refuses_the_password_hurts_only_its_own() {
    // The attempts on the connections that are cut fail as `connect`.
    let because: &[&str] = &["access_refused", "connect"];
    let make = async |stage: &Stage| {
        away(stage, &["change_password", "guest", "another"]);
        stage.ground.away_line.cut();
    };
    let undo = async |stage: &Stage| away(stage, &["change_password", "guest", "guest"]);
    in_trouble("away-password-changed", 2, &both(because), make, undo).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_without_channels_for_us_hurts_only_its_own() {
    let limit = r#"{"max-channels": 0}"#;
    in_trouble(
        "away-out-of-channels",
        2,
        &both(&["connect"]),
        limited(limit),
        unlimited,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_without_connections_for_us_hurts_only_its_own() {
    let limit = r#"{"max-connections": 0}"#;
    let because: &[&str] = &["access_refused", "connect"];
    in_trouble(
        "away-out-of-connections",
        2,
        &both(because),
        limited(limit),
        unlimited,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_queue_that_is_gone_hurts_only_its_own_subscriber() {
    // Nacked while the broker makes the queue.
    let because = [(Who::AwayWell, ["returned", "nacked"].as_slice())];
    let make = async |stage: &Stage| {
        let client = stage.ground.client_of(Who::AwayWell).await;
        // What the queue held would go with it.
        stage.ground.away_line.freeze();
        client.wait_for_depth("away.well", 0, SOON).await;
        client.delete_queue("away.well").await;
        stage.ground.away_line.forward().await;
    };
    let undo = async |stage: &Stage| {
        let client = stage.ground.client_of(Who::AwayWell).await;
        client.declare_quorum("away.well").await;
    };
    in_trouble("away-queue-deleted", 3, &because, make, undo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_closed_hurts_only_its_own_subscriber() {
    closed("away-channel-closed-quick", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_channel_that_is_closed_again_and_again_hurts_only_its_own_subscriber() {
    closed("away-channel-closed", 3).await;
}

/// Every publish to an exchange that does not exist closes its channel.
async fn closed(name: &'static str, times: usize) {
    // Returned between the exchange and its binding. Each publish costs a channel, and those behind it
    // wait for the next one, on a busy machine for too long.
    let reasons = ["channel_closed", "returned", "timeout"].as_slice();
    let because = [(Who::AwayClosing, reasons)];
    let make = async |stage: &Stage| stage.ground.delete_exchange(Who::AwayClosing).await;
    let undo = async |stage: &Stage| stage.ground.open_exchange(Who::AwayClosing).await;
    in_trouble(name, times, &because, make, undo).await;
}

/// Makes a trouble that lasts longer than a retry, and undoes it, as often as told. Those in
/// `because` are hurt, all others are not.
async fn in_trouble(
    name: &'static str,
    times: usize,
    because: &[Because],
    make: impl AsyncFn(&Stage),
    undo: impl AsyncFn(&Stage),
) {
    let hurts = |who: &Who| because.iter().any(|(hurt, _)| hurt == who);
    let mut hurt: Vec<_> = because.iter().map(|(who, _)| *who).collect();
    if hurts(&Who::AwayWell) && hurts(&Who::AwayClosing) {
        // The broker itself is in trouble.
        hurt = ALL_AWAY.to_vec();
    }
    let options = Options {
        hurt,
        guests: vec![Who::AwayClosing],
        ..Options::new(name)
    };
    let (stage, bridge) = Stage::ready(options).await;
    let others: Vec<_> = WELL.into_iter().filter(|who| !hurts(who)).collect();
    for _ in 0..times {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.trouble(name);
        let from = Instant::now();
        make(&stage).await;
        stage.carry_on(LONGER_THAN_A_RETRY, AT_MOST).await;
        undo(&stage).await;
        fault.cleared();
        stage.recovered_for(fault, &[&bridge], &WELL).await;
        judge_latency(&stage, &others, from, USUAL);
    }
    stage.come_to_rest().await;
    judge_letters(&stage, because);
    stage.finish(vec![bridge]).await.must_hold();
}

/// The two on that broker who take everything.
fn both(reasons: &'static [&'static str]) -> [Because; 2] {
    [(Who::AwayWell, reasons), (Who::AwayClosing, reasons)]
}

fn away(stage: &Stage, command: &[&str]) {
    block_in_place(|| stage.ground.away.rabbitmqctl(command).unwrap());
}

/// Limits what may be opened from now on, and closes what the bridge has.
fn limited(limit: &str) -> impl AsyncFn(&Stage) {
    async move |stage: &Stage| {
        away(stage, &["set_user_limits", "guest", limit]);
        stage.ground.away_line.cut();
    }
}

async fn unlimited(stage: &Stage) {
    away(stage, &["clear_user_limits", "guest", "all"]);
}
