//! Somebody deletes an exchange of a running bridge: it is declared again, and nothing vanishes.

use std::collections::{BTreeMap, BTreeSet};

use lapin::ExchangeKind;
use serde_json::Value;

use crate::support::{
    broker::Vhost,
    client::Message,
    eventually::{SOON, eventually},
    http::{Answer, Receiver},
    line::{Line, Setup, assert_dead_letter, everything, http, of, webhook_id},
    management,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_finds_the_first_exchange_deleted_is_delivered_all_the_same() {
    let vhost = Vhost::new("deleted");
    let client = vhost.connect().await;
    // An exchange on the home broker is delivered to from the lanes.
    client
        .declare_exchange("theirs", ExchangeKind::Fanout)
        .await;
    client.declare_quorum("inbox").await;
    client.bind("inbox", "theirs", "").await;
    let subscribers = [everything("bound", "[amqp]\nexchange = \"theirs\"")];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    line.publish("before").await;
    client.receive("inbox", 1, SOON).await;

    for id in ["one", "two"] {
        delete_exchange(&vhost, "first");
        line.publish(id).await;
        let arrived = client.receive("inbox", 1, SOON).await;
        let expected = webhook_id("/order-hub", id, "bound");
        assert_eq!(arrived[0].header("webhook-id"), Some(expected));
    }
    line.stop().await;
    nothing_is_lost(&vhost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_finds_the_retry_exchange_deleted_is_retried_all_the_same() {
    let vhost = Vhost::new("deleted");
    let receiver = Receiver::start().await;
    receiver.answer("/", Answer::Status(500));
    let subscribers = [everything("web", &http(&receiver.url("/")))];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    for (count, id) in [(2, "one"), (4, "two")] {
        delete_exchange(&vhost, "retry");
        line.publish(id).await;
        let dead = line.dead_letters(1).await;
        let letter = of(&dead, "web");
        assert_dead_letter(letter, id, "web", 2);
        assert_eq!(
            letter.header("hookbridge-first-reason").as_deref(),
            Some("http_status")
        );
        assert_eq!(receiver.arrivals().len(), count);
    }
    line.stop().await;
    nothing_is_lost(&vhost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_failures_that_find_the_retry_exchange_deleted_none_vanishes() {
    const EVENTS: usize = 60;
    let vhost = Vhost::new("deleted");
    let receiver = Receiver::start().await;
    receiver.answer("/", Answer::Status(500));
    let subscribers = [everything("web", &http(&receiver.url("/")))];
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    for number in 0..EVENTS {
        if number == EVENTS / 3 {
            delete_exchange(&vhost, "retry");
        }
        line.publish(&number.to_string()).await;
    }
    let mut dead = BTreeMap::new();
    let mut lost = BTreeSet::new();
    let all = async || {
        for letter in line.client.drain("hookbridge.dead").await {
            *dead.entry(message_id(&letter)).or_insert(0) += 1;
        }
        let letters = line.client.drain("hookbridge.lost").await;
        lost.extend(letters.iter().map(message_id));
        let found = dead.keys().chain(&lost).collect::<BTreeSet<_>>();
        (found.len() == EVENTS).then_some(())
    };
    eventually("every delivery is dead or lost", SOON, all).await;
    // What was published but not confirmed when the broker closed the channel is published again:
    // nobody can tell whether it arrived.
    let repeated = dead.values().filter(|count| **count > 1).count();
    assert!(repeated <= EVENTS / 2, "{repeated} are repeated");
    // Only what fails between the exchange's declaration and its binding, a moment later.
    assert!(lost.len() <= EVENTS / 4, "{} are lost", lost.len());
    line.stop().await;
}

fn message_id(message: &Message) -> String {
    let id = message.properties.message_id().as_ref();
    id.expect("an id").to_string()
}

fn delete_exchange(vhost: &Vhost, suffix: &str) {
    let path = format!("exchanges/{}/hookbridge.{suffix}", vhost.name);
    management::must("DELETE", &path, &Value::Null);
}

async fn nothing_is_lost(vhost: &Vhost) {
    let client = vhost.connect().await;
    for queue in ["events", "retry.700", "dead", "rejected", "lost"] {
        let queue = format!("hookbridge.{queue}");
        assert_eq!(client.depth(&queue).await, Some(0), "{queue}");
    }
}
