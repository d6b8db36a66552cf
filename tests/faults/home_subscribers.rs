//! Subscribers on the home broker in trouble: one whose queue never confirms, one that the bridge may
//! not write to, one without its exchange. The others' deliveries go on as if nothing were.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::{
    cast::Who,
    letters::{USUAL, judge_latency, judge_letters},
    stage::{Options, Stage},
};

const TROUBLED: [Who; 3] = [Who::HomeStuck, Who::HomeDenied, Who::HomeGone];
/// What the bridge's user may write to: everything, or everything but one exchange.
const ALL: &str = ".*";
const DENIED: &str = r"^(?!home\.denied$).*";
/// The trouble lasts between these.
const LEAST: Duration = Duration::from_secs(25);
const MOST: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn neighbours_in_trouble_on_the_home_broker_hurt_nobody_else() {
    let options = Options {
        hurt: TROUBLED.to_vec(),
        guests: TROUBLED.to_vec(),
        ..Options::new("home-subscribers-in-trouble")
    };
    let stage = Stage::new(options).await;
    // From the beginning: a channel remembers what it was allowed.
    may_write(&stage, DENIED);
    let bridge = stage.begin().await;
    let mut fault = stage.trouble("three neighbours are in trouble");
    let from = Instant::now();
    tell_stuck(&stage, "suspend");
    stage.ground.delete_exchange(Who::HomeGone).await;
    stage.carry_on(LEAST, MOST).await;

    // Each is reached again as soon as its own trouble is over.
    may_write(&stage, ALL);
    fault.cleared();
    stage
        .recovered_for(fault, &[&bridge], &[Who::HomeDenied])
        .await;
    let mut fault = stage.trouble("an exchange is missing");
    stage.ground.open_exchange(Who::HomeGone).await;
    fault.cleared();
    stage
        .recovered_for(fault, &[&bridge], &[Who::HomeGone])
        .await;
    let mut fault = stage.trouble("a queue confirms nothing");
    tell_stuck(&stage, "resume");
    fault.cleared();
    stage
        .recovered_for(fault, &[&bridge], &[Who::HomeStuck])
        .await;
    judge_latency(&stage, &Who::WELL, from, USUAL);

    stage.come_to_rest().await;
    let because: [(Who, &[&str]); 3] = [
        (Who::HomeStuck, &["timeout"]),
        (Who::HomeDenied, &["access_refused"]),
        // Returned between the exchange and its binding.
        (Who::HomeGone, &["channel_closed", "returned"]),
    ];
    judge_letters(&stage, &because);
    stage.finish(vec![bridge]).await.must_hold();
}

fn may_write(stage: &Stage, what: &str) {
    let command = ["set_permissions", "-p", "/", "guest", ALL, what, ALL];
    block_in_place(|| stage.ground.home.rabbitmqctl(&command).unwrap());
}

/// A quorum queue whose process is suspended takes everything and answers nothing, as one does
/// without a quorum.
fn tell_stuck(stage: &Stage, what: &str) {
    let eval = format!("sys:{what}('%2F_home.stuck').");
    let said = block_in_place(|| stage.ground.home.rabbitmqctl(&["eval", &eval]).unwrap());
    assert_eq!(said.trim(), "ok");
}
