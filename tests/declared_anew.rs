//! A queue that somebody deleted is declared anew: who consumes from it says so only when events come
//! to it again.

use std::{sync::Arc, time::Duration};

use hookbridge::broker::{
    connection::{Dialer, TlsFiles, fixed_uri, system_resolver},
    consumer::{Options, Presence, Session, consume},
    home::Home,
    topology::Topology,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::support::{broker::Vhost, client::Published, eventually::SOON, line::SOURCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_not_there_before_its_queue_is_bound_again() {
    let vhost = Vhost::new("anew");
    let client = vhost.connect().await;
    let bindings = ["#".to_owned()];
    let topology = Topology::new("hookbridge", SOURCE, &bindings, Duration::from_secs(1));
    let events = topology.events_queue();
    let dialer = Dialer {
        uri: fixed_uri(vhost.uri().into()),
        tls: TlsFiles::default(),
        resolver: system_resolver(),
        name: "tests".into(),
        large_frames: false,
    };
    let home = Arc::new(Home::new(&dialer, Arc::new(topology), true).unwrap());
    let stop = CancellationToken::new();
    let (running, end) = (home.clone(), stop.clone());
    let tasks = TaskTracker::new();
    tasks.spawn(async move { running.run(end).await });
    let (told, mut there) = watch::channel(false);
    let present = move |now| {
        told.send_replace(matches!(now, Presence::There));
    };
    let work = |mut session: Session| async move { while session.next(1).await.is_some() {} };
    let options = Options {
        queue: events.clone(),
        prefetch: 10,
        bytes: None,
        gate: None,
        listens_to: None,
    };
    tasks.spawn(consume(home.clone(), options, stop.clone(), present, work));
    let mut wait = async |what: &str, now: bool| {
        let waited = timeout(SOON, there.wait_for(|there| *there == now)).await;
        waited.expect(what).expect("the consumer runs");
    };
    wait("the consumer is there", true).await;

    vhost.delete_queue(&events);
    wait("the consumer is gone", false).await;
    // Somebody who is no consumer sees it first, and declares the queue before it is asked for.
    let consumed = async {
        wait("the consumer is back", true).await;
        client.publish(SOURCE, "key", b"{}").await
    };
    let ((), published) = tokio::join!(home.repair_now(), consumed);
    assert_eq!(published, Published::Routed);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}
