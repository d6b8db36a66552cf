//! An endpoint on the loopback that answers as it is told, byte for byte, and keeps count.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::PrivateKeyDer,
        server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

/// What follows the bytes of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request on the connection.
    Next,
    /// The end of the connection; `drained` is told when the client has ended it too.
    Close,
    /// Nothing, with the connection open.
    Hang,
    /// A byte now and then.
    Trickle,
    /// As many bytes as the client takes; `drained` is told when it takes no more.
    Flood,
}

/// An endpoint; it is gone when this is dropped.
pub(super) struct Receiver {
    pub(super) port: u16,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    connections: Mutex<usize>,
    requests: Mutex<Vec<String>>,
    alpn: Mutex<Vec<Vec<u8>>>,
    drained: Notify,
}

/// The answers of one connection after the other; the last is repeated.
type Script = Arc<[(Vec<u8>, Then)]>;

impl Receiver {
    /// Gives the same answer to every request.
    pub(super) async fn answering(answer: impl AsRef<[u8]>, then: Then) -> Self {
        Self::following([(answer, then)]).await
    }

    /// Gives the nth answer to the nth request, over all connections, and then the last one.
    pub(super) async fn following<A: AsRef<[u8]>>(
        script: impl IntoIterator<Item = (A, Then)>,
    ) -> Self {
        Self::start("127.0.0.1", script, None).await
    }

    /// The same, by TLS.
    pub(super) async fn with_tls(answer: &str, then: Then, tls: ServerConfig) -> Self {
        Self::start("127.0.0.1", [(answer, then)], Some(tls)).await
    }

    async fn start<A: AsRef<[u8]>>(
        ip: &str,
        script: impl IntoIterator<Item = (A, Then)>,
        tls: Option<ServerConfig>,
    ) -> Self {
        let script: Script = script
            .into_iter()
            .map(|(answer, then)| (answer.as_ref().to_vec(), then))
            .collect();
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, script, tls, Arc::clone(&seen)));
        Self {
            port,
            seen,
            _serving: serving,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Heads and bodies of the requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.seen.connections.lock().unwrap()
    }

    /// The protocol that the last TLS connection agreed on.
    pub(super) fn alpn(&self) -> Option<Vec<u8>> {
        self.seen.alpn.lock().unwrap().last().cloned()
    }

    /// Waits until a connection that the endpoint closes or floods is ended by the client.
    pub(super) async fn drained(&self) {
        self.seen.drained.notified().await;
    }
}

async fn accept(listener: TcpListener, script: Script, tls: Option<TlsAcceptor>, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        *seen.connections.lock().unwrap() += 1;
        let (script, tls, seen) = (Arc::clone(&script), tls.clone(), Arc::clone(&seen));
        connections.spawn(async move {
            match tls {
                None => serve(stream, script, seen).await,
                Some(tls) => {
                    // A handshake that fails is for the client to tell of.
                    if let Ok(stream) = tls.accept(stream).await {
                        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                        seen.alpn.lock().unwrap().extend(alpn);
                        serve(stream, script, seen).await;
                    }
                }
            }
        });
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script, seen: Arc<Seen>) {
    while let Some(request) = read_request(&mut stream).await {
        let nth = {
            let mut requests = seen.requests.lock().unwrap();
            requests.push(request);
            requests.len() - 1
        };
        let (answer, then) = &script[nth.min(script.len() - 1)];
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match then {
            Then::Next => continue,
            Then::Close => {
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            Then::Hang => {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            Then::Trickle => {
                while stream.write_all(b".").await.is_ok() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            Then::Flood => while stream.write_all(&[b'.'; 16 * 1024]).await.is_ok() {},
        }
        seen.drained.notify_one();
        return;
    }
}

/// One request with its body, or `None` when the client sends no more.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A certificate authority of a test's own.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A server with a certificate for `name`.
    pub(super) fn server(&self, name: &str) -> ServerConfig {
        self.configured(name, Arc::new(NoClientAuth))
    }

    /// A server that wants a certificate from its clients.
    pub(super) fn suspicious_server(&self, name: &str) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
        self.configured(name, verifier.build().unwrap())
    }

    fn configured(&self, name: &str, clients: Arc<dyn ClientCertVerifier>) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap()
    }
}
