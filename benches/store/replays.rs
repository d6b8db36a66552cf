//! A replay of 100,000 dead letters by a filter: its rate and its memory; stopped, begun again,
//! and gone on with by a bridge that was restarted, and by one whose predecessor was killed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    Size,
    bridge::{Bridge, Setup},
    figure,
    receiver::Receiver,
};

/// So many a second are asked for.
const RATE: u32 = 2_000;
/// How many are published together.
const BATCH: u32 = 200;
const DELIVERED: Duration = Duration::from_mins(5);

/// A replay, as it is watched.
struct Watched {
    id: u64,
    began: Instant,
    peak: f64,
}

impl Watched {
    async fn begin(bridge: &mut Bridge) -> (Self, Value) {
        let body = json!({"kind": "dead", "rate": RATE});
        let begun = bridge.post("/v1/dead-letters/replay", &body).await;
        let id = begun["id"].as_u64().expect("an id");
        let watched = Self {
            id,
            began: Instant::now(),
            peak: 0.0,
        };
        (watched, begun)
    }

    /// Watches until as many are replayed, or it is over.
    async fn until(&mut self, bridge: &mut Bridge, replayed: u64) -> (u64, String) {
        loop {
            let (now, _) = bridge.get(&format!("/v1/replays/{}", self.id)).await;
            self.peak = self.peak.max(bridge.process.memory());
            let done = now["replayed"].as_u64().expect("a number");
            let state = now["state"].as_str().expect("a state").to_owned();
            if done >= replayed || state != "running" {
                return (done, state);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Everything about it.
pub(crate) async fn replay(setup: &Setup, mut bridge: Bridge, size: Size, receiver: &Receiver) {
    let all = u64::from(size.letters);
    let count = json!({"kind": "dead", "dry_run": true});
    let counted = bridge.post("/v1/dead-letters/replay", &count).await;
    assert_eq!(counted["total"], all, "{counted}");
    let before = bridge.process.memory();
    let (mut first, _) = Watched::begin(&mut bridge).await;
    let (done, _) = first.until(&mut bridge, all * 4 / 10).await;
    let rate = done as f64 / first.began.elapsed().as_secs_f64();
    figure(
        &format!("replayed of {all}, {RATE}/s asked for"),
        &format!("{rate:.0}/s"),
        rate <= f64::from(RATE) * 1.05,
    );

    let asked = Instant::now();
    let stop = format!("/v1/replays/{}/stop", first.id);
    bridge.post(&stop, &json!({})).await;
    let (stopped, state) = first.until(&mut bridge, u64::MAX).await;
    assert_eq!(state, "stopped");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (later, _) = first.until(&mut bridge, u64::MAX).await;
    println!(
        "  stopped within {:.0} ms, with {stopped} replayed, {later} a second later",
        asked.elapsed().as_secs_f64() * 1e3 - 1e3,
    );
    assert!(later <= stopped + u64::from(BATCH), "it goes on");

    let (mut second, begun) = Watched::begin(&mut bridge).await;
    assert_eq!(begun["total"], all - later, "only what is left");
    second.until(&mut bridge, all * 2 / 10).await;
    let peak = first.peak.max(second.peak);
    bridge.stop().await;
    let mut bridge = setup.start().await;
    second.until(&mut bridge, all * 4 / 10).await;
    let (_, again) = settled(receiver, &mut bridge, 0).await;
    println!("  a bridge that is restarted goes on; webhooks that came twice: {again}");

    drop(bridge);
    let mut bridge = setup.start().await;
    let (done, state) = second.until(&mut bridge, u64::MAX).await;
    assert_eq!((done + later, state.as_str()), (all, "done"));
    let (arrived, repeated) = settled(receiver, &mut bridge, size.letters).await;
    assert_eq!(arrived, usize::try_from(all).expect("a number"));
    println!(
        "  another goes on after it was killed: all {arrived} delivered, {} came twice (a batch is {BATCH})",
        repeated - again
    );
    figure(
        "resident before, and at most while it is replayed",
        &format!("{before:.0}, {peak:.0} MiB"),
        peak < before + 50.0,
    );
    bridge.stop().await;
}

/// What has arrived, once as many have, or what was replayed is delivered.
async fn settled(receiver: &Receiver, bridge: &mut Bridge, all: u32) -> (usize, u32) {
    let until = Instant::now() + DELIVERED;
    loop {
        let (arrived, repeated) = receiver.count();
        let in_flight = bridge.metric("hookbridge_in_flight").await;
        if all == 0 || arrived >= usize::try_from(all).expect("a number") && in_flight < 0.5 {
            return (arrived, repeated);
        }
        assert!(Instant::now() < until, "{arrived} of {all} were delivered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
