//! The admin API as its clients use it. Every answer is held to the description that the bridge
//! itself gives at `/openapi.json`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Mutex, OnceLock},
};

use serde_json::{Value, json};

use super::planted;

/// The tokens of [`TOKENS`].
pub const OPERATOR: &str = "operators-token-zQplanted";
pub const VIEWER: &str = "viewers-token-zQplanted";

/// Settings with a token for each role.
pub const TOKENS: &str = r#"
[[admin.token]]
name = "ops"
value = "operators-token-zQplanted"
role = "operator"
[[admin.token]]
name = "desk"
value = "viewers-token-zQplanted"
role = "viewer"
"#;

/// A client of one bridge's API.
pub struct Api {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
    /// What was called, and how it was answered: method, path as described, status.
    driven: Mutex<BTreeSet<(String, String, u16)>>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    /// The body, or null if it is empty.
    pub body: Value,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    /// The answer, which must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    /// The fields that a problem names.
    pub fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array();
        let fields = errors.into_iter().flatten();
        fields.map(|one| one["field"].as_str().unwrap()).collect()
    }

    /// What a problem says.
    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }
}

/// The description, as the program itself writes it.
pub fn description() -> &'static Value {
    static DESCRIPTION: OnceLock<Value> = OnceLock::new();
    DESCRIPTION.get_or_init(|| serde_json::to_value(hookbridge::admin::document()).unwrap())
}

/// Every call that is described: method and path.
pub fn described() -> BTreeSet<(String, String)> {
    let mut calls = BTreeSet::new();
    for (path, item) in description()["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            calls.insert((method.to_uppercase(), path.clone()));
        }
    }
    calls
}

impl Api {
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self {
            base: format!("http://{address}"),
            token: token.map(str::to_owned),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            driven: Mutex::default(),
        }
    }

    /// The same, reached otherwise: over TLS, for one.
    pub fn with_client(base: String, token: &str, http: reqwest::Client) -> Self {
        Self {
            base,
            token: Some(token.to_owned()),
            http,
            driven: Mutex::default(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None, &[]).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body), &[]).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, Some(body), &[]).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body), &[]).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None, &[]).await
    }

    /// Makes a call, and holds its answer to the description.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let method_name = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self
            .http
            .request(method_name, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = &body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = self.answer(request).await;
        self.hold(method, path, &answer);
        answer
    }

    /// Sends a request of the test's own; nothing is held to the description.
    pub async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        planted::shows_nothing("an answer", &text);
        planted::shows_nothing("an answer's head", &format!("{headers:?}"));
        let body = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        };
        Answer {
            status,
            headers,
            body,
        }
    }

    /// A request to this path, with the token.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Which calls were answered with success.
    pub fn driven(&self) -> BTreeSet<(String, String)> {
        let driven = self.driven.lock().unwrap();
        driven
            .iter()
            .filter(|(.., status)| (200..300).contains(status))
            .map(|(method, path, _)| (method.clone(), path.clone()))
            .collect()
    }

    #[track_caller]
    fn hold(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let Some((template, item)) = template(path) else {
            let refused = matches!(answer.status, 401 | 403 | 404 | 429);
            return assert!(refused, "{path} is not described: {}", answer.status);
        };
        let operation = &item[method.to_lowercase()];
        if operation.is_null() {
            return assert_eq!(answer.status, 405, "{method} {path} is not described");
        }
        let key = (method.to_owned(), template.to_owned(), answer.status);
        self.driven.lock().unwrap().insert(key);
        let response = &operation["responses"][answer.status.to_string()];
        assert!(
            !response.is_null(),
            "{method} {path}: {} is not described: {:#}",
            answer.status,
            answer.body
        );
        let kind = answer.header("content-type").unwrap_or("");
        let content = response["content"].as_object();
        let Some(content) = content else {
            return assert_eq!(answer.body, Value::Null, "{method} {path}");
        };
        let media = content
            .get(kind)
            .unwrap_or_else(|| panic!("{method} {path}: {kind} is not described"));
        let mut schema = media["schema"].clone();
        schema["components"] = description()["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(&answer.body)
            .map(|error| format!("{}: {error}", error.instance_path))
            .collect();
        assert!(
            errors.is_empty(),
            "{method} {path}: {errors:#?}\n{:#}",
            answer.body
        );
    }
}

/// The described path that a path is one of.
fn template(path: &str) -> Option<(&'static str, &'static Value)> {
    let paths = description()["paths"].as_object().unwrap();
    let matching = |template: &str| {
        let (theirs, ours): (Vec<_>, Vec<_>) =
            (template.split('/').collect(), path.split('/').collect());
        theirs.len() == ours.len()
            && theirs.iter().zip(ours).all(|(theirs, ours)| {
                theirs.starts_with('{') && !ours.is_empty() || *theirs == ours
            })
    };
    // What is named outright goes before what a name stands for.
    let mut found: Vec<_> = paths
        .iter()
        .filter(|(template, _)| matching(template))
        .collect();
    found.sort_by_key(|(template, _)| template.matches('{').count());
    found
        .first()
        .map(|(template, item)| (template.as_str(), *item))
}
