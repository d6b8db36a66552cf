//! What the JSON form is held to, and which secrets survive being written back.

use std::time::Duration;

use super::*;
use crate::subscriber::{HttpTarget, Interest, form};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const OTHER: &str = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0";

fn rules() -> Rules {
    Rules {
        timeout: Duration::from_secs(15),
        shutdown_timeout: Duration::from_secs(30),
        max_in_flight: 64,
        prefix: "hookbridge".to_owned(),
        source_exchange: "domain.events".to_owned(),
    }
}

fn sound(body: Json, current: Option<&Subscriber>) -> Subscriber {
    let read = subscriber("fixit", body, current, &rules());
    read.unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .subscriber
}

fn wrong(body: Json, current: Option<&Subscriber>) -> Vec<(String, String)> {
    let mistakes = subscriber("fixit", body, current, &rules()).unwrap_err();
    let of = |Mistake { place, what, .. }| (place.to_string(), what);
    mistakes.into_iter().map(of).collect()
}

fn full() -> Json {
    json!({
        "party": "fixit", "cases": ["one"], "events": ["StatusUpdate", "NewMessage"],
        "signing_secret": [SECRET, OTHER], "timeout": "10s", "max_in_flight": 7,
        "http": {
            "url": "https://fixit.example/hooks?key=s3cret",
            "authorization": "Bearer s3cret",
            "headers": {"X-Team": "s3cret"},
        },
    })
}

fn http(subscriber: &Subscriber) -> &HttpTarget {
    match &subscriber.target {
        Target::Http(target) => target,
        Target::Amqp(_) => panic!("not HTTP"),
    }
}

#[test]
fn the_json_form_says_what_a_file_says() {
    let one = sound(full(), None);
    assert_eq!(one.id.as_str(), "fixit");
    assert!(one.enabled && one.events.contains(WebhookType::NewMessage));
    assert_eq!(one.interest.party(), Some("fixit"));
    assert_eq!(
        (one.timeout, one.max_in_flight),
        (Duration::from_secs(10), 7)
    );
    assert_eq!(one.signing_secrets.len(), 2);
    assert_eq!(http(&one).headers[0].0, "x-team");
}

#[test]
fn every_mistake_is_found_at_once_and_named_by_its_place() {
    let body = json!({
        "id": "other", "enabled": "yes", "evnts": [], "events": ["NewMessage", "Nonsense"],
        "cases": ["one", 5], "timeout": "45s", "max_in_flight": 0, "signing_secret": "s3cret",
        "http": {"url": "ftp://a.example", "headers": {"host": "a", "x/y~": "b"}},
        "amqp": {"queue": "hookbridge.first", "uri": null},
    });
    let found = wrong(body, None);
    let places: Vec<_> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        [
            "/amqp",
            "/amqp/uri",
            "/cases/1",
            "/enabled",
            "/events/0",
            "/events/1",
            "/evnts",
            "/http/headers/host",
            "/http/headers/x~1y~0",
            "/http/url",
            "/id",
            "/max_in_flight",
            "/signing_secret",
            "/timeout",
        ],
        "{found:#?}"
    );
    assert!(!format!("{found:?}").contains("s3cret"));
}

#[test]
fn files_and_variables_exist_only_in_files() {
    for (key, body) in [
        (
            "signing_secret_file",
            json!({"signing_secret_file": "/etc/passwd"}),
        ),
        (
            "http/authorization_file",
            json!({"http": {"url": "http://a.example", "authorization_file": "/etc/passwd"}}),
        ),
        (
            "http/authorization_env",
            json!({"http": {"url": "http://a.example", "authorization_env": "PATH"}}),
        ),
        (
            "amqp/uri_file",
            json!({"amqp": {"queue": "q", "uri_file": "/etc/passwd"}}),
        ),
        (
            "amqp/uri_env",
            json!({"amqp": {"queue": "q", "uri_env": "PATH"}}),
        ),
    ] {
        let mut whole = json!({"party": "p", "events": ["*"]});
        if body.get("signing_secret_file").is_some() {
            whole["http"] = json!({"url": "http://a.example"});
        }
        whole
            .as_object_mut()
            .unwrap()
            .extend(body.as_object().unwrap().clone());
        let found = wrong(whole, None);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, format!("/{key}"));
        assert!(
            found[0].1.contains("is for subscribers' files"),
            "{found:?}"
        );
    }
}

