//! How the commands speak to a running bridge's API.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use reqwest::{
    Certificate, Client as Http, Method, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Longer than any attempt of a test may take: `delivery.shutdown_timeout` bounds these.
const PATIENCE: Duration = Duration::from_mins(5);
const CONNECTING: Duration = Duration::from_secs(10);
/// How often a call is made again that came too soon after others.
const TRIES: usize = 30;

/// Which bridge, and who asks it.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// The bridge's admin listener
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        env = "HOOKBRIDGE_SERVER",
        global = true
    )]
    pub server: Url,
    /// The file with the token; `HOOKBRIDGE_TOKEN` may hold the token itself
    #[arg(
        long,
        value_name = "FILE",
        env = "HOOKBRIDGE_TOKEN_FILE",
        global = true
    )]
    pub token_file: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE", env = "HOOKBRIDGE_CA_FILE", global = true)]
    pub ca_file: Option<PathBuf>,
    /// Print JSON Lines instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// A client of one bridge. Each call gives the body of the answer, or null if it has none.
pub struct Client {
    http: Http,
    server: Url,
    token: SecretString,
}

impl Client {
    /// A client for this bridge, with the token from the file or the environment.
    pub fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let mut builder = Http::builder()
            .user_agent(concat!("hookbridge/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // The token goes to the bridge and to nobody on the way.
            .no_proxy()
            .connect_timeout(CONNECTING)
            .timeout(PATIENCE);
        if let Some(path) = &args.ca_file {
            let pem = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let authorities = Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|all| !all.is_empty())
                .with_context(|| format!("{} holds no PEM certificate", path.display()))?;
            builder = builder.tls_certs_merge(authorities);
        }
        Ok(Self {
            http: builder.build().context("cannot set up the HTTP client")?,
            server: args.server.clone(),
            token: token(args)?,
        })
    }

    /// The address of a call: the names are encoded as they must be.
    fn address(&self, path: &[&str], query: &[(String, String)]) -> anyhow::Result<Url> {
        let mut url = self.server.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("--server must be a URL such as http://127.0.0.1:8080"))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Asks for something.
    pub async fn get(&self, path: &[&str], query: &[(String, String)]) -> anyhow::Result<Value> {
        let url = self.address(path, query)?;
        self.call(Method::GET, url, None, None).await
    }

    /// Posts a body.
    pub async fn post(&self, path: &[&str], body: Option<&Value>) -> anyhow::Result<Value> {
        let url = self.address(path, &[])?;
        self.call(Method::POST, url, body, None).await
    }

    /// Puts a body in a place, if that has this version.
    pub async fn put(
        &self,
        path: &[&str],
        body: &Value,
        version: Option<i64>,
    ) -> anyhow::Result<Value> {
        let url = self.address(path, &[])?;
        self.call(Method::PUT, url, Some(body), version).await
    }

    /// Changes a part of what is in a place.
    pub async fn patch(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        let url = self.address(path, &[])?;
        self.call(Method::PATCH, url, Some(body), None).await
    }

    /// Removes something.
    pub async fn delete(&self, path: &[&str], query: &[(String, String)]) -> anyhow::Result<Value> {
        let url = self.address(path, query)?;
        self.call(Method::DELETE, url, None, None).await
    }

    /// Makes a call. What is no success is an error, in the bridge's words.
    async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        version: Option<i64>,
    ) -> anyhow::Result<Value> {
        for _ in 0..TRIES {
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .header(AUTHORIZATION, self.bearer()?);
            if let Some(version) = version {
                request = request.header(IF_MATCH, format!("\"{version}\""));
            }
            if let Some(body) = body {
                request = request
                    .header(CONTENT_TYPE, "application/json")
                    .body(body.to_string());
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => return Err(self.unreachable(&error)),
            };
            let (status, headers) = (response.status(), response.headers().clone());
            let text = response
                .text()
                .await
                .map_err(|error| self.unreachable(&error))?;
            if status == StatusCode::TOO_MANY_REQUESTS && headers.contains_key(RETRY_AFTER) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            let body = serde_json::from_str(&text).unwrap_or(Value::Null);
            if status.is_success() {
                return Ok(body);
            }
            return Err(self.refused(status, &body));
        }
        bail!("the bridge at {} takes no more requests now", self.server)
    }

    fn bearer(&self) -> anyhow::Result<HeaderValue> {
        let text = format!("Bearer {}", self.token.expose_secret());
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| anyhow::anyhow!("the token holds characters that no header can"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        anyhow::anyhow!(
            "cannot ask the bridge at {}: {cause}; look whether it runs, and at --server",
            self.server
        )
    }

    /// What the bridge says, field by field where it names several.
    fn refused(&self, status: StatusCode, problem: &Value) -> anyhow::Error {
        let detail = problem["detail"].as_str();
        let Some(detail) = detail else {
            return anyhow::anyhow!(
                "{} answers {status}: is that a bridge's admin listener? Look at --server",
                self.server
            );
        };
        let advice = match status {
            StatusCode::UNAUTHORIZED => "; look at --token-file",
            _ => "",
        };
        let errors = problem["errors"].as_array().map_or(&[][..], Vec::as_slice);
        if errors.len() < 2 {
            return anyhow::anyhow!("{detail}{advice}");
        }
        let lines = errors.iter().map(|error| {
            let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            format!("\n  {}. {}", text("detail"), text("remedy"))
        });
        anyhow::anyhow!(
            "the bridge finds {} mistakes:{}",
            errors.len(),
            lines.collect::<String>()
        )
    }
}

/// Asks a listener that speaks TLS for a probe's `path`: whether the answer is 200, and its body. Its
/// certificate is made out to a name, and not to the address that a probe knows, so it is not
/// judged: nothing secret goes this way.
pub async fn probe(
    address: SocketAddr,
    path: &str,
    patience: Duration,
) -> anyhow::Result<(bool, String)> {
    let client = Http::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .timeout(patience)
        .build()?;
    let response = client
        .get(format!("https://{address}{path}"))
        .send()
        .await?;
    let ready = response.status() == StatusCode::OK;
    Ok((ready, response.text().await?))
}

/// The token in the file, or in the environment.
fn token(args: &ServerArgs) -> anyhow::Result<SecretString> {
    let token = match &args.token_file {
        Some(path) => fs::read_to_string(path)
            .with_context(|| format!("cannot read the token in {}", path.display()))?,
        None => std::env::var("HOOKBRIDGE_TOKEN").map_err(|_| {
            anyhow::anyhow!(
                "there is no token: name its file in --token-file or HOOKBRIDGE_TOKEN_FILE, or set HOOKBRIDGE_TOKEN"
            )
        })?,
    };
    Ok(SecretString::from(token.trim()))
}
