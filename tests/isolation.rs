//! A subscriber that hangs is slow, and hurts only itself.

use std::{collections::BTreeSet, time::Duration};

use crate::support::{
    broker::Vhost,
    eventually::{SOON, eventually},
    http::{Answer, Arrival, Receiver},
    lane::{hand_in, slow, slow_lane},
    line::{Line, Setup, everything, http},
};

const SLOW: &str = "hookbridge_slow_subscribers";

fn setup() -> Setup {
    Setup {
        timeout: Duration::from_secs(14),
        ..Setup::default()
    }
}

/// The webhooks that came, each counted once.
fn came(receiver: &Receiver, path: &str) -> usize {
    let ids = |arrival: Arrival| arrival.header("webhook-id").map(str::to_owned);
    let arrivals = receiver.arrivals_at(path).into_iter();
    arrivals.filter_map(ids).collect::<BTreeSet<_>>().len()
}

/// The most arrivals that any span of this length has: with one shorter than an attempt lasts, all of
/// them are under way at once.
fn most_within(arrivals: &[Arrival], span: Duration) -> usize {
    let until = |last: &Arrival| {
        let within = |one: &&Arrival| one.at <= last.at && last.at - one.at < span;
        arrivals.iter().filter(within).count()
    };
    arrivals.iter().map(until).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_endpoint_that_hangs_and_nothing_of_its_own_is_lost() {
    // More than intake takes at once, so that it would stand still if it waited.
    const EVENTS: usize = 1_500;
    let vhost = Vhost::new("isolation");
    let receiver = Receiver::start().await;
    receiver.answer("/hangs", Answer::Hang);
    let subscribers = [
        everything("hangs", &http(&receiver.url("/hangs"))),
        everything("well", &http(&receiver.url("/well"))),
    ];
    let line = Line::start(&vhost.uri(), &setup(), &subscribers).await;
    for number in 0..EVENTS {
        line.publish(&number.to_string()).await;
    }
    let all = async || (came(&receiver, "/well") == EVENTS).then_some(());
    eventually("who is well gets everything", SOON, all).await;
    line.wait_for_metric(SLOW, 1.0).await;
    let most = most_within(&receiver.arrivals_at("/hangs"), Duration::from_secs(10));
    assert!(most <= 64 + 8, "{most} under way, more than may be");
    let queue = format!("hookbridge.first.slow.{:02}", slow_lane("hangs"));
    let waits = async || line.client.depth(&queue).await.filter(|count| *count > 0);
    eventually("the rest waits in the slow lane", SOON, waits).await;

    // Once it answers, it gets everything, and after a while it is quick again.
    receiver.answer("/hangs", Answer::Status(200));
    let all = async || (came(&receiver, "/hangs") == EVENTS).then_some(());
    eventually("who hung gets everything", SOON * 3, all).await;
    line.wait_for_metric(r#"hookbridge_in_flight{transport="http"}"#, 0.0)
        .await;
    let quick = async || {
        line.publish("again").await;
        (line.metric(SLOW).await < 0.5).then_some(())
    };
    eventually("it is quick again", SOON * 2, quick).await;
    line.stop().await;
    // Those that it twice took longer over than it may: of what was under way, once or, on a busy
    // machine, in two goes.
    let dead = vhost.connect().await.depth("hookbridge.dead").await;
    assert!(dead.unwrap() < 2 * (64 + 8), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_slow_lane_is_not_held_up_for_good() {
    const EVENTS: usize = 200;
    let vhost = Vhost::new("isolation");
    let receiver = Receiver::start().await;
    receiver.answer("/hangs", Answer::Hang);
    let other = (0..1_000)
        .map(|number| format!("other-{number}"))
        .find(|id| slow_lane(id) == slow_lane("hangs"))
        .unwrap();
    let subscribers = [
        everything("hangs", &http(&receiver.url("/hangs"))),
        everything(&other, &http(&receiver.url("/other"))),
    ];
    let line = Line::start(&vhost.uri(), &setup(), &subscribers).await;
    for number in 0..EVENTS {
        hand_in(&line.client, &number.to_string(), &slow("hangs", 700), &[]).await;
    }
    // At the end of a lane in which eight are attempted at a time, and none of them ends.
    hand_in(&line.client, "one", &slow(&other, 700), &[]).await;
    let arrived = async || receiver.arrivals_at("/other").pop();
    eventually("the other one's arrives", SOON, arrived).await;
    assert!(came(&receiver, "/hangs") < EVENTS / 2, "overtaken");
    receiver.answer("/hangs", Answer::Status(200));
    let all = async || (came(&receiver, "/hangs") == EVENTS).then_some(());
    eventually("who hung gets everything", SOON * 3, all).await;
    line.stop().await;
}
