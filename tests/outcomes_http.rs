//! What each answer of an HTTP endpoint makes of a delivery.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hookbridge::cli::demo::node::free_listener;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use standardwebhooks::Webhook;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    broker::Vhost,
    eventually::SOON,
    http::{Answer, Arrival, Receiver},
    line::{Line, Setup, assert_dead_letter, everything, http, of, subscriber, webhook_id},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_over_http_is_tried_twice_and_then_lies_dead_with_its_reason() {
    let vhost = Vhost::new("http");
    let receiver = Receiver::start().await;
    receiver.answer("/moved", Answer::Redirect(receiver.url("/target")));
    receiver.answer("/301", Answer::Status(301));
    receiver.answer("/404", Answer::Body(404, b"no such hook".into()));
    receiver.answer("/500", Answer::Status(500));
    receiver.answer("/503", Answer::Status(503));
    receiver.answer("/300", Answer::Status(300));
    receiver.answer("/hang", Answer::Hang);
    receiver.answer("/endless", Answer::HangInBody(200));
    receiver.answer("/cut", Answer::CutOff(200));
    receiver.answer("/gone", Answer::Disconnect);
    let trickling = Listener::start(trickle).await;
    let untrusted = Listener::start(self_signed_tls).await;
    let closed = free_listener().unwrap().local_addr().unwrap();

    let table = [
        ("moved", receiver.url("/moved"), "http_status", "302"),
        ("s301", receiver.url("/301"), "http_status", "301"),
        ("s404", receiver.url("/404"), "http_status", "no such hook"),
        ("s500", receiver.url("/500"), "http_status", "500"),
        ("s503", receiver.url("/503"), "http_status", "503"),
        ("s300", receiver.url("/300"), "http_status", "300"),
        ("hang", receiver.url("/hang"), "timeout", "1s"),
        ("endless", receiver.url("/endless"), "timeout", "1s"),
        ("trickle", trickling.url("http"), "timeout", "1s"),
        ("cut", receiver.url("/cut"), "protocol", "broke off"),
        ("gone", receiver.url("/gone"), "protocol", ""),
        ("refused", format!("http://{closed}/"), "connect", "refused"),
        (
            "nameless",
            "http://no-such-host.invalid/".to_owned(),
            "dns",
            "",
        ),
        ("untrusted", untrusted.url("https"), "tls", "certificate"),
    ];
    let subscribers = table
        .iter()
        .map(|(id, url, ..)| subscriber(id, "timeout = \"1s\"", &http(url)));
    let subscribers: Vec<_> = subscribers.collect();
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    line.publish("evt").await;

    let dead = line.dead_letters(table.len()).await;
    for (id, url, reason, detail) in &table {
        let message = of(&dead, id);
        assert_dead_letter(message, "evt", id, 2);
        for prefix in ["hookbridge", "hookbridge-first"] {
            let header = |name: &str| message.header(&format!("{prefix}-{name}")).unwrap();
            assert_eq!(header("reason"), *reason, "{id}: {}", header("detail"));
            assert!(
                header("detail").contains(detail),
                "{id}: {}",
                header("detail")
            );
        }
        let count = table.iter().filter(|row| row.2 == *reason);
        let count = count.fold(0.0, |count, _| count + 1.0);
        for attempt in [1, 2] {
            let labels = format!(r#"attempt="{attempt}",result="{reason}",transport="http""#);
            let series = format!("hookbridge_attempts_total{{{labels}}}");
            line.wait_for_metric(&series, count).await;
        }
        if let Some(path) = url.strip_prefix(&receiver.url("")) {
            assert_eq!(receiver.arrivals_at(path).len(), 2, "{path}");
        }
    }
    assert_eq!(trickling.accepted(), 2);
    assert_eq!(untrusted.accepted(), 2);
    assert!(receiver.arrivals_at("/target").is_empty(), "not followed");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_2xx_is_delivered_once() {
    let vhost = Vhost::new("http");
    let receiver = Receiver::start().await;
    let statuses = [200, 201, 204, 299];
    let mut subscribers: Vec<_> = statuses
        .iter()
        .map(|status| {
            let path = format!("/{status}");
            receiver.answer(&path, Answer::Status(*status));
            everything(&format!("s{status}"), &http(&receiver.url(&path)))
        })
        .collect();
    // Its two attempts give a second one of the others the time to come, if there was one.
    receiver.answer("/500", Answer::Status(500));
    subscribers.push(everything("s500", &http(&receiver.url("/500"))));
    let line = Line::start(&vhost.uri(), &Setup::default(), &subscribers).await;
    line.publish("evt").await;

    of(&line.dead_letters(1).await, "s500");
    for status in statuses {
        let arrivals = receiver.arrivals_at(&format!("/{status}"));
        assert_eq!(arrivals.len(), 1, "{status}");
        assert_eq!(arrivals[0].header("webhook-attempt"), Some("1"));
    }
    let delivered = r#"outcome="delivered",transport="http",webhook="StatusUpdate""#;
    let series = format!("hookbridge_deliveries_total{{{delivered}}}");
    line.wait_for_metric(&series, 4.0).await;
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_address_is_dead_at_once_and_never_connected_to() {
    let vhost = Vhost::new("http");
    let listener = Listener::start(trickle).await;
    let port = listener.address.port();
    let ids = ["literal", "name", "mapped"];
    let hosts = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"];
    let subscribers: Vec<_> = ids
        .iter()
        .zip(hosts)
        .map(|(id, host)| everything(id, &http(&format!("http://{host}:{port}/"))))
        .collect();
    let setup = Setup {
        local_targets: false,
        // What comes before this is over was not retried.
        retry_delay: SOON * 10,
        ..Setup::default()
    };
    let line = Line::start(&vhost.uri(), &setup, &subscribers).await;
    line.publish("evt").await;

    let dead = line.dead_letters(ids.len()).await;
    for id in ids {
        let message = of(&dead, id);
        assert_dead_letter(message, "evt", id, 1);
        let detail = message.header("hookbridge-detail").unwrap();
        let reason = message.header("hookbridge-reason").unwrap();
        assert_eq!(reason, "target_forbidden", "{id}: {detail}");
        assert!(detail.contains("loopback"), "{id}: {detail}");
    }
    assert_eq!(listener.accepted(), 0);
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_once_and_then_succeeds_is_the_same_webhook_again_after_the_delay() {
    const NEW: &str = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldw==";
    const OLD: &str = "whsec_b2xkLXNlY3JldC1vbGQtc2VjcmV0LW9sZA==";
    const OTHER: &str = "whsec_b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldCE=";
    let vhost = Vhost::new("http");
    let receiver = Receiver::start().await;
    receiver.answer_in_turn("/hook", vec![Answer::Status(503), Answer::Status(200)]);
    let lines = format!("signing_secret = [{NEW:?}, {OLD:?}]");
    let target = format!(
        "{}\nauthorization = \"Bearer  two spaces, = and \\\"quotes\\\"\"\n\
         headers = {{ \"x-team\" = \"repairs\", \"X-Empty\" = \"-\" }}",
        http(&receiver.url("/hook?key=value"))
    );
    let setup = Setup::default();
    let subscribers = [subscriber("fixit", &lines, &target)];
    let line = Line::start(&vhost.uri(), &setup, &subscribers).await;
    line.publish("evt").await;

    let arrivals = receiver.wait_for(2, SOON).await;
    let gap = arrivals[1].at - arrivals[0].at;
    assert!(gap >= setup.retry_delay, "{gap:?}");
    assert!(gap < setup.retry_delay + Duration::from_secs(2), "{gap:?}");
    let id = webhook_id("/order-hub", "evt", "fixit");
    for (arrival, attempt) in arrivals.iter().zip(["1", "2"]) {
        let header = |name| arrival.header(name);
        assert_eq!(arrival.method, "POST");
        assert_eq!(arrival.query.as_deref(), Some("key=value"));
        assert_eq!(header("webhook-id"), Some(&*id));
        assert_eq!(header("webhook-attempt"), Some(attempt));
        assert_eq!(header("webhook-type"), Some("StatusUpdate"));
        assert_eq!(header("content-type"), Some("application/json"));
        let agent = concat!("hookbridge/", env!("CARGO_PKG_VERSION"));
        assert_eq!(header("user-agent"), Some(agent));
        let authorization = "Bearer  two spaces, = and \"quotes\"";
        assert_eq!(header("authorization"), Some(authorization));
        assert_eq!(header("x-team"), Some("repairs"));
        assert_eq!(header("x-empty"), Some("-"));
        assert_eq!(arrival.body, arrivals[0].body);
        assert!(verifies(NEW, arrival) && verifies(OLD, arrival));
        assert!(!verifies(OTHER, arrival), "not just any secret");
    }
    let timestamp = |arrival: &Arrival| -> i64 {
        let seconds = arrival.header("webhook-timestamp").unwrap();
        seconds.parse().unwrap()
    };
    let between = timestamp(&arrivals[1]) - timestamp(&arrivals[0]);
    assert!((0..=3).contains(&between), "each has its own: {between}");
    let webhook: serde_json::Value = serde_json::from_str(arrivals[0].text()).unwrap();
    let example: serde_json::Value = serde_json::from_str(crate::support::line::WEBHOOK).unwrap();
    assert_eq!(webhook, example);

    let second = r#"hookbridge_attempts_total{attempt="2",result="delivered",transport="http"}"#;
    line.wait_for_metric(second, 1.0).await;
    assert_eq!(line.client.depth("hookbridge.dead").await, Some(0));
    line.stop().await;
    assert_eq!(receiver.arrivals().len(), 2);
}

fn verifies(secret: &str, arrival: &Arrival) -> bool {
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(&arrival.body, &arrival.headers).is_ok()
}

/// An endpoint that is no HTTP server, or not only.
struct Listener {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Listener {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                lines.spawn(serve(stream));
            }
        });
        Self {
            address,
            accepted,
            _tasks: tasks,
        }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/", self.address)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Answers 200 with a body of which a byte comes now and then, for longer than anybody waits.
async fn trickle(mut stream: TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    let until = Instant::now() + SOON;
    let mut request = [0; 1024];
    if stream.read(&mut request).await.is_err() || stream.write_all(head).await.is_err() {
        return;
    }
    while Instant::now() < until && stream.write_all(b".").await.is_ok() {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Shakes hands with a certificate that nobody trusts.
async fn self_signed_tls(stream: TcpStream) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    // The client ends it, and the test looks at what the bridge makes of that.
    let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
}
