//! TLS with client certificates, on the home broker and on a subscriber's: both ask for one here, and
//! take none but their authority's.

use std::time::Duration;

use hookbridge::cli::demo::node::{NodeOptions, PrivateNode, free_listener};
use tempfile::TempDir;

use crate::support::{
    broker::Vhost,
    certificates::{Authority, end_of},
    client::{Client, Published},
    eventually::SOON,
    http::Receiver,
    line::{self, Line, assert_dead_letter, everything},
    program::{EVENT_KEY, Program, Setup, event_body},
};

/// A broker with TLS that asks for certificates, and what a client needs to talk to it.
struct Ground {
    node: PrivateNode,
    port: u16,
    folder: TempDir,
    authority: Authority,
}

impl Ground {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let authority = Authority::new();
        std::fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
        authority.server("localhost").write(folder.path(), "server");
        authority.client(2035).write(folder.path(), "client");
        // Of another authority, and well made otherwise.
        Authority::new()
            .client(2035)
            .write(folder.path(), "stranger");
        let port = free_listener().unwrap().local_addr().unwrap().port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let options = NodeOptions {
            config: vec![
                format!("listeners.ssl.1 = 127.0.0.1:{port}"),
                format!("ssl_options.cacertfile = {}", at("ca.pem")),
                format!("ssl_options.certfile = {}", at("server.pem")),
                format!("ssl_options.keyfile = {}", at("server.key")),
                "ssl_options.verify = verify_peer".to_owned(),
                "ssl_options.fail_if_no_peer_cert = true".to_owned(),
            ],
            ..NodeOptions::default()
        };
        let start = tokio::task::spawn_blocking(move || PrivateNode::start(&options).unwrap());
        Self {
            node: start.await.unwrap(),
            port,
            folder,
            authority,
        }
    }

    fn uri(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.port)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Over the port without TLS, for what the test does itself.
    async fn client(&self) -> Client {
        Client::connect(&self.node.amqp_uri("/")).await
    }

    /// A bridge with this broker as its home, and this certificate if there is one.
    fn setup(&self, certificate: Option<&str>) -> Setup {
        let setup = Setup::new(&self.uri());
        setup.set("broker.ca_file", self.path("ca.pem"));
        if let Some(name) = certificate {
            let (file, key) = (format!("{name}.pem"), format!("{name}.key"));
            setup.set("broker.client_certificate_file", self.path(&file));
            setup.set("broker.client_key_file", self.path(&key));
        }
        setup
    }
}

/// A bridge with these settings is refused, and says so in these words.
async fn refused(setup: &Setup, words: &str) {
    let mut program = setup.run();
    let line = program.wait_said("cannot use the home broker", SOON).await;
    assert!(line.text.contains(words), "{}", line.text);
    program.wait_unready(words, SOON).await;
    assert_eq!(program.said("connected to the home broker"), 0);
    program.signal("TERM");
    assert_eq!(program.wait_exit(SOON).await, Some(0));
}

async fn ends(program: &Program, shown: &str, year: i32) {
    let series =
        format!("hookbridge_certificate_expiry_timestamp_seconds{{certificate=\"{shown}\"}}");
    program.wait_metric(&series, end_of(year)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_broker_that_asks_for_a_certificate_takes_the_bridges_and_no_other() {
    let ground = Ground::start().await;
    let receiver = Receiver::start().await;
    let setup = ground.setup(Some("client"));
    setup.http_subscriber("all", &receiver.url("/"));
    let program = setup.run_ready().await;
    let client = ground.client().await;
    let published = client
        .publish("domain.events", EVENT_KEY, &event_body("one"))
        .await;
    assert_eq!(published, Published::Routed);
    receiver.wait_for(1, SOON).await;
    ends(&program, "broker", 2035).await;
    // Renewed in place, as whatever renews it does.
    ground
        .authority
        .client(2036)
        .write(ground.folder.path(), "client");
    ends(&program, "broker", 2036).await;
    program.stop().await;

    refused(&ground.setup(None), "received fatal alert").await;
    refused(&ground.setup(Some("stranger")), "received fatal alert").await;
    let distrustful = ground.setup(Some("client"));
    distrustful.set("broker.ca_file", self_made(&ground));
    refused(&distrustful, "TLS with localhost failed").await;
}

/// The file of an authority that signed nothing here.
fn self_made(ground: &Ground) -> String {
    let path = ground.path("other.pem");
    std::fs::write(&path, Authority::new().pem).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribers_broker_that_asks_for_a_certificate_takes_the_bridges_and_no_other() {
    let ground = Ground::start().await;
    let client = ground.client().await;
    client.declare_quorum("theirs").await;
    let target = format!("[amqp]\nuri = {:?}\nqueue = \"theirs\"", ground.uri());
    let subscribers = [everything("theirs", &target)];
    let setup = |certificate: &str| line::Setup {
        targets: format!("ca_file = {:?}\n{certificate}", ground.path("ca.pem")),
        timeout: Duration::from_secs(2),
        ..line::Setup::default()
    };
    let shown = |name: &str| {
        let (file, key) = (format!("{name}.pem"), format!("{name}.key"));
        format!(
            "client_certificate_file = {:?}\nclient_key_file = {:?}",
            ground.path(&file),
            ground.path(&key)
        )
    };

    let vhost = Vhost::new("tls");
    let line = Line::start(&vhost.uri(), &setup(&shown("client")), &subscribers).await;
    line.publish("evt").await;
    assert_eq!(client.receive("theirs", 1, SOON).await.len(), 1);
    let series = r#"hookbridge_certificate_expiry_timestamp_seconds{certificate="targets"}"#;
    line.wait_for_metric(series, end_of(2035)).await;
    line.stop().await;

    for certificate in [String::new(), shown("stranger")] {
        let vhost = Vhost::new("tls");
        let line = Line::start(&vhost.uri(), &setup(&certificate), &subscribers).await;
        line.publish("evt").await;
        let dead = line.dead_letters(1).await;
        assert_dead_letter(&dead[0], "evt", "theirs", 2);
        let reason = dead[0].header("hookbridge-reason").unwrap();
        let detail = dead[0].header("hookbridge-detail").unwrap();
        assert_eq!(reason, "tls", "{certificate}: {detail}");
        line.stop().await;
    }
    assert!(client.get("theirs").await.is_none(), "only the first came");
}
