//! SIGHUP: the subscribers are read again, and a mistake among them changes nothing.

use std::{fs, os::unix::fs::symlink, time::Duration};

use standardwebhooks::Webhook;

use crate::support::{
    broker::Vhost,
    client::{Client, Published},
    eventually::SOON,
    http::{Answer, Arrival, Receiver},
    program::{EVENT_KEY, Program, Setup, event_body},
};

const RELOADED: &str = "subscribers loaded";
const OLD: &str = "whsec_b2xkIHNlY3JldCBvZiB0d2VudHktZm91ciBieXRlcyE=";
const NEW: &str = "whsec_bmV3IHNlY3JldCBvZiB0d2VudHktZm91ciBieXRlcyE=";

async fn publish(client: &Client, id: &str) {
    let body = event_body(id);
    let published = client.publish("domain.events", EVENT_KEY, &body).await;
    assert_eq!(published, Published::Routed);
}

/// Sends SIGHUP and waits until the log has told what came of it.
async fn reload(program: &Program, words: &str) {
    let before = program.said(words);
    program.signal("HUP");
    let told = async || (program.said(words) > before).then_some(());
    program
        .watch(&format!("'{words}' once more"), SOON, told)
        .await;
}

/// Waits for the `number`th request to a path.
async fn arrival(receiver: &Receiver, program: &Program, path: &str, number: usize) -> Arrival {
    let come = async || receiver.arrivals_at(path).get(number - 1).cloned();
    let what = format!("request {number} to {path}");
    program.watch(&what, SOON, come).await
}

fn signed(id: &str, url: &str, secret: &str) -> String {
    format!(
        "id = \"{id}\"\nscope = \"all\"\nevents = [\"*\"]\nsigning_secret = \"{secret}\"\n\
         [http]\nurl = \"{url}\"\n"
    )
}

