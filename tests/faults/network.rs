//! The network between the bridge and a broker: cut, refused, frozen, half open and slow. A line to
//! the home broker is found dead by its heartbeats; what is only held up is not interrupted at all.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    cast::Who,
    process::{Process, Sample},
    stage::{Options, Stage},
};
use crate::support::proxy::{Slow, Way};

const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(3);
/// How soon the bridge must notice that its connection is closed.
const NOTICE: Duration = Duration::from_secs(1);
/// After two heartbeats of 10 s the line is dead, and the client library looks every half.
const HEARTBEATS: Duration = Duration::from_secs(26);
/// The broker hangs up after two to three.
const HANGS_UP: Duration = Duration::from_secs(32);
/// Shorter than a heartbeat, and longer than `delivery.timeout`.
const BRIEFLY: Duration = Duration::from_secs(8);
/// How long it is looked away from a slow line.
const A_WHILE: Duration = Duration::from_secs(5);
/// Those who are not concerned when a subscriber's broker is away.
const OTHERS: [Who; 2] = [Who::HttpWell, Who::HomeWell];

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_line_loses_nothing() {
    cut("network-cut-quick", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_line_cut_over_and_over_loses_nothing() {
    cut("network-cut", 20).await;
}

/// A run whose faults last: few events, so that what has piled up meanwhile is soon through, and time
/// enough for each.
fn lasting(name: &'static str) -> Options {
    Options {
        rate: 20,
        timeout: Duration::from_secs(5),
        ..Options::new(name)
    }
}

async fn cut(name: &'static str, times: usize) {
    let (stage, bridge) = Stage::ready(Options::new(name)).await;
    for _ in 0..times {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.fault("the line is cut", None);
        stage.ground.home_line.cut();
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_line_that_is_refused_loses_nothing() {
    let (stage, bridge) = Stage::ready(Options::new("network-refused")).await;
    for _ in 0..8 {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault("the line is refused", Some(NOTICE));
        let line = &stage.ground.home_line;
        let (make, undo) = (async || line.refuse().await, async || line.forward().await);
        stage
            .lasting(fault, [LEAST, MOST * 2], &bridge, make, undo)
            .await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_frozen_line_is_noticed_and_loses_nothing() {
    let (stage, bridge) = Stage::ready(lasting("network-frozen")).await;
    for _ in 0..2 {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault("the line is frozen", Some(HEARTBEATS));
        let time = [HEARTBEATS + LEAST, HEARTBEATS + MOST * 4];
        let line = &stage.ground.home_line;
        let (make, undo) = (async || line.freeze(), async || line.forward().await);
        stage.lasting(fault, time, &bridge, make, undo).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_frozen_for_less_than_a_heartbeat_interrupts_nothing() {
    frozen_briefly("network-frozen-briefly-quick", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_line_frozen_over_and_over_interrupts_nothing() {
    frozen_briefly("network-frozen-briefly", 6).await;
}

async fn frozen_briefly(name: &'static str, times: usize) {
    let (stage, bridge) = Stage::ready(lasting(name)).await;
    for _ in 0..times {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault("the line is frozen for less than a heartbeat", None);
        let mut fault = fault.that_repeats_nothing();
        stage.ground.home_line.freeze();
        sleep(BRIEFLY).await;
        stage.ground.home_line.forward().await;
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    never_reconnected(&stage, &bridge).await;
    stage.finish(vec![bridge]).await.must_hold();
}

async fn never_reconnected(stage: &Stage, bridge: &Process) {
    let metrics = bridge.program.metrics().await;
    let reconnects = metrics["hookbridge_broker_reconnects_total"];
    if reconnects > 0.0 {
        stage.wrong(format!("the connection was lost {reconnects} times"));
    }
}

/// Frozen for longer than either side bears it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_line_that_is_frozen_one_way_is_noticed_and_loses_nothing() {
    let (stage, bridge) = Stage::ready(lasting("network-one-way")).await;
    for (way, what, noticed) in [
        (Way::Back, "the broker is not heard", HEARTBEATS),
        (Way::There, "the bridge is not heard", HANGS_UP),
    ] {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault(what, Some(noticed));
        let time = [noticed + LEAST, noticed + MOST];
        let line = &stage.ground.home_line;
        let (make, undo) = (async || line.silence(way), async || line.forward().await);
        stage.lasting(fault, time, &bridge, make, undo).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// The broker has long since given the line up, and the bridge cannot know before its heartbeats.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_half_open_line_is_found_by_its_heartbeats_and_loses_nothing() {
    let (stage, bridge) = Stage::ready(lasting("network-half-open")).await;
    for _ in 0..3 {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.fault("the broker's end of the line is gone", None);
        let from = Instant::now();
        stage.ground.home_line.halve();
        let said_no = |sample: &Sample| sample.asked > from && sample.status != 200;
        let unready = async || bridge.samples().iter().any(said_no).then_some(());
        let found = bridge.program.watch("it is found", HEARTBEATS, unready);
        found.await;
        // Its connections find out one after the other.
        sleep(HEARTBEATS.saturating_sub(from.elapsed())).await;
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute and a half: make faults"]
async fn a_slow_line_interrupts_nothing() {
    let options = Options {
        rate: 15,
        ..lasting("network-slow")
    };
    let (stage, bridge) = Stage::ready(options).await;
    let latency = [Duration::from_millis(50), Duration::from_millis(200)];
    let late = Slow {
        latency,
        bandwidth: None,
    };
    let narrow = Slow {
        latency: [Duration::ZERO; 2],
        bandwidth: Some(64 * 1024),
    };
    let both = Slow {
        bandwidth: narrow.bandwidth,
        ..late
    };
    for (slow, what) in [
        (late, "the lines are late"),
        (narrow, "the lines are narrow"),
        (both, "the lines are late and narrow"),
    ] {
        let mut fault = stage.fault(what, None).that_repeats_nothing();
        let lines = [&stage.ground.home_line, &stage.ground.away_line];
        for line in lines {
            line.slow(slow);
        }
        for _ in 0..4 {
            sleep(A_WHILE).await;
            stage.undisturbed(&Who::WELL).await;
        }
        for line in lines {
            line.forward().await;
        }
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    never_reconnected(&stage, &bridge).await;
    stage.finish(vec![bridge]).await.must_hold();
}

fn away(name: &'static str) -> Options {
    Options {
        hurt: vec![Who::AwayWell],
        ..Options::new(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_subscribers_line_that_is_cut_or_refused_hurts_nobody_else() {
    let (stage, bridge) = Stage::ready(away("away-cut")).await;
    for _ in 0..10 {
        stage.carry_on(LEAST, MOST).await;
        let fault = stage.fault("the subscribers' line is cut", None);
        let mut fault = fault.that_repeats_nothing();
        stage.ground.away_line.cut();
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    for _ in 0..3 {
        let fault = stage.fault("the subscribers' line is refused", None);
        let mut fault = fault.that_repeats_nothing();
        stage.ground.away_line.refuse().await;
        stage.undisturbed(&OTHERS).await;
        stage.carry_on(LEAST, MOST * 2).await;
        stage.undisturbed(&OTHERS).await;
        stage.ground.away_line.forward().await;
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_subscribers_line_that_is_frozen_hurts_nobody_else() {
    let (stage, bridge) = Stage::ready(away("away-frozen")).await;
    for time in [BRIEFLY, HEARTBEATS + MOST, HANGS_UP + MOST] {
        let fault = stage.fault("the subscribers' line is frozen", None);
        let mut fault = fault.that_repeats_nothing();
        stage.ground.away_line.freeze();
        disturbs_nobody(&stage, time).await;
        stage.ground.away_line.forward().await;
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn a_subscribers_line_that_is_half_open_hurts_nobody_else() {
    let (stage, bridge) = Stage::ready(away("away-half-open")).await;
    for _ in 0..2 {
        let fault = stage.fault("the subscribers' end of the line is gone", None);
        let mut fault = fault.that_repeats_nothing();
        stage.ground.away_line.halve();
        // Nobody can know before.
        disturbs_nobody(&stage, HEARTBEATS).await;
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    for way in [Way::Back, Way::There] {
        let fault = stage.fault("the subscribers' line is frozen one way", None);
        let mut fault = fault.that_repeats_nothing();
        stage.ground.away_line.silence(way);
        disturbs_nobody(&stage, HEARTBEATS).await;
        stage.ground.away_line.forward().await;
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

async fn disturbs_nobody(stage: &Stage, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        sleep(NOTICE).await;
        stage.undisturbed(&OTHERS).await;
    }
}
