//! What RabbitMQ forwards before it knows its bindings, as it can when it starts, is in `lost`, and goes
//! on to where it belongs. Here the bindings are taken away before it forwards, by RabbitMQ itself, and
//! are back when the bridge connects.

use hookbridge::store::dead_letters::{DeadLetter, Kind};
use lapin::types::AMQPValue;

use crate::support::{
    bridge::{RunningBridge, Setup},
    broker::Vhost,
    client::Published,
    eventually::SOON,
    http::{Answer, Receiver},
    program::event,
};

fn subscriber(receiver: &Receiver) -> String {
    let url = receiver.url("/hook");
    format!("scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{url}\"\n")
}

/// Has the broker send a due retry, and an event that was refused, to `lost`; and puts there what
/// belongs there.
async fn lead_astray(bridge: &RunningBridge, receiver: &Receiver) {
    receiver.answer_in_turn("/hook", vec![Answer::Status(503), Answer::Status(204)]);
    let client = &bridge.client;
    for lane in 0..8 {
        let queue = format!("hookbridge.second.fast.{lane:02}");
        let key = format!("fast.{lane:02}.#");
        client.unbind(&queue, "hookbridge.second", &key).await;
    }
    bridge.publish(&event("evt", &[])).await;
    client.wait_for_depth("hookbridge.lost", 1, SOON).await;
    assert_eq!(receiver.arrivals().len(), 1);

    client
        .unbind("hookbridge.rejected", "hookbridge.rejected", "#")
        .await;
    refuse(bridge, "hookbridge.rejected", b"no json").await;
    client.wait_for_depth("hookbridge.lost", 2, SOON).await;

    let published = client.publish("hookbridge.lost", "some.key", b"stays");
    assert_eq!(published.await, Published::Routed);
}

/// Has an event dead-lettered to this exchange, by a queue of a name that the bridge's have, which the
/// bridge does not consume.
async fn refuse(bridge: &RunningBridge, exchange: &str, body: &[u8]) {
    let client = &bridge.client;
    let queue = format!("hookbridge.events.to.{exchange}");
    let arguments = [
        ("x-queue-type", "quorum"),
        ("x-dead-letter-exchange", exchange),
    ];
    let arguments = arguments.map(|(name, value)| (name, AMQPValue::LongString(value.into())));
    client.declare(&queue, arguments).await;
    let published = client.publish("", &queue, body).await;
    assert_eq!(published, Published::Routed);
    client.reject(&queue).await;
}

async fn wait_for_both(bridge: &RunningBridge, receiver: &Receiver) {
    let [first, second] = &receiver.wait_for(2, SOON).await[..] else {
        panic!("more than two attempts");
    };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    bridge
        .wait_for_metric("hookbridge_attempts_total", &[("attempt", "2")], 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_sent_astray_goes_on_when_the_bridge_has_connected() {
    let vhost = Vhost::new("strays");
    let receiver = Receiver::start().await;
    let setup = Setup::new(&vhost).subscriber("fixit", &subscriber(&receiver));
    let bridge = setup.start().await;
    lead_astray(&bridge, &receiver).await;

    bridge.close_connections();
    wait_for_both(&bridge, &receiver).await;
    let rejected = bridge.client.receive("hookbridge.rejected", 1, SOON).await;
    assert_eq!(rejected[0].body, b"no json");
    bridge
        .client
        .wait_for_depth("hookbridge.lost", 1, SOON)
        .await;
    assert_eq!(
        bridge.client.get("hookbridge.lost").await.unwrap().body,
        b"stays"
    );
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_sent_astray_is_not_archived() {
    let vhost = Vhost::new("strays");
    let receiver = Receiver::start().await;
    let setup = Setup::new(&vhost).subscriber("fixit", &subscriber(&receiver));
    let bridge = setup.start().await;
    lead_astray(&bridge, &receiver).await;
    bridge.stop().await;

    let setup = Setup::new(&vhost).sqlite();
    let bridge = setup
        .subscriber("fixit", &subscriber(&receiver))
        .start()
        .await;
    wait_for_both(&bridge, &receiver).await;
    let kept = crate::archiving::wait_kept(&bridge.store(), 2).await;
    assert_eq!(kinds(&kept), [Kind::Lost, Kind::Rejected]);

    // What comes while it is connected, the archiver sees first.
    refuse(&bridge, "hookbridge.lost", b"no json either").await;
    let kept = crate::archiving::wait_kept(&bridge.store(), 3).await;
    assert_eq!(kinds(&kept), [Kind::Lost, Kind::Rejected, Kind::Rejected]);
    bridge.stop().await;
}

fn kinds(letters: &[DeadLetter]) -> Vec<Kind> {
    let mut kinds: Vec<_> = letters.iter().map(|letter| letter.kind).collect();
    kinds.sort_by_key(|kind| kind.as_str());
    kinds
}
