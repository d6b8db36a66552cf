//! The API's calls, each held to its description: subscribers, hooks of cases, test deliveries,
//! dead letters and replays.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    api::{Answer, Api, TOKENS, described},
    bridge::{RunningBridge, Setup},
    broker::Vhost,
    eventually::{SOON, eventually},
    http::{Answer as Reply, Receiver},
    program::event,
};

const LONG: Duration = Duration::from_mins(1);

async fn bridge(vhost: &Vhost) -> RunningBridge {
    Setup::new(vhost).settings(TOKENS).sqlite().start().await
}

fn everything(url: &str) -> Value {
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

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_described_and_answers_as_its_description_says() {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    receiver.answer("/bad", Reply::Body(500, b"out of order".to_vec()));
    let bridge = bridge(&vhost).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_breaks_rules_changes_nothing_and_hears_of_every_rule() {
    let vhost = Vhost::new("api");
    let bridge = bridge(&vhost).await;
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
async fn a_change_holds_only_for_the_version_that_it_was_made_from() {
    let vhost = Vhost::new("api");
    let bridge = bridge(&vhost).await;
    let api = bridge.api();
    let path = "/v1/subscribers/one";
    let body = || Some(everything("https://one.example"));
    let absent = [("if-none-match", "*")];
    api.call("PUT", path, body(), &[("if-match", "*")])
        .await
        .expect(412);
    let made = api.call("PUT", path, body(), &absent).await.expect(201);
    api.call("PUT", path, body(), &absent).await.expect(412);
    let first = made.header("etag").unwrap();
    let second = api
        .call("PUT", path, body(), &[("if-match", first)])
        .await
        .expect(200);
    let stale = api
        .call("PUT", path, body(), &[("if-match", first)])
        .await
        .expect(412);
    let second = second.header("etag").unwrap();
    assert!(stale.detail().contains(second), "{}", stale.detail());
    let off = || Some(json!({"enabled": false}));
    api.call("PATCH", path, off(), &[("if-match", first)])
        .await
        .expect(412);
    let third = api
        .call("PATCH", path, off(), &[("if-match", second)])
        .await
        .expect(200);
    api.call("DELETE", path, None, &[("if-match", second)])
        .await
        .expect(412);
    let third = third.header("etag").unwrap();
    api.call("PUT", path, body(), &[("if-match", "17")])
        .await
        .expect(400);
    api.call("DELETE", path, None, &[("if-match", third)])
        .await
        .expect(204);
    api.delete(path).await.expect(404);
    api.patch(path, json!({"enabled": true})).await.expect(404);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_written_never_read_and_stay_when_a_read_is_written_back() {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    let bridge = bridge(&vhost).await;
    let api = bridge.api();
    let mut body = everything(&receiver.url("/hook?key=s3cret"));
    body["http"]["authorization"] = "Bearer s3cret".into();
    body["http"]["headers"] = json!({"x-team": "s3cret"});
    body["signing_secret"] = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz".into();
    api.put("/v1/subscribers/one", body).await.expect(201);
    let mut read = api.get("/v1/subscribers/one").await.expect(200).body;
    let shown = read.to_string();
    assert!(
        !shown.contains("s3cret") && !shown.contains("whsec"),
        "{shown}"
    );
    for name in ["origin", "version", "status"] {
        read.as_object_mut().unwrap().remove(name);
    }
    read["timeout"] = "3s".into();
    api.put("/v1/subscribers/one", read.clone())
        .await
        .expect(200);
    let example = || json!({"type": "ActivityChange"});
    let sent = api
        .post("/v1/subscribers/one/test", example())
        .await
        .expect(200)
        .body;
    assert_eq!(sent["outcome"], "delivered", "{sent}");
    let arrival = &receiver.wait_for(1, SOON).await[0];
    assert_eq!(arrival.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(arrival.header("x-team"), Some("s3cret"));
    assert_eq!(arrival.query.as_deref(), Some("key=s3cret"));
    assert!(arrival.header("webhook-signature").is_some());
    assert_eq!(arrival.header("webhook-id"), sent["webhook_id"].as_str());

    read["http"]["url"] = "http://127.0.0.1:9/hook?***".into();
    let refused = api.put("/v1/subscribers/one", read).await.expect(422);
    let fields = ["http.authorization", "http.headers.x-team", "http.url"];
    assert_eq!(refused.fields(), fields);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_target_and_a_new_secret_are_used_by_the_next_attempt() {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    let bridge = bridge(&vhost).await;
    let api = bridge.api();
    let mut body = everything(&receiver.url("/old"));
    body["http"]["authorization"] = "Bearer old".into();
    api.put("/v1/subscribers/one", body.clone())
        .await
        .expect(201);
    receiver.answer("/old", Reply::Status(500));
    bridge.publish(&event("evt", &[])).await;
    receiver.wait_for(1, SOON).await;
    body["http"] = json!({"url": receiver.url("/new"), "authorization": "Bearer new"});
    api.put("/v1/subscribers/one", body).await.expect(200);
    let arrivals = receiver.wait_for(2, SOON).await;
    assert_eq!(arrivals[1].path, "/new");
    assert_eq!(arrivals[1].header("authorization"), Some("Bearer new"));
    assert_eq!(arrivals[1].header("webhook-attempt"), Some("2"));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cases_hook_gets_the_six_types_of_its_case_and_a_url_of_its_own() {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    let file = format!(
        "cases = [\"filed\"]\nevents = [\"*\"]\n[http]\nurl = {:?}\n",
        receiver.url("/filed")
    );
    let setup = Setup::new(&vhost).settings(TOKENS).sqlite();
    let bridge = setup.subscriber("filed", &file).start().await;
    let api = bridge.api();
    let hook = |path: &str| json!({"url": receiver.url(path), "authorization": "Basic abc"});
    let made = api
        .put("/v1/cases/8d30%2Fcc21/hook", hook("/one"))
        .await
        .expect(201);
    let id = made.body["subscriber"].as_str().unwrap().to_owned();
    assert!(id.starts_with("case-") && id.len() == 37, "{id}");
    let shown = api
        .get(&format!("/v1/subscribers/{id}"))
        .await
        .expect(200)
        .body;
    assert_eq!(shown["cases"], json!(["8d30/cc21"]));
    let types = [
        "ActivityChange",
        "ClaimAttributeChange",
        "CaseAttributeChange",
        "ContactAttributeChange",
        "ActivityAttributeChange",
        "ClaimStatusChange",
    ];
    assert_eq!(shown["events"], json!(types));

    let taken = api
        .put("/v1/cases/two/hook", hook("/one"))
        .await
        .expect(409);
    assert!(
        taken.detail().contains("unique per case"),
        "{}",
        taken.detail()
    );
    api.put("/v1/cases/two/hook", hook("/filed"))
        .await
        .expect(409);
    api.put("/v1/cases/two/hook", hook("/two"))
        .await
        .expect(201);
    // A case may have its own again, and another's once that is gone.
    api.put("/v1/cases/two/hook", hook("/two"))
        .await
        .expect(200);
    api.delete("/v1/cases/8d30%2Fcc21/hook").await.expect(204);
    api.put("/v1/cases/two/hook", hook("/one"))
        .await
        .expect(200);
    let off =
        json!({"url": receiver.url("/one"), "authorization": {"set": true}, "enabled": false});
    let off = api.put("/v1/cases/two/hook", off).await.expect(200);
    assert_eq!(off.body["enabled"], false);
    assert_eq!(off.body["authorization"], json!({"set": true}));
    let wrong = api
        .put("/v1/cases/two/hook", json!({"uri": "x", "enabled": 1}))
        .await
        .expect(422);
    assert_eq!(wrong.fields(), ["enabled", "uri", "url"]);
    api.delete("/v1/cases/three/hook").await.expect(404);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_through_filters() {
    let vhost = Vhost::new("api");
    let bridge = bridge(&vhost).await;
    let api = bridge.api();
    for number in 0..25 {
        let mut body = json!({"events": ["StatusUpdate"], "http": {"url": "https://a.example"}});
        body["party"] = format!("party-{}", number % 2).into();
        body["enabled"] = (number % 5 != 0).into();
        if number % 3 == 0 {
            body["cases"] = json!([format!("case-{number}")]);
        }
        let path = format!("/v1/subscribers/s-{number:02}");
        api.put(&path, body).await.expect(201);
    }
    let pages = async |filter: &str, limit: usize| {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/subscribers?limit={limit}{filter}{cursor}");
            let page = api.get(&path).await.expect(200).body;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            all.extend(
                items
                    .iter()
                    .map(|one| one["id"].as_str().unwrap().to_owned()),
            );
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    };
    let all: Vec<_> = (0..25).map(|number| format!("s-{number:02}")).collect();
    assert_eq!(pages("", 10).await, all);
    assert_eq!(pages("", 25).await, all);
    assert_eq!(pages("&party=party-1", 5).await.len(), 12);
    assert_eq!(pages("&enabled=false", 2).await.len(), 5);
    assert_eq!(pages("&case=case-9", 5).await, ["s-09"]);
    assert_eq!(pages("&party=party-0&case=case-9", 5).await.len(), 0);
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
