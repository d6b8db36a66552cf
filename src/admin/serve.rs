//! The listener: accepts, speaks TLS if it has a certificate, and serves HTTP/1.1. Every step has a
//! deadline and every number a bound, since anybody who reaches it may open connections.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{door::Door, patient::Patient};
use crate::{pem, settings::AdminTls};

/// How many connections there may be at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// How long a handshake may take, and the head of a request, from its beginning or from the end of
/// the last answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may wait for its reader to take any more of it.
const STALLED: Duration = Duration::from_secs(10);
/// The pause after accepting failed: most likely there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a stop waits for answers under way.
const GRACE: Duration = Duration::from_secs(3);

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What is wrong with the certificate.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate's file.
    #[error("admin.certificate_file {} holds no PEM certificates: {why}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        why: String,
    },
    /// The key's file.
    #[error("admin.key_file {} holds no PEM private key: {why}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What the reader says; never what is in it.
        why: String,
    },
    /// The two do not fit.
    #[error("admin.certificate_file and admin.key_file cannot be used together: {0}")]
    Pair(String),
}

/// Reads the certificate and its key.
pub(super) fn tls(tls: &AdminTls) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = pem::certificates(&tls.certificate_file).map_err(|why| TlsError::Certificate {
        file: tls.certificate_file.clone(),
        why,
    })?;
    let key = pem::key(&tls.key_file).map_err(|why| TlsError::Key {
        file: tls.key_file.clone(),
        why,
    })?;
    let mut config = ServerConfig::builder_with_provider(pem::provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| TlsError::Pair(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until `stop`, and then what is under way.
pub(super) async fn serve(
    listener: TcpListener,
    door: &Door,
    router: Router,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            // Fails only on a closed semaphore, and it is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("cannot accept a connection to the admin listener: {error}");
                if !is_of_one_connection(&error) {
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        let (router, tls, stop) = (router.clone(), door.tls(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection(accepted, tls, router, stop).await {
                debug!("a connection to the admin listener ended: {error}");
            }
            drop(place);
        });
    }
    connections.close();
    // What does not end by then ends with the process.
    let _ = timeout(GRACE, connections.wait()).await;
}

/// Whether only the connection that was to be accepted is gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn connection(
    (stream, from): (TcpStream, SocketAddr),
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    // Below TLS: what counts is what the reader takes off the line.
    let stream = Patient::new(stream, STALLED);
    let peer = Peer(from.ip());
    let Some(tls) = tls else {
        return Ok(requests(stream, peer, router, stop).await?);
    };
    let stream = timeout(PATIENCE, tls.accept(stream)).await??;
    Ok(requests(stream, peer, router, stop).await?)
}

async fn requests<S>(
    stream: S,
    peer: Peer,
    router: Router,
    stop: CancellationToken,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        ended = served.as_mut() => return ended,
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    served.await
}
