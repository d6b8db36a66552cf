//! No secret that is given to the API is ever shown: not in its answers, right or wrong, not in the
//! log at its loudest, the metrics, the dead letters, what the commands print, nor in the store.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    api::{Api, OPERATOR},
    broker::Vhost,
    client::Client,
    eventually::{SOON, eventually},
    http::{Answer, Arrival, Receiver},
    program::{EVENT_KEY, Program, Setup, event},
};

const AUTHORIZATION: &str = "Bearer zQa1-authorization";
const SIGNING: &str = "whsec_elFiMi1zaWduaW5nLXNlY3JldC1zaWduaW5n";
const HEADER: &str = "zQc3-header";
const QUERY: &str = "key=zQd4-query";
const PASSWORD: &str = "zQe5-password";
/// A part of each that every way of writing it has; and a token that is wrong, and the right one.
const PARTS: [&str; 8] = [
    "zQa1",
    "elFiMi1zaWdu",
    "zQb2",
    "zQc3",
    "zQd4",
    "zQe5",
    "zQg7",
    OPERATOR,
];

#[track_caller]
fn shows_nothing(what: &str, text: &str) {
    for part in PARTS {
        if let Some(at) = text.find(part) {
            let before = text.floor_char_boundary(at.saturating_sub(300));
            let after = text.ceil_char_boundary((at + 100).min(text.len()));
            panic!("{what} shows {part}: …{}…", &text[before..after]);
        }
    }
}

fn subscriber(url: &str) -> Value {
    json!({
        "scope": "all", "events": ["*"], "signing_secret": [SIGNING],
        "http": {
            "url": format!("{url}?{QUERY}"), "authorization": AUTHORIZATION,
            "headers": {"x-key": HEADER},
        },
    })
}

/// An answer that repeats all it was sent.
fn echo(arrival: &Arrival) -> Vec<u8> {
    let parts = [
        arrival.header("authorization").unwrap_or(""),
        arrival.header("x-key").unwrap_or(""),
        arrival.query.as_deref().unwrap_or(""),
        "zQd4-query",
        SIGNING,
    ];
    parts.join(" | ").into_bytes()
}