fn verifies(arrival: &Arrival, secret: &str) -> bool {
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(&arrival.body, &arrival.headers).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_subscriber_gets_the_next_event() {
    let vhost = Vhost::new("reload");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    let program = setup.run_ready().await;
    let client = vhost.connect().await;
    publish(&client, "before").await;
    let unmatched = r#"hookbridge_events_total{result="unmatched",type="case.status.updated"}"#;
    program.wait_metric(unmatched, 1.0).await;

    setup.http_subscriber("new", &receiver.url("/new"));
    reload(&program, RELOADED).await;
    publish(&client, "after").await;
    let arrived = arrival(&receiver, &program, "/new", 1).await;
    assert!(arrived.text().contains("\"after\""), "{}", arrived.text());
    program
        .wait_metric(r#"hookbridge_subscribers{state="enabled"}"#, 1.0)
        .await;
    program.stop().await;
    assert_eq!(receiver.arrivals().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_and_url_are_used_by_the_next_attempt() {
    let vhost = Vhost::new("reload");
    let receiver = Receiver::start().await;
    receiver.answer("/old", Answer::Status(500));
    let setup = Setup::of(&vhost);
    // Long enough to change what the second attempt needs.
    setup.set("delivery.retry_delay", "2s");
    setup.subscriber("one", &signed("one", &receiver.url("/old"), OLD));
    let program = setup.run_ready().await;
    publish(&vhost.connect().await, "one").await;
    let first = arrival(&receiver, &program, "/old", 1).await;
    assert!(verifies(&first, OLD) && !verifies(&first, NEW));

    setup.subscriber("one", &signed("one", &receiver.url("/new"), NEW));
    reload(&program, RELOADED).await;
    let second = arrival(&receiver, &program, "/new", 1).await;
    assert!(verifies(&second, NEW) && !verifies(&second, OLD));
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(second.header("webhook-attempt"), Some("2"));
    program.stop().await;
    assert_eq!(receiver.arrivals().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_subscriber_is_unknown_and_its_delivery_a_dead_letter() {
    let vhost = Vhost::new("reload");
    let receiver = Receiver::start().await;
    receiver.answer("/gone", Answer::Status(503));
    let setup = Setup::of(&vhost);
    setup.set("delivery.retry_delay", "2s");
    setup.http_subscriber("gone", &receiver.url("/gone"));
    let url = receiver.url("/other");
    setup.subscriber(
        "other",
        &format!(
            "id = \"other\"\ncases = [\"another\"]\nevents = [\"*\"]\n[http]\nurl = \"{url}\"\n"
        ),
    );
    let program = setup.run_ready().await;
    let client = vhost.connect().await;
    publish(&client, "one").await;
    arrival(&receiver, &program, "/gone", 1).await;
    setup.remove_subscriber("gone");
    reload(&program, RELOADED).await;

    let dead = client.receive("hookbridge.dead", 1, SOON).await;
    let header = |name| dead[0].header(name).unwrap();
    assert_eq!(header("hookbridge-reason"), "subscriber_removed");
    assert_eq!(header("hookbridge-first-reason"), "http_status");
    assert_eq!(header("hookbridge-attempts"), "2");
    publish(&client, "two").await;
    let unmatched = r#"hookbridge_events_total{result="unmatched",type="case.status.updated"}"#;
    program.wait_metric(unmatched, 1.0).await;
    program.stop().await;
    assert_eq!(receiver.arrivals().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_suddenly_empty_keeps_the_subscribers() {
    let vhost = Vhost::new("reload");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("only", &receiver.url("/only"));
    let program = setup.run_ready().await;
    let client = vhost.connect().await;
    setup.remove_subscriber("only");
    reload(&program, "they stay as they were").await;
    publish(&client, "one").await;
    arrival(&receiver, &program, "/only", 1).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_keeps_the_last_good_set_and_is_told_with_file_line_and_remedy() {
    let vhost = Vhost::new("reload");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.subscriber("good", &signed("good", &receiver.url("/good"), OLD));
    let program = setup.run_ready().await;
    let client = vhost.connect().await;

    // A good change beside a bad one is not half taken.
    setup.subscriber("good", &signed("good", &receiver.url("/moved"), OLD));
    let url = receiver.url("/bad");
    let text = format!("id = \"bad\"\nevnts = [\"*\"]\nscope = \"all\"\n[http]\nurl = \"{url}\"\n");
    setup.subscriber("bad", &text);
    reload(&program, "the subscribers stay as they were").await;
    let log = program.log_text();
    let told = program.wait_said("bad.toml:2", SOON).await.text;
    assert!(told.contains("ERROR") && told.contains("evnts"), "{log}");
    assert!(told.contains("Write `events`"), "{log}");
    assert_eq!(program.said(RELOADED), 1, "{log}");
    assert!(!log.contains("b2xkIHNl"), "a secret in the log");

    publish(&client, "one").await;
    arrival(&receiver, &program, "/good", 1).await;
    assert_eq!(program.get("/readyz").await.0, 200);

    setup.subscriber("bad", &text.replace("evnts", "events"));
    reload(&program, RELOADED).await;
    publish(&client, "two").await;
    arrival(&receiver, &program, "/moved", 1).await;
    arrival(&receiver, &program, "/bad", 1).await;
    program.stop().await;
    assert_eq!(receiver.arrivals().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_before_the_broker_is_there_is_obeyed_too() {
    let receiver = Receiver::start().await;
    let setup = Setup::new("amqp://guest:guest@127.0.0.1:1/%2f");
    let program = setup.run();
    program.wait_said("cannot use the home broker", SOON).await;
    setup.http_subscriber("new", &receiver.url("/"));
    reload(&program, RELOADED).await;
    program
        .wait_metric(r#"hookbridge_subscribers{state="enabled"}"#, 1.0)
        .await;
    let mut program = program;
    program.signal("TERM");
    assert_eq!(program.wait_exit(Duration::from_secs(5)).await, Some(0));
}

/// Writes the only subscriber as a mounted ConfigMap has it: a link to a file below the link
/// `..data`, which is swapped for another in one step.
fn mount(setup: &Setup, version: &str, url: &str) {
    let path = |name: &str| setup.path("subscribers").join(name);
    let folder = format!("..{version}");
    fs::create_dir(path(&folder)).unwrap();
    let text = signed("mapped", url, OLD);
    fs::write(path(&folder).join("mapped.toml"), text).unwrap();
    symlink(&folder, path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    if !path("mapped.toml").exists() {
        symlink("..data/mapped.toml", path("mapped.toml")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_config_map_is_read_without_a_signal_where_it_is_watched() {
    let vhost = Vhost::new("reload");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.set("subscribers.watch", "100ms");
    mount(&setup, "2026_11_01", &receiver.url("/old"));
    let program = setup.run_ready().await;
    let client = vhost.connect().await;
    publish(&client, "one").await;
    arrival(&receiver, &program, "/old", 1).await;

    mount(&setup, "2026_11_02", &receiver.url("/new"));
    let twice = async || (program.said(RELOADED) == 2).then_some(());
    program.watch("the new set", SOON, twice).await;
    publish(&client, "two").await;
    arrival(&receiver, &program, "/new", 1).await;

    setup.subscriber("broken", "id = 7\n");
    let told = program.wait_said("broken.toml:1", SOON).await.text;
    assert!(told.contains("ERROR"), "{told}");
    publish(&client, "three").await;
    arrival(&receiver, &program, "/new", 2).await;
    setup.remove_subscriber("broken");
    let thrice = async || (program.said(RELOADED) == 3).then_some(());
    program.watch("the set without it", SOON, thrice).await;
    assert_eq!(program.said("the subscribers stay as they were"), 1);
    program.stop().await;
    assert_eq!(receiver.arrivals().len(), 3);
}
