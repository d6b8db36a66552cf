//! Three nodes in one cluster keep what they confirmed, whichever of them is lost.

use std::{collections::BTreeSet, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::support::{
    client::{Client, Published},
    cluster::Cluster,
    eventually::{SOON, eventually},
};

const QUEUE: &str = "kept";
/// A suspended node is noticed late, and one that was away starts its broker anew.
const RECOVERY: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_keeps_what_it_confirmed_when_the_node_of_its_leader_is_killed() {
    let cluster = Cluster::start();
    let before = publish(&cluster, 0, 0..50).await;
    for index in 0..3 {
        cluster.node(index).sync().unwrap();
    }
    let lost = cluster.leader_of("/", QUEUE).unwrap();
    cluster.kill(lost);
    let led = new_leader(&cluster, lost).await;
    let after = publish(&cluster, led, 50..100).await;

    cluster.restart(lost).unwrap();
    assert_eq!(cluster.running(), [0, 1, 2]);
    // Now the one that was away is needed for a majority.
    cluster.kill(led);
    let led = new_leader(&cluster, led).await;
    let late = publish(&cluster, led, 100..150).await;

    for index in 0..3 {
        cluster.kill(index);
    }
    cluster.restart_together(&[0, 1, 2]);
    all_run(&cluster).await;
    let all = &(&before | &after) | &late;
    assert_eq!(take_all(&cluster, lost, 150).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_keeps_what_it_confirmed_when_a_minority_is_cut_off_or_suspended() {
    let cluster = Cluster::start();
    let mut all = publish(&cluster, 0, 0..50).await;

    let lost = cluster.leader_of("/", QUEUE).unwrap();
    cluster.cut_off(lost);
    let led = new_leader(&cluster, lost).await;
    all.extend(publish(&cluster, led, 50..100).await);
    if cluster.pauses_minorities() {
        serves(&cluster, lost, false).await;
    } else {
        let client = Client::connect(&cluster.node(lost).amqp_uri("/")).await;
        // One that is there already, so that it does not matter what becomes of it.
        let publish = timeout(Duration::from_secs(3), client.publish("", QUEUE, b"0"));
        assert!(!matches!(publish.await, Ok(Published::Routed)));
    }
    cluster.heal(lost);
    serves(&cluster, lost, true).await;
    all_run(&cluster).await;

    let lost = led;
    cluster.pause(lost);
    let led = new_leader(&cluster, lost).await;
    all.extend(publish(&cluster, led, 100..150).await);
    cluster.resume(lost);
    cluster.restart(lost).unwrap();
    all_run(&cluster).await;
    assert_eq!(take_all(&cluster, lost, 150).await, all);
}

/// Publishes these numbers through a node, all of them confirmed.
async fn publish(
    cluster: &Cluster,
    node: usize,
    numbers: std::ops::Range<u32>,
) -> BTreeSet<String> {
    let client = Client::connect(&cluster.node(node).amqp_uri("/")).await;
    client.declare_quorum(QUEUE).await;
    let mut published = BTreeSet::new();
    for number in numbers {
        let body = number.to_string();
        // While the members agree on a leader, it may be refused.
        let confirmed = async || {
            let outcome = client.publish("", QUEUE, body.as_bytes()).await;
            (outcome == Published::Routed).then_some(())
        };
        eventually("a confirm", SOON, confirmed).await;
        published.insert(body);
    }
    published
}

async fn take_all(cluster: &Cluster, node: usize, count: usize) -> BTreeSet<String> {
    let client = Client::connect(&cluster.node(node).amqp_uri("/")).await;
    let messages = client.receive(QUEUE, count, SOON).await;
    // What was refused and published again may be there twice.
    let again = client.drain(QUEUE).await;
    let all = messages.iter().chain(&again);
    all.map(|message| message.text().to_owned()).collect()
}

/// Waits until the queue is led by another node than this one.
async fn new_leader(cluster: &Cluster, lost: usize) -> usize {
    let other = async || {
        cluster
            .leader_of("/", QUEUE)
            .filter(|&leader| leader != lost)
    };
    eventually("another node leads the queue", RECOVERY, other).await
}

/// Waits until a node accepts AMQP connections, or refuses them.
async fn serves(cluster: &Cluster, index: usize, expected: bool) {
    let port = cluster.node(index).amqp_port();
    let what = format!("node {index} serves: {expected}");
    let as_expected = async || {
        let connected = TcpStream::connect(("127.0.0.1", port)).await;
        (connected.is_ok() == expected).then_some(())
    };
    eventually(&what, RECOVERY, as_expected).await;
}

async fn all_run(cluster: &Cluster) {
    let all = async || (cluster.running() == [0, 1, 2]).then_some(());
    eventually("all three run", RECOVERY + SOON, all).await;
}
