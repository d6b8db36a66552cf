//! The admin listener: `/livez`, `/readyz`, `/metrics`, and the API below `/v1`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    settings::AdminSettings,
    telemetry::metrics::{Metrics, Worst},
};

mod api;
mod auth;
mod cases;
mod catalogue;
mod dead_letters;
mod door;
pub mod forms;
mod openapi;
mod patient;
mod problem;
mod rates;
mod replays;
mod request;
mod serve;
mod subscribers;
mod test_delivery;

pub use api::{Attempt, Attempting, Handles, StatusOf};
pub use door::Door;
pub use openapi::document;
pub use problem::Problem;
pub use serve::TlsError;

/// The part that everything else needs.
pub const BROKER: &str = "home broker";

/// Whether the bridge does its work, and why not. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, String>>>);

impl Readiness {
    /// Sets or clears the reason why `part` is not ready.
    pub fn set(&self, part: &str, reason: Option<String>) {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => reasons.insert(part.to_owned(), reason),
            None => reasons.remove(part),
        };
    }

    /// What stands in the way, a line each; nothing when ready.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a broker there are no consumers, which goes without saying.
        if let Some(reason) = reasons.get(BROKER) {
            return vec![format!("{BROKER}: {reason}")];
        }
        reasons
            .iter()
            .map(|(part, reason)| format!("{part}: {reason}"))
            .collect()
    }
}

/// Why the admin listener could not start.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address.
    #[error(
        "cannot listen on {address} for probes, metrics and the API: {error}; change admin.listen"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The admin listener, bound but not yet serving.
pub struct Admin {
    listener: TcpListener,
    door: Arc<Door>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Binds the listener; port 0 takes a free one.
    pub async fn bind(
        settings: &AdminSettings,
        readiness: Readiness,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ListenError> {
        let address = settings.listen;
        let door = Arc::new(Door::new(settings)?);
        if settings.tls.is_none() && !settings.tokens.is_empty() && !address.ip().is_loopback() {
            warn!(
                %address,
                "the API's tokens and secrets go over the network unencrypted: set admin.certificate_file and admin.key_file, or listen on loopback"
            );
        }
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| ListenError::Bind { address, error })?;
        Ok(Self {
            listener,
            door,
            readiness,
            metrics,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What opens it, to be renewed while it serves.
    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    /// Answers until `stop`.
    pub async fn serve(self, handles: Handles, stop: CancellationToken) {
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .with_state(self.readiness)
            .merge(
                Router::new()
                    .route("/metrics", get(metrics))
                    .with_state((self.metrics, handles.worst.clone())),
            );
        let router = api::router(router, handles, self.door.clone());
        serve::serve(self.listener, &self.door, router, stop).await;
    }
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

async fn metrics(State((metrics, worst)): State<(Arc<Metrics>, Arc<Worst>)>) -> Response {
    match metrics.render(&*worst) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
