//! Attempts a delivery to an HTTP endpoint: one POST, nothing followed, nothing sent twice.
//!
//! One client serves every subscriber, so that connections are kept. An idle connection may be
//! closed by the endpoint in the moment that a request goes out on it. What had not been written
//! yet goes out on another connection; what had been written may have been taken in, so it is
//! never sent again: the attempt has failed (`protocol`), and the counted retry is the second
//! one. To make that rare, an idle connection is given up before endpoints usually do.

use std::{
    convert::Infallible,
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{
    Body, Certificate, Client, Method, Proxy, Request, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect, retry,
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use crate::{
    deliver::guard::AddressGuard,
    delivery::request::webhook_headers,
    delivery::{Attempt, Delivery, Failure, Outcome, Reason},
    lack::{Lack, Shortage},
    settings::TargetsSettings,
    subscriber::{HttpTarget, Subscriber, address},
};

mod fault;
#[cfg(test)]
mod tests;

use fault::Ended;

const USER_AGENT: &str = concat!("hookbridge/", env!("CARGO_PKG_VERSION"));
/// Idle connections kept for one host: as many as there may be attempts under way at it. Between two
/// attempts each of these connections is idle for a moment, and one that was closed then would have
/// to be made anew.
const IDLE_CONNECTIONS: usize = crate::courses::HOST_LIMIT;
/// Below the 2 and 5 seconds after which common servers close an idle connection.
const IDLE_TIME: Duration = Duration::from_millis(1500);
/// How long connecting may take, TLS included. The addresses of a name share it, so that one behind
/// which nothing is does not keep the others from being tried.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// About as many headers as a request has, the client's own included.
const HEADERS: usize = 16;
/// At most this much of an answer is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;
/// How long the body of an answer that is a failure already may take.
const FAILURE_BODY_TIME: Duration = Duration::from_secs(1);
/// How much of such a body a detail quotes, in bytes.
const QUOTE_LIMIT: usize = 200;

/// Sends deliveries to HTTP endpoints. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct HttpSender {
    client: Client,
    /// `None` behind an egress proxy, which does the check itself.
    guard: Option<AddressGuard>,
}

/// Why the HTTP client cannot be set up.
#[derive(Debug, Error)]
pub enum HttpSetupError {
    /// The file of certificate authorities cannot be read.
    #[error("cannot read targets.ca_file {}: {error}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file of certificate authorities holds none.
    #[error("targets.ca_file {} holds no PEM certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The proxy is not an address. It may hold a password, so the error does not show it.
    #[error("targets.proxy is not an http:// or https:// URL")]
    Proxy,
    /// TLS cannot be set up: a certificate is unusable, or there is no trusted one at all.
    #[error("cannot set up the HTTP client for targets: {0}")]
    Client(String),
}

impl HttpSender {
    /// A sender for targets as `targets` says. `guard` judges every address before it is connected
    /// to, unless there is an egress proxy.
    ///
    /// # Errors
    /// [`HttpSetupError`] names the setting that is wrong.
    pub fn new(targets: &TargetsSettings, guard: AddressGuard) -> Result<Self, HttpSetupError> {
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIME)
            // As much as an endpoint may send before it is read.
            .http2_initial_stream_window_size(u32::try_from(ANSWER_LIMIT).ok());
        if let Some(path) = &targets.ca_file {
            builder = builder.tls_certs_merge(certificates(path)?);
        }
        let guard = if let Some(url) = &targets.proxy {
            builder = builder.proxy(proxy(url)?);
            None
        } else {
            builder = builder.dns_resolver(GuardedNames(guard.clone()));
            Some(guard)
        };
        let client = builder
            .build()
            .map_err(|error| HttpSetupError::Client(fault::root(&error).to_string()))?;
        Ok(Self { client, guard })
    }

    /// Attempts `delivery` once, within the subscriber's timeout. An error says what the bridge
    /// itself lacked for it.
    pub async fn send(
        &self,
        subscriber: &Subscriber,
        target: &HttpTarget,
        delivery: &Delivery,
        attempt: Attempt,
    ) -> Result<Outcome, Shortage> {
        // The address may be shown as it is; a short secret could be a part of it.
        let detail = |detail: &str| {
            let detail = subscriber.redact(detail);
            format!("{}: {detail}", address(&target.url))
        };
        match self.attempt(subscriber, target, delivery, attempt).await {
            Ok(()) => Ok(Outcome::Delivered),
            Err(Ended::Failed(Failure {
                reason,
                detail: why,
            })) => Ok(Outcome::Failed(Failure::new(reason, detail(&why)))),
            Err(Ended::Wanting(lack, why)) => Err(Shortage {
                lack,
                detail: detail(&why),
            }),
        }
    }

    async fn attempt(
        &self,
        subscriber: &Subscriber,
        target: &HttpTarget,
        delivery: &Delivery,
        attempt: Attempt,
    ) -> Result<(), Ended> {
        let limit = Limit::starting_now(subscriber.timeout);
        self.check_literal(&target.url)?;
        let connected = Arc::new(AtomicBool::new(false));
        let headers = headers(subscriber, target, delivery, attempt)?;
        let request = request(target, headers, delivery, &connected);
        let response = match timeout_at(limit.deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.ended(&error, &target.url).await),
            Err(_) if connected.load(Ordering::Relaxed) => {
                return Err(limit.exceeded("connected, but no answer").into());
            }
            Err(_) => return Err(limit.exceeded("no connection").into()),
        };
        if response.status().is_success() {
            Ok(accepted(response, &limit).await?)
        } else {
            Err(refused(response, &limit, subscriber).await.into())
        }
    }

    /// What a request ended with that got no answer.
    async fn ended(&self, error: &reqwest::Error, url: &Url) -> Ended {
        let failure = fault::failure(error, error.is_connect());
        match fault::lack(error) {
            Some(lack) if error.is_connect() && self.holds_for(lack, url).await => {
                Ended::Wanting(lack, failure.detail)
            }
            Some(_) | None => failure.into(),
        }
    }

    /// Whether it is this that kept every address of the target from being connected to. An egress
    /// proxy is no subscriber's fault in any case.
    async fn holds_for(&self, lack: Lack, url: &Url) -> bool {
        let (Lack::Ports, Some(guard)) = (lack, &self.guard) else {
            return true;
        };
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        match guard.resolve(host, port).await {
            Ok(addresses) => addresses.into_iter().all(|address| lack.holds_for(address)),
            Err(_) => false,
        }
    }

    /// The resolver is not asked about an IP literal, so it is judged here.
    fn check_literal(&self, url: &Url) -> Result<(), Failure> {
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        match &self.guard {
            Some(guard) => guard
                .check(ip)
                .map_err(|forbidden| Failure::new(Reason::TargetForbidden, forbidden.to_string())),
            None => Ok(()),
        }
    }
}

