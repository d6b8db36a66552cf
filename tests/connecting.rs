//! Which connections there are, where addresses, connections or channels are short.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use hookbridge::{
    broker::{
        connection::{Dialer, Resolver, TlsFiles, fixed_uri, system_resolver},
        message::Message,
        pool::Source,
        publishers::Publishers,
    },
    cli::demo::node::{NodeOptions, PrivateNode},
};
use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use crate::support::{
    broker::{Vhost, node},
    client::Client,
    eventually::{SOON, eventually},
    management,
};

const TIMEOUT: Duration = Duration::from_secs(10);

fn dialer(uri: String, resolver: Resolver) -> Dialer {
    Dialer {
        uri: fixed_uri(uri.into()),
        tls: TlsFiles::default(),
        resolver,
        name: "connecting".into(),
        large_frames: false,
    }
}

/// A message for a queue, through the default exchange.
fn to(queue: &str, id: usize) -> Message {
    Message::plain("", queue, id.to_string(), "{}")
}

/// An address at which nobody ever answers, as that of a machine that is off: what the system lets
/// wait there is full. For as long as what comes with it lives.
async fn silent() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        let connecting = TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(500), connecting).await {
            Ok(connected) => waiting.push(connected.unwrap()),
            Err(_) => return (address, (listener, waiting)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_answer_leaves_time_for_the_others() {
    let vhost = Vhost::new("connecting");
    let (silent, _kept) = silent().await;
    let answers = SocketAddr::from(([127, 0, 0, 1], node().amqp_port()));
    for addresses in [vec![silent, answers], vec![silent, silent, answers]] {
        let resolver: Resolver = Arc::new(move |_, _| {
            let addresses = addresses.clone();
            Box::pin(async move { Ok(addresses) })
        });
        let uri = vhost.uri().replace("127.0.0.1", "broker.example");
        let connection = dialer(uri, resolver).connect().await.unwrap();
        assert!(connection.status().connected());
    }
}

/// On a runtime of its own, which nobody else has tasks on.
#[tokio::test]
async fn a_broker_that_is_away_leaves_no_tasks_behind() {
    let runtime = tokio::runtime::Handle::current();
    let tasks = || runtime.metrics().num_alive_tasks();
    let before = tasks();
    let dialer = || dialer("amqp://127.0.0.1:1".into(), system_resolver());
    let home = Source::home(dialer(), 1).unwrap();
    for _ in 0..20 {
        dialer().connect().await.unwrap_err();
        assert!(home.connection().await.is_err());
    }
    let none_left = async || (tasks() <= before).then_some(());
    eventually("nothing is left", SOON, none_left).await;
}

/// A virtual host with the queue `work`, in which one connection is allowed.
async fn allowing_one_connection() -> Vhost {
    let vhost = Vhost::new("connecting");
    vhost.connect().await.declare_quorum("work").await;
    eventually("the test's own connection is gone", SOON, async || {
        connections(&vhost).is_empty().then_some(())
    })
    .await;
    management::must(
        "PUT",
        &format!("vhost-limits/{}/max-connections", vhost.name),
        &json!({"value": 1}),
    );
    vhost
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_connection_that_a_broker_allows_is_enough() {
    let vhost = allowing_one_connection().await;
    let source = Source::outside(dialer(vhost.uri(), system_resolver()), 2);
    let publishers = Publishers::new(source, TaskTracker::new());
    for id in 0..3 {
        // Each opens a channel, and asks for a connection for it.
        publishers
            .get(&id, None)
            .publish_one(to("work", id), TIMEOUT)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_channel_are_closed() {
    let vhost = Vhost::new("connecting");
    let source = Source::outside(dialer(vhost.uri(), system_resolver()), 1);
    // As every publisher has one.
    let _another = source.clone();
    let lease = source.connection().await.unwrap().lease();
    source.close_if_idle();
    eventually("the connection is there", SOON, async || {
        (!connections(&vhost).is_empty()).then_some(())
    })
    .await;
    drop(lease);
    source.close_if_idle();
    eventually("the connection is closed", SOON, async || {
        connections(&vhost).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_always_more_to_publish_gets_a_connection_of_its_own() {
    const BATCH: usize = 2_000;
    let vhost = Vhost::new("connecting");
    vhost.connect().await.declare_quorum("work").await;
    eventually("the test's own connection is gone", SOON, async || {
        connections(&vhost).is_empty().then_some(())
    })
    .await;
    let source = Source::home(dialer(vhost.uri(), system_resolver()), 1).unwrap();
    let publishers = Publishers::new(source, TaskTracker::new());
    let quiet = publishers.get(&"quiet", None);
    quiet.publish_one(to("work", 0), TIMEOUT).await.unwrap();
    assert_eq!(connections(&vhost).len(), 1);

    let mut published = 0;
    let until = Instant::now() + SOON;
    while connections(&vhost).len() == 1 {
        assert!(Instant::now() < until, "still one after {published}");
        let busy: [_; 4] = std::array::from_fn(|_| {
            let batch = (0..BATCH).map(|id| to("work", id)).collect();
            let busy = publishers.get(&"busy", None);
            async move { busy.publish(batch, TIMEOUT).await }
        });
        for results in join_all(busy).await {
            assert!(results.iter().all(Result::is_ok));
            published += results.len();
        }
        quiet.publish_one(to("work", 0), TIMEOUT).await.unwrap();
    }
    assert_eq!(connections(&vhost).len(), 2);

    // It is closed with what it was made for.
    publishers.retain(|who| *who == "quiet");
    eventually("the busy one's is closed", SOON, async || {
        (connections(&vhost).len() == 1).then_some(())
    })
    .await;
    quiet.publish_one(to("work", 0), TIMEOUT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_no_connection_of_its_own_publishes_over_that_of_all() {
    const BATCH: usize = 2_000;
    let vhost = allowing_one_connection().await;
    let source = Source::home(dialer(vhost.uri(), system_resolver()), 1).unwrap();
    let publishers = Publishers::new(source, TaskTracker::new());
    let busy = publishers.get(&"busy", None);
    // As long as it takes to ask for one more than once.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let batches = (0..4).map(|_| (0..BATCH).map(|id| to("work", id)).collect());
        for results in join_all(batches.map(|batch| busy.publish(batch, TIMEOUT))).await {
            assert!(results.iter().all(Result::is_ok));
        }
    }
    assert_eq!(connections(&vhost).len(), 1);
}

/// The names of the connections in a virtual host.
fn connections(vhost: &Vhost) -> HashSet<String> {
    let listed = node().rabbitmqctl(&["-q", "list_connections", "vhost", "name"]);
    let listed = listed.unwrap();
    let lines = listed.lines().filter_map(|line| line.split_once('\t'));
    lines
        .filter(|(of, _)| *of == vhost.name)
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_publishers_than_channels_on_a_connection_have_more_connections() {
    const PUBLISHERS: usize = 12;
    let options = NodeOptions {
        config: vec!["channel_max = 4".to_owned()],
        ..NodeOptions::default()
    };
    let start = tokio::task::spawn_blocking(move || PrivateNode::start(&options).unwrap());
    let private = start.await.unwrap();
    let client = Client::connect(&private.amqp_uri("/")).await;
    client.declare_quorum("work").await;
    let dialer = dialer(private.amqp_uri("/"), system_resolver());
    let source = Source::home(dialer, 1).unwrap();
    let publishers = Publishers::new(source, TaskTracker::new());
    let all = (0..PUBLISHERS).map(async |id| {
        let publisher = publishers.get(&id, None);
        publisher.publish_one(to("work", id), TIMEOUT).await
    });
    // All at once, and nobody gives a channel back.
    for published in join_all(all).await {
        published.unwrap();
    }
    assert_eq!(
        client.receive("work", PUBLISHERS, SOON).await.len(),
        PUBLISHERS
    );
    let connections = private.rabbitmqctl(&["-q", "list_connections", "name"]);
    let connections = connections.unwrap().lines().count();
    assert!(connections > 4, "{connections} connections");
}
