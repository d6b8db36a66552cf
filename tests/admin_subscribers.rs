//! Subscribers and the hooks of cases through the API: versions, secrets, pages, and what a change
//! means for the deliveries that follow, with the store in either database.

use hookbridge::{
    store::subscribers::{Condition, Given},
    subscriber::{Subscriber, Target},
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::{
    admin_api::{bridge, everything},
    support::{
        api::TOKENS,
        bridge::{Place, Setup, in_both},
        broker::Vhost,
        eventually::SOON,
        http::{Answer as Reply, Receiver},
        program::event,
    },
};

in_both! {
    a_change_holds_only_for_the_version_that_it_was_made_from,
    secrets_are_written_never_read_and_stay_when_a_read_is_written_back,
    a_kept_secret_is_that_of_the_version_that_was_asked_for,
    a_new_target_and_a_new_secret_are_used_by_the_next_attempt,
    a_cases_hook_gets_the_six_types_of_its_case_and_a_url_of_its_own,
    lists_come_in_pages_and_through_filters,
}

async fn a_change_holds_only_for_the_version_that_it_was_made_from(place: Place) {
    let vhost = Vhost::new("api");
    let bridge = bridge(&vhost, place).await;
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

async fn secrets_are_written_never_read_and_stay_when_a_read_is_written_back(place: Place) {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    let bridge = bridge(&vhost, place).await;
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

async fn a_kept_secret_is_that_of_the_version_that_was_asked_for(place: Place) {
    let vhost = Vhost::new("api");
    let bridge = bridge(&vhost, place).await;
    let api = bridge.api();
    let path = "/v1/subscribers/one";
    let with = |authorization: serde_json::Value| {
        let mut body = everything("https://one.example");
        body["http"]["authorization"] = authorization;
        body
    };
    api.put(path, with(json!("Bearer one"))).await.expect(201);
    // Through another bridge, of which this one has not heard yet.
    let one = bridge.registry.live().load().get("one").unwrap().clone();
    let mut other = Subscriber::clone(&one);
    let Target::Http(target) = &mut other.target else {
        panic!("{:?}", other.target);
    };
    target.authorization = Some("Bearer two".into());
    let saved = bridge
        .store()
        .put_subscriber(&other, Given::default(), Condition::None, "ops")
        .await
        .unwrap();
    let tag = format!("\"{}\"", saved.version);
    let keeping = Some(with(json!({"set": true})));
    let kept = api.call("PUT", path, keeping, &[("if-match", &tag)]).await;
    kept.expect(200);
    let now = bridge.registry.live().load().get("one").unwrap().clone();
    let Target::Http(target) = &now.target else {
        panic!("{:?}", now.target);
    };
    let secret = target.authorization.as_ref().unwrap().expose_secret();
    assert_eq!(secret, "Bearer two");
    let unheard = Some(with(json!({"set": true})));
    let refused = api.call("PUT", path, unheard, &[("if-match", "\"999\"")]);
    refused.await.expect(412);
    bridge.stop().await;
}

async fn a_new_target_and_a_new_secret_are_used_by_the_next_attempt(place: Place) {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    let bridge = bridge(&vhost, place).await;
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

async fn a_cases_hook_gets_the_six_types_of_its_case_and_a_url_of_its_own(place: Place) {
    let vhost = Vhost::new("api");
    let receiver = Receiver::start().await;
    let file = format!(
        "cases = [\"filed\"]\nevents = [\"*\"]\n[http]\nurl = {:?}\n",
        receiver.url("/filed")
    );
    let setup = Setup::new(&vhost).settings(TOKENS);
    let setup = setup.store_in(place).await.subscriber("filed", &file);
    let bridge = setup.start().await;
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

async fn lists_come_in_pages_and_through_filters(place: Place) {
    let vhost = Vhost::new("api");
    let bridge = bridge(&vhost, place).await;
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