/// The end of an attempt's time, and how to say that it was reached.
struct Limit {
    deadline: Instant,
    timeout: Duration,
}

impl Limit {
    fn starting_now(timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + timeout,
            timeout,
        }
    }

    fn exceeded(&self, what: impl Display) -> Failure {
        let timeout = humantime::format_duration(self.timeout);
        Failure::new(Reason::Timeout, format!("{what} within {timeout}"))
    }
}

/// Resolves names to the addresses that the guard lets pass; the client connects to these and to
/// no others.
struct GuardedNames(AddressGuard);

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            // Port 0 stands for the URL's.
            let addresses = guard.resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, HttpSetupError> {
    let pem = fs::read(path).map_err(|error| HttpSetupError::CaFile {
        path: path.to_owned(),
        error,
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(HttpSetupError::NoCertificate {
            path: path.to_owned(),
        }),
    }
}

fn proxy(url: &SecretString) -> Result<Proxy, HttpSetupError> {
    let url = Url::parse(url.expose_secret()).map_err(|_| HttpSetupError::Proxy)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(HttpSetupError::Proxy);
    }
    Proxy::all(url).map_err(|_| HttpSetupError::Proxy)
}

fn headers(
    subscriber: &Subscriber,
    target: &HttpTarget,
    delivery: &Delivery,
    attempt: Attempt,
) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(delivery.payload.len()));
    for (name, value) in webhook_headers(subscriber, delivery, attempt, Timestamp::now())? {
        let value = HeaderValue::try_from(value).map_err(|_| unsendable(name))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, secret_value("authorization", authorization)?);
    }
    for (name, value) in &target.headers {
        let key = HeaderName::try_from(name).map_err(|_| unsendable(name))?;
        headers.insert(key, secret_value(name, value)?);
    }
    Ok(headers)
}

