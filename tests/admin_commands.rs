//! The commands that speak the API, against a running bridge.

use std::fs;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{
    api::{OPERATOR, VIEWER},
    broker::Vhost,
    eventually::{SOON, eventually},
    http::{Answer, Receiver},
    program::{EVENT_KEY, Ended, Program, Setup, event},
};

async fn start(vhost: &Vhost) -> (Setup, Program) {
    let setup = Setup::of(vhost);
    setup.set("store.url", "sqlite://store.db");
    setup.set("store.secret_key_file", "store.key");
    setup.tokens(&[("ops", OPERATOR, "operator"), ("desk", VIEWER, "viewer")]);
    let program = setup.run_ready().await;
    let server = format!("http://{}", program.admin().await);
    setup.set_variable("HOOKBRIDGE_SERVER", &server);
    let file = setup.path("ops.token").display().to_string();
    setup.set_variable("HOOKBRIDGE_TOKEN_FILE", &file);
    (setup, program)
}

#[track_caller]
fn done(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains(words), "{words} in {}", ended.out);
}

#[track_caller]
fn failed(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(1), "{}{}", ended.out, ended.err);
    assert!(ended.err.contains(words), "{words} in {}", ended.err);
    assert_eq!(ended.out, "");
}

fn lines(ended: &Ended) -> Vec<Value> {
    let lines = ended.out.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_are_listed_shown_put_switched_tested_and_removed() {
    let vhost = Vhost::new("commands");
    let receiver = Receiver::start().await;
    receiver.answer("/bad", Answer::Body(500, b"out of order".to_vec()));
    let (setup, program) = start(&vhost).await;
    let one = json!({"party": "fixit", "events": ["*"], "http": {"url": receiver.url("/one"), "authorization": "Bearer one"}});
    fs::write(setup.path("one.json"), one.to_string()).unwrap();
    let two = format!(
        "scope = \"all\"\nevents = [\"StatusUpdate\"]\n[http]\nurl = {:?}\n",
        receiver.url("/bad")
    );
    fs::write(setup.path("two.toml"), two).unwrap();
    done(
        &setup.call(&["subscribers", "put", "one", "one.json"]).await,
        "one is saved, version",
    );
    done(
        &setup.call(&["subscribers", "put", "two", "two.toml"]).await,
        "two is saved",
    );

    let list = setup.call(&["subscribers", "list"]).await;
    done(&list, "party fixit");
    assert_eq!(list.out.lines().count(), 3, "{}", list.out);
    let list = setup
        .call(&["subscribers", "list", "--json", "--party", "fixit"])
        .await;
    assert_eq!(lines(&list).len(), 1);
    assert_eq!(lines(&list)[0]["id"], "one");
    let shown = setup.call(&["subscribers", "show", "one"]).await;
    done(&shown, "authorization");
    assert!(!shown.out.contains("Bearer one"), "{}", shown.out);

    // What is shown can be changed and put back, and keeps its secret.
    let shown = setup.call(&["subscribers", "show", "one", "--json"]).await;
    let version = lines(&shown)[0]["version"].to_string();
    let put = ["subscribers", "put", "one", "-", "--if-match"];
    let put = |version| [&put[..], &[version]].concat();
    done(
        &setup.call_with(&put(&version), &shown.out).await,
        "one is saved",
    );
    failed(
        &setup.call_with(&put(&version), &shown.out).await,
        "read it again",
    );
    done(
        &setup.call(&["subscribers", "test", "one"]).await,
        "delivered in",
    );
    assert_eq!(
        receiver.arrivals_at("/one")[0].header("authorization"),
        Some("Bearer one")
    );
    let test = setup
        .call(&["subscribers", "test", "two", "NewMessage"])
        .await;
    assert_eq!(test.code, Some(1), "{}", test.err);
    assert!(
        test.out.contains("http_status") && test.out.contains("out of order"),
        "{}",
        test.out
    );

    done(
        &setup.call(&["subscribers", "disable", "two"]).await,
        "two is disabled",
    );
    let list = setup
        .call(&["subscribers", "list", "--disabled", "--json"])
        .await;
    assert_eq!(lines(&list)[0]["id"], "two");
    done(
        &setup.call(&["subscribers", "enable", "two"]).await,
        "two is enabled",
    );
    failed(
        &setup.call(&["subscribers", "delete", "two"]).await,
        "--yes",
    );
    done(&setup.call(&["subscribers", "show", "two"]).await, "two");
    done(
        &setup.call(&["subscribers", "delete", "two", "--yes"]).await,
        "two is removed",
    );
    failed(
        &setup.call(&["subscribers", "show", "two"]).await,
        "no subscriber \"two\"",
    );

    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_in_words_and_all_of_it() {
    let vhost = Vhost::new("commands");
    let (setup, program) = start(&vhost).await;
    fs::write(
        setup.path("bad.json"),
        "{\"events\": [\"Status\"], \"http\": {}}",
    )
    .unwrap();
    let bad = setup.call(&["subscribers", "put", "bad", "bad.json"]).await;
    failed(&bad, "finds 3 mistakes");
    assert!(
        bad.err.contains("`http.url` is missing. Write the URL"),
        "{}",
        bad.err
    );
    let desk = setup.path("desk.token").display().to_string();
    let viewer = ["subscribers", "disable", "one", "--token-file", &desk];
    failed(&setup.call(&viewer).await, "may read and not change");
    setup.set_variable("HOOKBRIDGE_TOKEN_FILE", "wrong.token");
    failed(&setup.call(&["subscribers", "list"]).await, "wrong.token");
    fs::write(setup.path("wrong.token"), "s3cret").unwrap();
    let wrong = setup.call(&["subscribers", "list"]).await;
    failed(&wrong, "look at --token-file");
    assert!(!wrong.err.contains("s3cret"));
    let absent = ["subscribers", "list", "--server", "http://127.0.0.1:1"];
    failed(&setup.call(&absent).await, "look whether it runs");
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_replayed_and_purged() {
    let vhost = Vhost::new("commands");
    let client = vhost.connect().await;
    let receiver = Receiver::start().await;
    receiver.answer("/", Answer::Body(500, b"out of order".to_vec()));
    let (setup, program) = start(&vhost).await;
    let one = json!({"scope": "all", "events": ["*"], "http": {"url": receiver.url("/")}});
    fs::write(setup.path("one.json"), one.to_string()).unwrap();
    done(
        &setup.call(&["subscribers", "put", "one", "one.json"]).await,
        "saved",
    );
    for number in 0..3 {
        let body = event(&format!("evt-{number}"), &[]).to_string();
        client
            .publish("domain.events", EVENT_KEY, body.as_bytes())
            .await;
    }
    let listed = eventually("three dead letters", SOON * 2, async || {
        let list = setup.call(&["dead-letters", "list", "--json"]).await;
        (lines(&list).len() == 3).then_some(list)
    })
    .await;
    let id = lines(&listed)[0]["id"].to_string();
    let table = setup.call(&["dead-letters", "list", "--limit", "2"]).await;
    done(&table, "http_status");
    assert_eq!(table.out.lines().count(), 3, "{}", table.out);
    assert!(table.err.contains("there are more"), "{}", table.err);
    let none = ["dead-letters", "list", "--json", "--reason", "timeout"];
    assert_eq!(lines(&setup.call(&none).await).len(), 0);
    let recent = [
        "dead-letters",
        "list",
        "--json",
        "--since",
        "1h",
        "--subscriber",
        "one",
    ];
    assert_eq!(lines(&setup.call(&recent).await).len(), 3);
    let shown = setup.call(&["dead-letters", "show", &id]).await;
    done(&shown, "out of order");
    assert!(shown.out.contains("\"guid\":"), "{}", shown.out);

    receiver.answer("/", Answer::Status(200));
    replay(&setup, &id).await;
    purge(&setup, &id).await;
    program.stop().await;
}

/// Replays the one of this id, and then the two others.
async fn replay(setup: &Setup, id: &str) {
    failed(&setup.call(&["dead-letters", "replay"]).await, "--all");
    let dry = setup
        .call(&["dead-letters", "replay", "--all", "--dry-run"])
        .await;
    done(&dry, "3 would be replayed");
    let replay = setup.call(&["dead-letters", "replay", "--id", id]).await;
    done(&replay, "done: 1 of 1 replayed");
    let replay = setup
        .call(&["dead-letters", "replay", "--subscriber", "one", "--json"])
        .await;
    assert_eq!(replay.code, Some(0), "{}", replay.err);
    let last = lines(&replay).pop().unwrap();
    assert_eq!(
        (&last["state"], &last["replayed"]),
        (&json!("done"), &json!(2))
    );
    let replays = setup.call(&["dead-letters", "replays"]).await;
    done(&replays, "ops");
    assert_eq!(replays.out.lines().count(), 3, "{}", replays.out);
    let number = last["id"].to_string();
    done(
        &setup
            .call(&["dead-letters", "replays", "--watch", &number])
            .await,
        "done",
    );
    done(
        &setup
            .call(&["dead-letters", "replays", "--stop", &number])
            .await,
        "done",
    );
}

/// Removes the one of this id, and then the two others.
async fn purge(setup: &Setup, id: &str) {
    failed(
        &setup.call(&["dead-letters", "purge", "--yes"]).await,
        "at least one filter",
    );
    failed(
        &setup.call(&["dead-letters", "purge", "--id", id]).await,
        "--yes",
    );
    done(
        &setup
            .call(&["dead-letters", "purge", "--id", id, "--yes"])
            .await,
        "1 removed",
    );
    done(
        &setup
            .call(&["dead-letters", "purge", "--kind", "dead", "--yes"])
            .await,
        "2 removed",
    );
    failed(
        &setup.call(&["dead-letters", "show", id]).await,
        "no dead letter",
    );
    let wrong = setup
        .call(&["dead-letters", "list", "--reason", "timeot"])
        .await;
    failed(&wrong, "write timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_hears_nothing_of_a_call() {
    let vhost = Vhost::new("commands");
    let (setup, program) = start(&vhost).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    for name in ["http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"] {
        setup.set_variable(name, &address);
    }
    // Whoever runs this may have exceptions set.
    for name in ["no_proxy", "NO_PROXY"] {
        setup.set_variable(name, "");
    }
    let arguments = ["subscribers", "list"];
    tokio::select! {
        _ = proxy.accept() => panic!("the call, with its token, goes to the proxy"),
        ended = setup.call(&arguments) => assert_eq!(ended.code, Some(0), "{}", ended.err),
    }
    program.stop().await;
}
