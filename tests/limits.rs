//! A subscriber's limit on what is in flight to it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

use crate::support::{
    broker::Vhost,
    eventually::{SOON, eventually},
    http::{Answer, Receiver},
    line::{Line, Setup, everything, http, subscriber},
};

/// What an endpoint saw.
#[derive(Default)]
struct Seen {
    now: usize,
    most: usize,
    attempts: HashMap<String, usize>,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_attempts_are_under_way_than_the_subscriber_allows_on_both_attempts_together() {
    const EVENTS: usize = 200;
    const LIMIT: usize = 5;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    // Refuses the first attempt of each delivery and takes the second, neither at once.
    let answer = async move |headers: HeaderMap| {
        let count = {
            let mut seen = shared.lock().unwrap();
            seen.now += 1;
            seen.most = seen.most.max(seen.now);
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            let count = seen.attempts.entry(id).or_default();
            *count += 1;
            *count
        };
        sleep(Duration::from_millis(15)).await;
        shared.lock().unwrap().now -= 1;
        if count == 1 {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        let router = Router::new().fallback(answer);
        axum::serve(listener, router).await.unwrap();
    });
    let vhost = Vhost::new("limits");
    let limit = format!("max_in_flight = {LIMIT}");
    let subscribers = [subscriber("fixit", &limit, &http(&url))];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    for number in 0..EVENTS {
        line.publish(&format!("evt-{number}")).await;
    }

    eventually("everything is delivered", SOON * 2, async || {
        let seen = seen.lock().unwrap();
        let done = seen.attempts.values().filter(|count| **count == 2).count();
        (done == EVENTS).then_some(())
    })
    .await;
    let series = r#"hookbridge_deliveries_total{outcome="delivered",transport="http",webhook="StatusUpdate"}"#;
    line.wait_for_metric(series, 200.0).await;
    line.wait_for_metric(r#"hookbridge_in_flight{transport="http"}"#, 0.0)
        .await;
    assert_eq!(line.client.depth("hookbridge.dead").await, Some(0));
    line.stop().await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.most, LIMIT, "the limit is reached and kept");
    assert!(seen.attempts.values().all(|count| *count == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_turn_hears_of_a_change_to_its_subscriber() {
    let vhost = Vhost::new("limits");
    let receiver = Receiver::start().await;
    receiver.answer("/old", Answer::Hang);
    let settings = Setup {
        retry_delay: SOON * 10,
        ..Setup::default()
    };
    let to = |path| {
        let target = http(&receiver.url(path));
        subscriber("fixit", "max_in_flight = 1\ntimeout = \"5s\"", &target)
    };
    let line = Line::start(&vhost.uri(), &settings, &[to("/old")]).await;
    for number in 0..4 {
        line.publish(&format!("evt-{number}")).await;
    }
    receiver.wait_for(1, SOON).await;
    // All of them have been taken from the lane, and three wait for the one that hangs.
    line.client
        .wait_for_depth("hookbridge.first.fast.01", 0, SOON)
        .await;
    let other = everything("other", &http(&receiver.url("/other")));
    line.reload(&[to("/new"), other], 2).await;

    let what = "the three that waited arrive at the new address";
    eventually(what, SOON, async || {
        (receiver.arrivals_at("/new").len() == 3).then_some(())
    })
    .await;
    line.stop().await;
    assert_eq!(receiver.arrivals_at("/old").len(), 1);
}
