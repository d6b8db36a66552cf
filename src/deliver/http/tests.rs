//! Every outcome that an HTTP endpoint can bring about, over real sockets.

use std::{net::IpAddr, sync::atomic::AtomicUsize, time::Instant as Clock};

use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::*;
use crate::{
    deliver::guard::Lookup,
    delivery::request::tests::{delivery, subscriber},
    subscriber::Target,
};
use receiver::{Authority, Receiver, Then};

mod answers;
mod receiver;
mod requests;
mod targets;
mod tls;

const SIGNING_SECRET: &str = "whsec_c2lnbmluZy1zZWNyZXQtb2YtZml4aXQ=";
const AUTHORIZATION: &str = "Bearer authorization-secret";
const HEADER: &str = "header-secret";
const QUERY: &str = "key=query-secret";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// Long enough never to be what ends a test.
const PLENTY: Duration = Duration::from_secs(30);
/// Short enough to wait for, where a timeout is the outcome.
const SHORT: Duration = Duration::from_millis(400);

/// A sender that may call the loopback's 127.0.0.1 alone; every name is there too.
fn sender() -> HttpSender {
    sender_resolving(|_| Ok(vec![IpAddr::from([127, 0, 0, 1])]))
}

fn sender_resolving(
    answers: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
) -> HttpSender {
    let allow = vec!["127.0.0.1/32".parse().unwrap()];
    let guard = AddressGuard::with_lookup(allow, Lookup::Fixed(Arc::new(answers)));
    HttpSender::new(&targets(), guard).unwrap()
}

fn sender_trusting(authority: &Authority) -> HttpSender {
    let file = ScratchFile::holding(&authority.pem());
    let targets = TargetsSettings {
        ca_file: Some(file.0.clone()),
        ..targets()
    };
    let guard = AddressGuard::with_lookup(
        vec!["127.0.0.1/32".parse().unwrap()],
        Lookup::Fixed(Arc::new(|_| Ok(vec![IpAddr::from([127, 0, 0, 1])]))),
    );
    HttpSender::new(&targets, guard).unwrap()
}

fn targets() -> TargetsSettings {
    TargetsSettings {
        allow_networks: Vec::new(),
        ca_file: None,
        client_certificate_file: None,
        client_key_file: None,
        proxy: None,
    }
}

/// A file of this test alone.
struct ScratchFile(PathBuf);

impl ScratchFile {
    fn holding(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hookbridge-{}.pem", Uuid::new_v4()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Sends one delivery to a subscriber that has a secret of every kind.
async fn send(sender: &HttpSender, url: &str, timeout: Duration) -> Outcome {
    let target = HttpTarget {
        url: Url::parse(&format!("{url}?{QUERY}")).unwrap(),
        authorization: Some(AUTHORIZATION.into()),
        headers: vec![("x-team".to_owned(), HEADER.into())],
    };
    let mut subscriber = subscriber(&[SIGNING_SECRET]);
    subscriber.timeout = timeout;
    subscriber.target = Target::Http(target.clone());
    sender
        .send(&subscriber, &target, &delivery(), Attempt::First)
        .await
        .unwrap()
}

/// The failure of an attempt, after a look at what it says.
#[track_caller]
fn failed(outcome: Outcome) -> Failure {
    let Outcome::Failed(failure) = outcome else {
        panic!("delivered")
    };
    let shown = format!("{failure:?}");
    for secret in ["secret", "whsec_", "?", "/hooks", "\n"] {
        assert!(!shown.contains(secret), "{secret:?} in {shown}");
    }
    failure
}

/// What becomes of an attempt at an endpoint that gives this answer.
async fn answered(answer: impl AsRef<[u8]>, then: Then, timeout: Duration) -> Outcome {
    let receiver = Receiver::answering(answer, then).await;
    let outcome = send(&sender(), &receiver.url("/hooks"), timeout).await;
    assert_eq!(receiver.requests().len(), 1, "sent once");
    assert_eq!(receiver.connections(), 1, "connected once");
    outcome
}

async fn failure_of(answer: impl AsRef<[u8]>, then: Then, timeout: Duration) -> Failure {
    failed(answered(answer, then, timeout).await)
}

fn status(line: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {line}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
