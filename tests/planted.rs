//! Secrets are planted wherever a bridge of this suite is given one, and what bridges show is searched
//! for them: see `support/planted.rs`. Here it is seen that they are really used, that the search
//! finds them, and that no test goes past it.

use std::{fs, path::Path};

use serde_json::json;

use crate::support::{
    api::TOKENS,
    bridge::Setup,
    broker::Vhost,
    eventually::SOON,
    http::{Answer, Receiver},
    planted::{self, MARK},
    postgres,
    program::event,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_of_the_suite_uses_planted_secrets_and_shows_none_of_them() {
    let vhost = Vhost::new("planted");
    assert!(vhost.uri().contains(MARK), "the broker's password");
    assert!(TOKENS.contains(MARK), "the API's tokens");
    assert!(postgres::PASSWORD.contains(MARK), "the database's password");
    let receiver = Receiver::start().await;
    // An endpoint that repeats what it was sent, in an answer that becomes a dead letter.
    receiver.answer_with("/echo", |arrival, _| {
        let sent = ["authorization", "x-planted"].map(|name| arrival.header(name).unwrap());
        Answer::Body(500, sent.join(" ").into_bytes())
    });
    let text = format!(
        "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{}?key={MARK}\"\n",
        receiver.url("/echo")
    );
    let setup = Setup::new(&vhost).settings(TOKENS).sqlite();
    let key = fs::read_to_string(setup.folder().join("store.key")).unwrap();
    assert!(key.contains(MARK), "the key of the store");
    let bridge = setup.subscriber("echo", &text).start().await;
    let api = bridge.api();
    let made = json!({
        "scope": "all", "events": ["*"],
        "http": {"url": receiver.url(&format!("/other?{MARK}")), "authorization": MARK},
    });
    api.put("/v1/subscribers/other", made).await.expect(201);
    bridge.publish(&event("evt", &[])).await;
    let arrivals = receiver.wait_for(3, SOON).await;
    let sent = arrivals.iter().find(|one| one.path == "/echo").unwrap();
    assert_eq!(
        sent.header("authorization"),
        Some(&*format!("Bearer {MARK}"))
    );
    assert_eq!(sent.header("x-planted"), Some(MARK));
    assert_eq!(sent.query.as_deref(), Some(&*format!("key={MARK}")));
    assert!(sent.header("webhook-signature").is_some(), "it is signed");
    let letters = crate::archiving::wait_kept(&bridge.store(), 1).await;
    assert!(letters[0].detail.contains("***"), "{}", letters[0].detail);
    let path = format!("/v1/dead-letters/{}", letters[0].id);
    api.get(&path).await.expect(200);
    // Its stop looks through the rest.
    bridge.stop().await;
}

#[test]
fn the_search_finds_what_it_looks_for() {
    planted::shows_nothing("a text", "Bearer ***");
    let found = std::panic::catch_unwind(|| {
        planted::shows_nothing("a text", &format!("answered 500: Bearer {MARK}!"));
    });
    let said = found.unwrap_err();
    let said = said.downcast_ref::<String>().unwrap();
    assert!(said.contains("a text shows a secret"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    planted::holds_nothing(&file);
    fs::write(&file, [b"\0\xff", MARK.as_bytes()].concat()).unwrap();
    assert!(std::panic::catch_unwind(|| planted::holds_nothing(&file)).is_err());
}

/// Who may start the program or build a bridge: each of them searches what it shows, or (the
/// healthcheck, the demo, a check of the shipped settings) is given no secret.
const STARTERS: [&str; 7] = [
    "support/bridge.rs",
    "support/line.rs",
    "support/program.rs",
    "secrets.rs",
    "admin_doors.rs",
    "demo.rs",
    "deployment.rs",
];

#[test]
fn no_test_starts_a_bridge_past_the_search() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut folders = vec![root.clone()];
    let mut starters = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let starts = [
                concat!("CARGO_BIN_EXE", "_hookbridge"),
                concat!("Bridge::", "build"),
            ];
            if starts.iter().any(|start| text.contains(start)) {
                let path = path.strip_prefix(&root).unwrap();
                starters.push(path.display().to_string());
            }
        }
    }
    starters.sort();
    let mut known = STARTERS.map(str::to_owned);
    known.sort();
    assert_eq!(starters, known);
}
