//! No secret of a subscriber, nor of the bridge itself, is ever shown: not in the log at its
//! loudest, not in the metrics, not in a dead letter.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use hookbridge::cli::demo::node::free_listener;
use serde_json::json;

use crate::support::{
    broker::{Vhost, node},
    client::{Message, Published},
    eventually::{SOON, eventually},
    http::{Answer, Arrival, Receiver},
    line::{Folder, KEY, SOURCE, Setup, event, of, subscriber},
    management,
};

/// Each is found in no other text by chance.
const AUTHORIZATION: &str = "Bearer zQa1-authorization-token";
const SIGNING: &str = "whsec_elFiMi1zaWduaW5nLXNlY3JldC1zaWduaW5n";
const HEADER: &str = "zQc3 \\\"header\\\" value";
const QUERY: &str = "zQd4%20query";
const PASSWORD: &str = "zQe5%2Fpassword";
const HOME: &str = "zQf6-home-password";

/// What must be nowhere: a part of each that every way of writing it has.
const PARTS: [&str; 7] = [
    "zQa1",
    "elFiMi1zaWdu",
    "zQb2",
    "zQc3",
    "zQd4",
    "zQe5",
    "zQf6",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_as_text() {
    no_secret_is_shown("text", "trace,lapin=trace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_as_json() {
    no_secret_is_shown("json", "info,hookbridge=trace,reqwest=debug").await;
}

async fn no_secret_is_shown(format: &str, level: &str) {
    let (vhost, theirs) = (Vhost::new("secrets"), Vhost::new("secrets"));
    let client = vhost.connect().await;
    theirs.connect().await.declare_quorum("theirs").await;
    for (vhost, password) in [(&vhost, HOME), (&theirs, "zQe5/password")] {
        let body = json!({"password": password, "tags": ""});
        management::must("PUT", &format!("users/{}", vhost.name), &body);
    }
    let receiver = Receiver::start().await;
    for path in ["/twice", "/once"] {
        receiver.answer_with(path, move |arrival, before| {
            if before == 0 || path == "/twice" {
                Answer::Body(500, echo(arrival))
            } else {
                Answer::Body(200, echo(arrival))
            }
        });
    }
    receiver.answer("/hang", Answer::HangInBody(200));
    let (subscribers, failing) = subscribers(&receiver, &theirs);
    let admin = free_listener().unwrap().local_addr().unwrap();
    let home = node().amqp_uri_as(&vhost.name, HOME, &vhost.name);
    let settings = Setup::default().settings(&home).replace(
        "listen = \"127.0.0.1:0\"",
        &format!("listen = \"{admin}\"\n[log]\nformat = {format:?}\nlevel = {level:?}"),
    );
    let folder = Folder::new(&settings, &subscribers);
    let log = folder.settings().with_extension("log");
    let program = Program::start(&folder, &log);

    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{admin}{path}")).await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    };
    eventually("the bridge is ready", SOON * 2, async || {
        get("/readyz").await
    })
    .await;
    let published = client.publish(SOURCE, KEY, &event("evt")).await;
    assert_eq!(published, Published::Routed);
    let dead = client.receive("hookbridge.dead", failing.len(), SOON).await;
    eventually("the second attempt", SOON, async || {
        (receiver.arrivals_at("/once").len() == 2).then_some(())
    })
    .await;
    let metrics = get("/metrics").await.unwrap();

    // A set that is wrong in every place that holds a secret is refused, without showing it.
    folder.set_subscribers(&wrong());
    program.signal("HUP");
    let logged = || fs::read_to_string(&log).unwrap();
    eventually("the refusal of the subscribers", SOON, async || {
        logged().contains("stay as they were").then_some(())
    })
    .await;
    program.signal("TERM");
    program.ended().await;

    let detail = of(&dead, "twice").header("hookbridge-detail").unwrap();
    assert!(detail.contains("answered 500"), "{detail}");
    assert!(
        detail.matches("***").count() >= 5,
        "all is echoed: {detail}"
    );
    let logged = logged();
    assert!(
        logged.contains("attempt failed"),
        "there is a log:\n{logged}"
    );
    for id in failing {
        let message = of(&dead, id);
        assert!(logged.contains(id), "{id}");
        show_nothing(id, &shown(message));
    }
    assert!(metrics.contains("hookbridge_attempts_total"));
    show_nothing("metrics", &metrics);
    show_nothing("log", &logged);
}

/// Subscribers with every kind of secret, and the ids of those that fail for good.
fn subscribers(receiver: &Receiver, theirs: &Vhost) -> (Vec<String>, Vec<&'static str>) {
    let signing = format!("signing_secret = {SIGNING:?}\ntimeout = \"1s\"");
    let http = |url: &str| {
        format!(
            "[http]\nurl = \"{url}?key={QUERY}&more=zQd4\"\nauthorization = {AUTHORIZATION:?}\n\
             headers = {{ x-key = \"{HEADER}\" }}"
        )
    };
    let closed = free_listener().unwrap().local_addr().unwrap();
    let uri = |scheme: &str, place: &str| {
        let uri = format!("{scheme}://{}:{PASSWORD}@{place}", theirs.name);
        format!("[amqp]\nuri = {uri:?}\nqueue = \"theirs\"")
    };
    let port = node().amqp_port();
    let targets = [
        ("twice", http(&receiver.url("/twice"))),
        ("hangs", http(&receiver.url("/hang"))),
        ("refused", http(&format!("http://{closed}/"))),
        ("nameless", http("http://no-such-host.invalid/")),
        // It answers TLS's greeting with its own.
        ("plain", http(&format!("https://127.0.0.1:{port}/"))),
        ("not-http", http(&format!("http://127.0.0.1:{port}/"))),
        ("broker-refused", uri("amqp", &format!("{closed}/v"))),
        (
            "broker-vhost",
            uri("amqp", &format!("127.0.0.1:{port}/missing")),
        ),
        (
            "broker-plain",
            uri("amqps", &format!("127.0.0.1:{port}/{}", theirs.name)),
        ),
        ("broker-nameless", uri("amqp", "no-such-host.invalid/v")),
        (
            "broker-login",
            uri("amqp", &format!("127.0.0.1:{port}/{}", theirs.name)).replace(PASSWORD, "zQe5-not"),
        ),
        ("once", http(&receiver.url("/once"))),
        (
            "broker-takes-it",
            uri("amqp", &format!("127.0.0.1:{port}/{}", theirs.name)),
        ),
    ];
    let failing = targets.iter().map(|(id, _)| *id).take(11).collect();
    let all = targets.iter();
    let all = all.map(|(id, target)| subscriber(id, &signing, target));
    (all.collect(), failing)
}

/// Subscribers' files with mistakes in and around each secret.
fn wrong() -> Vec<String> {
    [
        "[http]\nurl = \"http://a.example/?zQd4\"\nauthorization = \"zQa1\\n\"",
        "[http]\nurl = \"http://a.example/?zQd4\"\nheaders = { x-key = \"zQc3\\u0000\" }",
        "[http]\nurl = \"http://a.example/?zQd4#zQd4\"",
        "[http]\nurl = \"http://zQd4:zQd4@a.example/?zQd4\"",
        "[http]\nurl = \"nothing://a.example/?zQd4\"",
        "[amqp]\nuri = \"amqp://u:zQe5@:x/zQe5\"\nqueue = \"q\"",
        "[amqp]\nuri = \"amqp://u:zQe5@a.example\nqueue = \"q\"",
        "[http]\nurl = \"http://a.example/\"\nauthorization = Bearer zQa1",
        "signing_secret = \"whsec_zQb2!\"\n[http]\nurl = \"http://a.example/\"",
        "signing_secret = [\"zQb2\", 7]\n[http]\nurl = \"http://a.example/\"",
    ]
    .iter()
    .enumerate()
    .map(|(number, target)| {
        format!("id = \"wrong-{number}\"\nscope = \"all\"\nevents = [\"*\"]\n{target}\n")
    })
    .collect()
}

/// An answer that repeats all it was sent, as such endpoints do, and what it was never sent.
fn echo(arrival: &Arrival) -> Vec<u8> {
    let key = arrival.header("x-key").unwrap();
    let sent = [
        arrival.header("authorization").unwrap(),
        key,
        arrival.query.as_deref().unwrap(),
        "zQd4 query",
        SIGNING,
        SIGNING.trim_start_matches("whsec_"),
        "zQa1-authorization-token",
    ];
    let mut text = sent.join(" | ");
    text.push_str(" | ");
    text.push_str(&json!({ "key": key }).to_string());
    text.into_bytes()
}

/// All of a message that anybody could see.
fn shown(message: &Message) -> String {
    format!(
        "{} {:?} {}",
        message.routing_key,
        message.properties,
        message.text()
    )
}

#[track_caller]
fn show_nothing(what: &str, text: &str) {
    for part in PARTS {
        if let Some(at) = text.find(part) {
            let before = text.floor_char_boundary(at.saturating_sub(300));
            let after = text.ceil_char_boundary((at + 100).min(text.len()));
            panic!("{what} shows {part}: …{}…", &text[before..after]);
        }
    }
}

/// The program itself, killed when it is dropped.
struct Program(Child);

impl Program {
    fn start(folder: &Folder, log: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_hookbridge"))
            .arg("run")
            .arg("--config")
            .arg(folder.settings())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(File::create(log.with_extension("out")).unwrap())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    async fn ended(mut self) {
        let ended = eventually("the program ends", SOON, async || {
            self.0.try_wait().unwrap()
        });
        assert!(ended.await.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
