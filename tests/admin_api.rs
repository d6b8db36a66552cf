//! The API's calls, each held to its description: subscribers, hooks of cases, test deliveries,
//! dead letters and replays, with the store in either database.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    api::{Answer, Api, TOKENS, described},
    bridge::{Place, RunningBridge, Setup, in_both},
    broker::Vhost,
    eventually::{SOON, eventually},
    http::{Answer as Reply, Receiver},
    program::event,
};

const LONG: Duration = Duration::from_mins(1);

in_both! {
    every_call_is_described_and_answers_as_its_description_says,
    a_request_that_breaks_rules_changes_nothing_and_hears_of_every_rule,
}

pub(crate) async fn bridge(vhost: &Vhost, place: Place) -> RunningBridge {
    let setup = Setup::new(vhost).settings(TOKENS);
    setup.store_in(place).await.start().await
}

pub(crate) fn everything(url: &str) -> Value {
    json!({"scope": "all", "events": ["*"], "http": {"url": url}})
}

/// Waits until as many dead letters are in the store, and shows them.
async fn letters(api: &Api, count: usize) -> Vec<Value> {
    let there = async || {
        let list = api.get("/v1/dead-letters").await.expect(200).body;
        let items = list["items"].as_array().unwrap().clone();
        (items.len() == count).then_some(items)
    };
    eventually(&format!("{count} dead letters"), LONG, there).await
}

async fn every_call_is_described_and_answers_as_its_description_says(place: Place) {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    receiver.answer("/bad", Reply::Body(500, b"out of order".to_vec()));
    let bridge = bridge(&vhost, place).await;
    let api = bridge.api();
    api.get("/openapi.json").await.expect(200);
    let types = api.get("/v1/webhook-types").await.expect(200).body;
    assert_eq!(types["items"].as_array().unwrap().len(), 10);

    // Subscribers.
    let made = api
        .put("/v1/subscribers/bad", everything(&receiver.url("/bad")))
        .await
        .expect(201);
    assert_eq!(made.body["origin"], "store");
    let replaced = api
        .put("/v1/subscribers/bad", everything(&receiver.url("/bad")))
        .await
        .expect(200);
    assert_ne!(made.header("etag"), replaced.header("etag"));
    let shown = api.get("/v1/subscribers/bad").await.expect(200);
    assert_eq!(shown.header("etag"), replaced.header("etag"));
    assert_eq!(shown.body["status"]["in_flight"], 0);
    let list = api
        .get("/v1/subscribers?enabled=true&limit=5")
        .await
        .expect(200);
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
    let test = api
        .post("/v1/subscribers/bad/test", json!({"type": "StatusUpdate"}))
        .await
        .expect(200)
        .body;
    assert_eq!(
        (&test["outcome"], &test["reason"]),
        (&json!("failed"), &json!("http_status"))
    );
    assert!(
        test["detail"].as_str().unwrap().contains("out of order"),
        "{test}"
    );

    // A case's hook.
    let hook = json!({"url": receiver.url("/case"), "authorization": "Basic abc"});
    api.put("/v1/cases/one/hook", hook).await.expect(201);
    let hook = api.get("/v1/cases/one/hook").await.expect(200).body;
    assert_eq!(hook["authorization"], json!({"set": true}));
    api.delete("/v1/cases/one/hook").await.expect(204);
    api.get("/v1/cases/one/hook").await.expect(404);

    bridge.publish(&event("evt", &[])).await;
    dead_letter_and_replay(&api, &receiver).await;

    // The end of the subscriber.
    let off = api
        .patch("/v1/subscribers/bad", json!({"enabled": false}))
        .await;
    assert_eq!(off.expect(200).body["enabled"], false);
    api.delete("/v1/subscribers/bad").await.expect(204);
    api.get("/v1/subscribers/bad").await.expect(404);

    assert_eq!(
        api.driven(),
        described(),
        "every call that is described was made"
    );
    bridge.stop().await;
}