async fn start(vhost: &Vhost, receiver: &Receiver) -> (Setup, Program) {
    let setup = Setup::of(vhost);
    setup.set("store.url", "sqlite://store.db");
    setup.set("store.secret_key_file", "store.key");
    setup.set("log.level", "trace");
    setup.tokens(&[("ops", OPERATOR, "operator")]);
    receiver.answer_with("/echo", |arrival, _| Answer::Body(500, echo(arrival)));
    let program = setup.run_ready().await;
    let server = format!("http://{}", program.admin().await);
    setup.set_variable("HOOKBRIDGE_SERVER", &server);
    let token = setup.path("ops.token").display().to_string();
    setup.set_variable("HOOKBRIDGE_TOKEN_FILE", &token);
    (setup, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_given_to_the_api_is_ever_shown() {
    let vhost = Vhost::new("secrets");
    let client = vhost.connect().await;
    let receiver = Receiver::start().await;
    let (setup, program) = start(&vhost, &receiver).await;
    let api = Api::new(program.admin().await.parse().unwrap(), Some(OPERATOR));
    let mut shown: Vec<(String, String)> = Vec::new();
    let mut note = |what: &str, text: String| shown.push((what.to_owned(), text));

    right(&api, &client, &receiver, &mut note).await;
    let wrong = wrong();
    refused(&api, &wrong, &mut note).await;
    let stranger = Api::new(
        program.admin().await.parse().unwrap(),
        Some("zQg7-wrong-token"),
    );
    let refused = stranger.get("/v1/subscribers").await.expect(401);
    note("401", format!("{refused:?}"));
    commands(&setup, &wrong, &mut note).await;
    note("metrics", program.get("/metrics").await.1);
    let log = program.log_text();
    program.stop().await;

    for line in [
        "subscriber made through the API",
        "test asked for through the API",
    ] {
        assert!(log.contains(line), "{line} is logged:\n{log}");
    }
    let told = log
        .lines()
        .find(|line| line.contains("subscriber made through the API"));
    let told = told.unwrap();
    for word in ["ops", "echo"] {
        assert!(told.contains(word), "{word} in {told}");
    }
    note("log", log);
    for (what, text) in &shown {
        shows_nothing(what, text);
    }
    for name in ["store.db", "store.db-wal"] {
        let bytes = fs::read(setup.path(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        shows_nothing(name, &text);
        assert!(name != "store.db" || !bytes.is_empty(), "there is a store");
    }
}

/// Everything that is right: made, read, tried out, and failing for good.
async fn right(
    api: &Api,
    client: &Client,
    receiver: &Receiver,
    note: &mut impl FnMut(&str, String),
) {
    let outside = json!({
        "scope": "all", "events": ["*"],
        "amqp": {"uri": format!("amqp://user:{PASSWORD}@127.0.0.1:1/%2f"), "queue": "theirs"},
    });
    let hook = json!({"url": format!("{}?{QUERY}", receiver.url("/hook")), "authorization": AUTHORIZATION});
    for (path, body) in [
        ("/v1/subscribers/echo", subscriber(&receiver.url("/echo"))),
        ("/v1/subscribers/outside", outside),
        ("/v1/cases/one/hook", hook),
    ] {
        let made = api.put(path, body).await.expect(201);
        note(path, format!("{:?} {}", made.headers, made.body));
        note(path, api.get(path).await.expect(200).body.to_string());
    }
    for id in ["echo", "outside"] {
        let path = format!("/v1/subscribers/{id}/test");
        let test = api
            .post(&path, json!({"type": "StatusUpdate"}))
            .await
            .expect(200)
            .body;
        assert_eq!(test["outcome"], "failed", "{test}");
        note(&path, test.to_string());
    }
    let body = event("evt", &[]).to_string();
    client
        .publish("domain.events", EVENT_KEY, body.as_bytes())
        .await;
    let letters = eventually("two dead letters", SOON * 2, async || {
        let list = api.get("/v1/dead-letters").await.expect(200).body;
        (list["items"].as_array().unwrap().len() == 2).then_some(list)
    })
    .await;
    assert!(
        letters.to_string().contains("***"),
        "the echo is masked: {letters:#}"
    );
    note("dead letters", letters.to_string());
    for letter in letters["items"].as_array().unwrap() {
        let path = format!("/v1/dead-letters/{}", letter["id"]);
        note(&path, api.get(&path).await.expect(200).body.to_string());
    }
}

/// A subscriber with a secret in each place, and each place wrong.
fn wrong() -> Value {
    let mut wrong = subscriber("https://zQb2.example/zQb2\u{7f}");
    wrong["signing_secret"] = json!(["zQb2", 7]);
    wrong["http"]["authorization"] = json!({"zQb2": "zQb2\n"});
    wrong["http"]["headers"] = json!({"x-key": "zQb2\n"});
    wrong["amqp"] = json!({"uri": "http://u:zQb2@host", "queue": "q"});
    wrong["http"]["url"] = "ftp://user:zQb2@a.example/?zQb2".into();
    wrong
}

/// What is refused.
async fn refused(api: &Api, wrong: &Value, note: &mut impl FnMut(&str, String)) {
    for path in ["/v1/subscribers/echo", "/v1/cases/one/hook"] {
        let refused = api.put(path, wrong.clone()).await.expect(422);
        assert!(!refused.fields().is_empty(), "{:#}", refused.body);
        let refused = refused.body.to_string();
        // A key is no secret's place, and is named.
        note(path, refused);
        let request = api
            .request("PUT", path)
            .header("content-type", "application/json");
        let broken = request.body("{\"http\": {\"authorization\": \"zQb2\", ");
        note(path, api.answer(broken).await.expect(400).body.to_string());
    }
}

/// What the commands print.
async fn commands(setup: &Setup, wrong: &Value, note: &mut impl FnMut(&str, String)) {
    fs::write(setup.path("wrong.json"), wrong.to_string()).unwrap();
    fs::write(setup.path("broken.toml"), "[http]\nauthorization = zQb2\n").unwrap();
    for arguments in [
        &["subscribers", "list"][..],
        &["subscribers", "list", "--json"],
        &["subscribers", "show", "echo"],
        &["subscribers", "show", "outside", "--json"],
        &["subscribers", "test", "echo"],
        &["subscribers", "put", "echo", "wrong.json"],
        &["subscribers", "put", "echo", "broken.toml"],
        &["dead-letters", "list"],
        &["dead-letters", "show", "1"],
        &["dead-letters", "show", "1", "--json"],
    ] {
        let ended = setup.call(arguments).await;
        assert!(
            !ended.out.is_empty() || !ended.err.is_empty(),
            "{arguments:?}"
        );
        note(&format!("{arguments:?}"), ended.out + &ended.err);
    }
}