fn secret_value(name: &str, value: &SecretString) -> Result<HeaderValue, Failure> {
    let mut value =
        HeaderValue::from_bytes(value.expose_secret().as_bytes()).map_err(|_| unsendable(name))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unsendable(header: &str) -> Failure {
    let detail = format!("the header {header} has a character that a header cannot have");
    Failure::new(Reason::Protocol, detail)
}

/// The request, which sets `connected` when its body is asked for: there is a connection then.
fn request(
    target: &HttpTarget,
    headers: HeaderMap,
    delivery: &Delivery,
    connected: &Arc<AtomicBool>,
) -> Request {
    let (payload, connected) = (delivery.payload.clone(), Arc::clone(connected));
    let body = futures_util::stream::once(async move {
        connected.store(true, Ordering::Relaxed);
        Ok::<Bytes, Infallible>(payload)
    });
    let mut request = Request::new(Method::POST, target.url.clone());
    *request.headers_mut() = headers;
    *request.body_mut() = Some(Body::wrap_stream(body));
    request
}

/// A 2xx counts when its body has ended, or once enough of it has been read.
async fn accepted(mut response: Response, limit: &Limit) -> Result<(), Failure> {
    let status = response.status();
    if response.content_length() == Some(0) {
        return Ok(());
    }
    let mut read = 0;
    while read < ANSWER_LIMIT {
        match timeout_at(limit.deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => read += chunk.len(),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => {
                let cause = fault::root(&error);
                let detail = format!("answered {status}, but the body broke off: {cause}");
                return Err(Failure::new(Reason::Protocol, detail));
            }
            Err(_) => {
                let what = format!("answered {status}, but the body did not end");
                return Err(limit.exceeded(what));
            }
        }
    }
    Ok(())
}

/// Another status is a failure whatever becomes of its body, which only explains it: so that gets
/// a short time of its own, and what has arrived by then is quoted.
async fn refused(mut response: Response, limit: &Limit, subscriber: &Subscriber) -> Failure {
    let status = response.status();
    let deadline = limit.deadline.min(Instant::now() + FAILURE_BODY_TIME);
    let mut body = Vec::new();
    // Read on past what is quoted, so that the connection can be kept.
    while body.len() < ANSWER_LIMIT {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    let note = if status.is_redirection() {
        " (redirects are not followed)"
    } else {
        ""
    };
    let quote = quote(&body, subscriber);
    let separator = if quote.is_empty() { "" } else { ": " };
    Failure::new(
        Reason::HttpStatus,
        format!("answered {status}{note}{separator}{quote}"),
    )
}

/// The beginning of a body as one line. Secrets go before the cut, which could leave half of one.
fn quote(body: &[u8], subscriber: &Subscriber) -> String {
    let text = subscriber.redact(&String::from_utf8_lossy(body));
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if line.len() > QUOTE_LIMIT {
            break;
        }
        if !line.is_empty() && !word.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line.truncate(line.floor_char_boundary(QUOTE_LIMIT));
    line
}
