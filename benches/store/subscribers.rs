//! 100,000 subscribers: put into the store, loaded at a start, and one of them changed.

use std::time::{Duration, Instant};

use hookbridge::subscriber::Interest;

use crate::{
    Size,
    bridge::Bridge,
    bridge::Setup,
    figure,
    hooks::{hook, put, subscriber},
    receiver::Receiver,
};

/// How many get the dead letters when they are replayed.
pub(crate) const REPLAYED_TO: u32 = 100;
/// How many starts are measured.
const STARTS: usize = 3;

/// The id of one that gets replayed dead letters.
pub(crate) fn replayed_to(number: u32) -> String {
    format!("replayed-{:03}", number % REPLAYED_TO)
}

/// Puts everybody into the store, one by one.
pub(crate) async fn fill(setup: &Setup, size: Size, receiver: &Receiver) {
    let to_replay = (0..REPLAYED_TO).map(|number| {
        let party = Interest::Party {
            party: "nobody".to_owned(),
            cases: None,
        };
        subscriber(replayed_to(number), party, &receiver.url(number))
    });
    let hooks = (0..size.subscribers - REPLAYED_TO).map(hook);
    let began = Instant::now();
    put(&setup.file(), to_replay.chain(hooks)).await;
    let rate = f64::from(size.subscribers) / began.elapsed().as_secs_f64();
    println!("  subscribers put one by one: {rate:.0}/s");
}

/// Starts the bridge with them, on a topology that is there.
pub(crate) async fn start(setup: &Setup, size: Size) {
    for _ in 0..STARTS {
        let bridge = setup.start().await;
        let known = bridge.metric("hookbridge_subscribers{").await;
        assert!((known - f64::from(size.subscribers)).abs() < 0.5, "{known}");
        let (ready, memory) = (bridge.ready_after, bridge.process.memory());
        figure(
            &format!("ready with {} subscribers after", size.subscribers),
            &format!("{:.2} s", ready.as_secs_f64()),
            ready < Duration::from_secs(3),
        );
        // What the allocator gives back, and what runs every few seconds.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let (later, peak) = (bridge.process.memory(), bridge.process.peak_memory());
        figure(
            "resident then, after 12 s, and at most",
            &format!("{memory:.0}, {later:.0}, {peak:.0} MiB"),
            peak < 190.0,
        );
        bridge.stop().await;
    }
}

/// Changes one of them through the API, many times.
pub(crate) async fn change(bridge: &mut Bridge) {
    let mut took = Vec::new();
    for number in 0..50 {
        let path = format!("/v1/subscribers/{}", replayed_to(number));
        let body = serde_json::json!({"enabled": number % 2 == 0});
        let changed = bridge.call(reqwest::Method::PATCH, &path, Some(&body));
        took.push(changed.await.1);
    }
    for number in 0..50 {
        let path = format!("/v1/subscribers/{}", replayed_to(number));
        let body = serde_json::json!({"enabled": true});
        let changed = bridge.call(reqwest::Method::PATCH, &path, Some(&body));
        took.push(changed.await.1);
    }
    took.sort();
    println!(
        "  one changed through the API, in force when it answers: {:.1} ms (median), {:.1} ms at most",
        took[took.len() / 2].as_secs_f64() * 1e3,
        took[took.len() - 1].as_secs_f64() * 1e3,
    );
}