#[test]
fn what_a_read_shows_can_be_written_back_and_keeps_every_secret() {
    let current = sound(full(), None);
    let shown = serde_json::to_value(form::shown(&current)).unwrap();
    assert!(!shown.to_string().contains("s3cret"), "{shown}");
    assert!(!shown.to_string().contains("whsec"), "{shown}");
    let again = sound(shown, Some(&current));
    assert_eq!(http(&again).url, http(&current).url);
    let secret = |one: &Subscriber| {
        http(one)
            .authorization
            .as_ref()
            .unwrap()
            .expose_secret()
            .to_owned()
    };
    assert_eq!(secret(&again), "Bearer s3cret");
    assert_eq!(http(&again).headers[0].1.expose_secret(), "s3cret");
    assert_eq!(again.signing_secrets[1].expose_secret(), OTHER);

    let outside = json!({
        "scope": "all", "events": ["*"],
        "amqp": {"uri": "amqps://u:s3cret@rabbit.example/v", "queue": "q"},
    });
    let current = sound(outside, None);
    let shown = serde_json::to_value(form::shown(&current)).unwrap();
    assert!(!shown.to_string().contains("s3cret"), "{shown}");
    let again = sound(shown, Some(&current));
    let Target::Amqp(target) = &again.target else {
        panic!()
    };
    let uri = target.broker.as_ref().unwrap().uri.expose_secret();
    assert_eq!(uri, "amqps://u:s3cret@rabbit.example/v");
}

#[test]
fn a_kept_secret_is_never_sent_to_another_address() {
    let current = sound(full(), None);
    let mut shown = serde_json::to_value(form::shown(&current)).unwrap();
    shown["http"]["url"] = "https://elsewhere.example/hooks?***".into();
    let found = wrong(shown, Some(&current));
    let places: Vec<_> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        ["/http/authorization", "/http/headers/x-team", "/http/url"]
    );
    // Nor is there anything to keep where there was nothing.
    let found = wrong(
        json!({"party": "p", "events": ["*"], "signing_secret": {"set": true}, "amqp": {"queue": "q", "uri": {"set": true}}}),
        None,
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_new_signing_secret_goes_before_the_kept_one() {
    let current = sound(full(), None);
    let mut shown = serde_json::to_value(form::shown(&current)).unwrap();
    let new = "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2";
    shown["signing_secret"] = json!([new, {"set": true}]);
    let secrets = sound(shown, Some(&current)).signing_secrets;
    let secrets: Vec<_> = secrets.iter().map(ExposeSecret::expose_secret).collect();
    assert_eq!(secrets, [new, SECRET]);
}

#[test]
fn a_hook_is_a_subscriber_of_its_case_with_the_id_that_the_case_gives_it() {
    let body =
        json!({"url": "https://a.example/hook", "authorization": "Basic abc", "enabled": false});
    let one = hook("8d30cc21", body, None, &rules()).unwrap().subscriber;
    assert_eq!(one.id.as_str(), "case-ed2702631bc5ff54b2e8517eec0eb868");
    assert!(!one.enabled);
    assert_eq!(
        one.interest,
        Interest::Cases(["8d30cc21".to_owned()].into())
    );
    for kind in WebhookType::ALL {
        assert_eq!(one.events.contains(kind), HOOK_EVENTS.contains(&kind));
    }
    let plain = hook(
        "8d30cc21",
        json!({"url": "https://a.example", "authorization": null}),
        None,
        &rules(),
    );
    assert!(plain.unwrap().subscriber.enabled);
}

#[test]
fn mistakes_in_a_hook_are_named_as_the_hook_names_its_fields() {
    let found = hook(
        "",
        json!({"url": "ftp://a", "authorisation": "x", "enabled": 1}),
        None,
        &rules(),
    )
    .unwrap_err();
    let found: Vec<_> = found
        .iter()
        .map(|one| (one.place.to_string(), one.what.clone()))
        .collect();
    let places: Vec<_> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        ["/authorisation", "/case", "/enabled", "/url"],
        "{found:?}"
    );
    assert!(
        found[3].1.starts_with("`url` has another scheme"),
        "{found:?}"
    );
    let found = hook("one", json!({}), None, &rules()).unwrap_err();
    assert!(
        found.to_string().starts_with("/url: `url` is missing"),
        "{found}"
    );
}