/// Every call about a dead letter of the subscriber at `/bad`, and its way back there.
async fn dead_letter_and_replay(api: &Api, receiver: &Receiver) {
    let letter = &letters(api, 1).await[0];
    assert_eq!(letter["reason"], "http_status");
    let listed = api.get("/v1/dead-letters?kind=dead&subscriber=bad").await;
    assert_eq!(listed.expect(200).body["items"], json!([letter]));
    let path = format!("/v1/dead-letters/{}", letter["id"]);
    let full = api.get(&path).await.expect(200).body;
    assert_eq!(full["subscriber_now"], "enabled");
    let payload: Value = serde_json::from_str(full["payload"].as_str().unwrap()).unwrap();
    assert_eq!(payload["guid"], "evt");
    let count = api
        .post(
            "/v1/dead-letters/replay",
            json!({"subscriber": "bad", "dry_run": true}),
        )
        .await
        .expect(200);
    assert_eq!(count.body["total"], 1);
    receiver.answer("/bad", Reply::Status(200));
    let begun = api
        .post("/v1/dead-letters/replay", json!({"type": "StatusUpdate"}))
        .await
        .expect(202);
    let place = begun.header("location").unwrap().to_owned();
    let done = async || {
        let replay = api.get(&place).await.expect(200).body;
        (replay["state"] == "done").then_some(replay)
    };
    let replay = eventually("the replay is done", LONG, done).await;
    assert_eq!(
        (&replay["replayed"], &replay["by"]),
        (&json!(1), &json!("ops"))
    );
    let stopped = api.call("POST", &format!("{place}/stop"), None, &[]).await;
    assert_eq!(stopped.expect(200).body["state"], "done");
    let replays = api.get("/v1/replays?limit=1").await.expect(200).body;
    assert_eq!(replays["items"].as_array().unwrap().len(), 1);
    let id = api.get(&path).await.expect(200).body["webhook_id"].clone();
    eventually("the replay arrives", SOON, async || {
        let arrivals = receiver.arrivals_at("/bad");
        let ids = arrivals
            .iter()
            .filter(|one| one.header("webhook-id") == id.as_str());
        (ids.count() == 3).then_some(())
    })
    .await;
    let gone = api.delete("/v1/dead-letters?kind=dead").await.expect(200);
    assert_eq!(gone.body["deleted"], 1);
    api.get(&path).await.expect(404);
}

