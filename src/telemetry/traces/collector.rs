//! The collector: takes requests from the thread that gathers spans, and makes them on the bridge's
//! runtime. Says once that it takes none, and once that it does again.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::{Client, redirect};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use url::Url;

use crate::subscriber::address;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client of the collector.
pub(super) struct Collector {
    client: Client,
    runtime: Handle,
    tasks: TaskTracker,
    state: Arc<State>,
}

struct State {
    /// Scheme, host and port.
    address: String,
    /// Whether the log says that it takes nothing.
    away: AtomicBool,
}

impl Collector {
    /// A client, whose requests are made in the runtime that this is called in.
    pub(super) fn new(endpoint: &Url, tasks: TaskTracker) -> Result<Self, String> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            runtime: Handle::try_current().map_err(|error| error.to_string())?,
            tasks,
            state: Arc::new(State {
                address: address(endpoint),
                away: AtomicBool::new(false),
            }),
        })
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Collector")
            .field(&self.state.address)
            .finish()
    }
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> Answering<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let (client, state) = (self.client.clone(), self.state.clone());
        let asked = async move {
            let answer = send(&client, request).await;
            state.note(&answer);
            answer
        };
        let asked = self.tasks.spawn_on(asked, &self.runtime);
        Box::pin(async move { asked.await? })
    }
}

impl State {
    fn note(&self, answer: &Result<Response<Bytes>, HttpError>) {
        let why = match answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("answered {}", answer.status())),
            Err(error) => Some(deepest(&**error)),
        };
        let was_away = self.away.swap(why.is_some(), Ordering::Relaxed);
        match why {
            Some(why) if !was_away => {
                warn!(
                    "traces: {} takes none: {why}; they are dropped meanwhile",
                    self.address
                );
            }
            None if was_away => info!("traces: {} takes them again", self.address),
            _ => {}
        }
    }
}

/// What an error is in the end: the client's own would show the whole address.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

async fn send(client: &Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let request = request.try_into()?;
    let answer = client
        .execute(request)
        .await
        .map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    // What it says is not looked at; reading it keeps the connection.
    let body = answer.bytes().await.map_err(reqwest::Error::without_url)?;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}
