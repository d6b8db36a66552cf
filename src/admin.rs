//! The admin listener: `/livez`, `/readyz` and `/metrics`.

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

use crate::telemetry::metrics::Metrics;

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
#[error("cannot listen on {address} for probes and metrics: {error}; change admin.listen")]
pub struct ListenError {
    address: SocketAddr,
    error: std::io::Error,
}

/// The admin listener, bound but not yet serving.
pub struct Admin {
    listener: TcpListener,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Binds the listener; port 0 takes a free one.
    pub async fn bind(
        address: SocketAddr,
        readiness: Readiness,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| ListenError { address, error })?;
        Ok(Self {
            listener,
            readiness,
            metrics,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`.
    pub async fn serve(self, stop: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .with_state(self.readiness)
            .merge(
                Router::new()
                    .route("/metrics", get(metrics))
                    .with_state(self.metrics),
            );
        axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await
    }
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

async fn metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