async fn a_request_that_breaks_rules_changes_nothing_and_hears_of_every_rule(place: Place) {
    let vhost = Vhost::new("api");
    let bridge = bridge(&vhost, place).await;
    let api = bridge.api();
    let good = everything("https://one.example/hooks");
    let made = api.put("/v1/subscribers/one", good).await.expect(201);
    let before = api.get("/v1/subscribers/one").await.body;
    let bad = json!({
        "enabled": false, "events": ["StatusUpdat", "NewMessage"], "cases": [], "timeout": "2m",
        "http": {"url": "ftp://one.example", "authorization_file": "/etc/passwd", "headers": {"Host": "a"}},
    });
    let refused = api.put("/v1/subscribers/one", bad).await.expect(422);
    let fields = [
        "cases",
        "events.0",
        "events.1",
        "http.authorization_file",
        "http.headers.Host",
        "http.url",
        "timeout",
    ];
    assert_eq!(refused.fields(), fields, "{:#}", refused.body);
    assert!(
        refused.detail().contains("Write \"StatusUpdate\""),
        "{}",
        refused.detail()
    );
    assert!(
        refused
            .detail()
            .contains("a request gives the secret itself")
    );
    let after = api.get("/v1/subscribers/one").await;
    assert_eq!(after.body, before);
    assert_eq!(after.header("etag"), made.header("etag"));

    for (path, body) in [
        ("/v1/subscribers/Wrong", everything("https://a.example")),
        ("/v1/subscribers/case-1", everything("https://a.example")),
        ("/v1/subscribers/two", json!([])),
        (
            "/v1/subscribers/two",
            json!({"id": "three", "scope": "all", "events": ["*"], "http": {"url": "https://a.example"}}),
        ),
    ] {
        let refused = api.put(path, body).await.expect(422);
        assert!(!refused.fields().is_empty(), "{:#}", refused.body);
    }
    api.patch("/v1/subscribers/one", json!({"enabled": "no"}))
        .await
        .expect(422);
    let refused = api
        .patch(
            "/v1/subscribers/one",
            json!({"enabled": true, "timeout": "1s"}),
        )
        .await;
    assert_eq!(refused.expect(422).fields(), ["timeout"]);
    let refused = api
        .post("/v1/subscribers/one/test", json!({"type": "Status"}))
        .await;
    assert_eq!(refused.expect(422).fields(), ["type"]);
    let refused = api
        .post(
            "/v1/dead-letters/replay",
            json!({"kind": "ded", "since": 5}),
        )
        .await;
    assert_eq!(refused.expect(422).fields(), ["kind", "since"]);
    for path in [
        "/v1/subscribers?limit=0",
        "/v1/subscribers?enabled=yes",
        "/v1/subscribers?partty=a",
        "/v1/subscribers?party=a&party=b",
        "/v1/dead-letters?since=yesterday",
        "/v1/dead-letters?kind=ded",
        "/v1/dead-letters?reason=bad",
        "/v1/dead-letters?cursor=nonsense",
        "/v1/dead-letters?id=one",
    ] {
        let refused = api.get(path).await.expect(400);
        assert!(!refused.detail().is_empty(), "{path}");
    }
    let refused = api.delete("/v1/dead-letters").await.expect(400);
    assert!(
        refused.detail().contains("at least one"),
        "{}",
        refused.detail()
    );
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_from_a_file_is_shown_and_changed_only_there() {
    let vhost = Vhost::new("api");
    let file = "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"http://127.0.0.1:1/?key=s3cret\"\n\
                authorization = \"Bearer s3cret\"\n";
    let setup = Setup::new(&vhost).settings(TOKENS).sqlite();
    let bridge = setup.subscriber("fixit", file).start().await;
    let api = bridge.api();
    let shown = api.get("/v1/subscribers/fixit").await.expect(200);
    assert_eq!(shown.body["origin"], "file");
    assert!(
        shown.body["file"]
            .as_str()
            .unwrap()
            .ends_with("fixit.toml:1")
    );
    assert!(
        !shown.body.to_string().contains("s3cret"),
        "{:#}",
        shown.body
    );
    assert_eq!(shown.header("etag"), None);
    let named = |answer: Answer| {
        let answer = answer.expect(409);
        assert!(
            answer.detail().contains("fixit.toml:1"),
            "{}",
            answer.detail()
        );
    };
    named(
        api.put("/v1/subscribers/fixit", everything("https://a.example"))
            .await,
    );
    named(
        api.patch("/v1/subscribers/fixit", json!({"enabled": false}))
            .await,
    );
    named(api.delete("/v1/subscribers/fixit").await);
    let still = api.get("/v1/subscribers/fixit").await.body;
    assert_eq!(still["enabled"], true);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_subscribers_are_read_and_everything_else_says_why_not() {
    let vhost = Vhost::new("api");
    let file = "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"http://127.0.0.1:1/\"\n";
    let setup = Setup::new(&vhost).settings(TOKENS);
    let bridge = setup.subscriber("fixit", file).start().await;
    let api = bridge.api();
    api.get("/v1/subscribers").await.expect(200);
    api.get("/v1/subscribers/fixit").await.expect(200);
    let hook = json!({"url": "https://a.example"});
    let replay = json!({"ids": [1]});
    for answer in [
        api.put("/v1/subscribers/one", everything("https://a.example"))
            .await,
        api.patch("/v1/subscribers/one", json!({"enabled": true}))
            .await,
        api.delete("/v1/subscribers/one").await,
        api.put("/v1/cases/one/hook", hook).await,
        api.delete("/v1/cases/one/hook").await,
        api.get("/v1/dead-letters").await,
        api.get("/v1/dead-letters/1").await,
        api.delete("/v1/dead-letters?id=1").await,
        api.post("/v1/dead-letters/replay", replay).await,
        api.get("/v1/replays").await,
        api.get("/v1/replays/1").await,
        api.call("POST", "/v1/replays/1/stop", None, &[]).await,
    ] {
        let answer = answer.expect(503);
        assert!(answer.detail().contains("store.url"), "{:#}", answer.body);
    }
    bridge.stop().await;
}
