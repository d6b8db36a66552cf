//! What a request says, read strictly: everything that is not understood is a problem that names it.

use std::{str::FromStr, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use jiff::Timestamp;
use serde_json::Value;

use super::problem::Problem;
use crate::{settings::mistakes::nearest, store::subscribers::Condition};

/// The largest body, in bytes: a subscriber with thousands of cases.
const LARGEST_BODY: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How many items a page has, and may have.
pub(super) const DEFAULT_LIMIT: usize = 100;
pub(super) const LARGEST_LIMIT: usize = 1000;
/// The longest text that a parameter may be.
const LONGEST_PARAMETER: usize = 256;

/// A body of JSON.
pub(super) struct Json(pub(super) Value);

impl<S: Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not-json",
                "Not JSON",
                "the body must be JSON: send `content-type: application/json`",
            ));
        }
        let body = read(&parts.headers, body).await?;
        let value = serde_json::from_slice(&body).map_err(|error| {
            // The parser's own text would quote nothing either, but says less about where.
            let (line, column) = (error.line(), error.column());
            let detail = format!("the body is not JSON: line {line}, column {column}");
            Problem::bad_request(detail)
        })?;
        Ok(Self(value))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = value.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

async fn read(headers: &HeaderMap, body: Body) -> Result<axum::body::Bytes, Problem> {
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "Too large",
            format!("the body is larger than {LARGEST_BODY} bytes"),
        )
    };
    let told = headers.get(header::CONTENT_LENGTH);
    let told = told.and_then(|told| told.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > LARGEST_BODY) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, to_bytes(body, LARGEST_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::bad_request("the body broke off")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "Too slow",
            "the body did not arrive within 30 seconds",
        )),
    }
}

fn is_limit(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

/// The part of the address that stands for a name.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::bad_request("the address is not UTF-8")),
        }
    }
}

/// The parameters of the address.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or("");
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let pairs: Vec<_> = pairs.into_owned().collect();
        let stranger = |value: &str| value.chars().any(char::is_control);
        if let Some((name, _)) = pairs.iter().find(|(_, value)| stranger(value)) {
            let detail = format!("the parameter {name:?} holds control characters");
            return Err(Problem::bad_request(detail));
        }
        match pairs
            .iter()
            .find(|(_, value)| value.len() > LONGEST_PARAMETER)
        {
            Some((name, _)) => Err(Problem::bad_request(format!(
                "the parameter {name:?} is longer than {LONGEST_PARAMETER} bytes"
            ))),
            None => Ok(Self(pairs)),
        }
    }
}

impl Query {
    /// Every parameter that is not among these is a problem, and so is one given twice that is not
    /// among the `repeated`.
    pub(super) fn allow_only(&self, known: &[&str], repeated: &[&str]) -> Result<(), Problem> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) && !repeated.contains(&name.as_str()) {
                let all = known.iter().chain(repeated).copied();
                let remedy = match nearest(name, all.clone()) {
                    Some(near) => format!("write {near}"),
                    None if known.is_empty() => "leave it out".to_owned(),
                    None => format!("there are {}", all.collect::<Vec<_>>().join(", ")),
                };
                let detail = format!("{name:?} is no parameter of this call: {remedy}");
                return Err(Problem::bad_request(detail));
            }
            let again = self.0[..index].iter().any(|(other, _)| other == name);
            if again && !repeated.contains(&name.as_str()) {
                let detail = format!("the parameter {name:?} is given twice: keep one");
                return Err(Problem::bad_request(detail));
            }
        }
        Ok(())
    }

    /// Everything given for this parameter.
    pub(super) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        let of_name = move |pair: &'q (String, String)| (pair.0 == name).then_some(pair.1.as_str());
        self.0.iter().filter_map(of_name)
    }

    /// The text given for this parameter.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.clone())
    }

    /// What is given for this parameter, read; `remedy` says what to write instead.
    pub(super) fn read<T: FromStr>(&self, name: &str, remedy: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(wrong(name, &text, remedy)),
        }
    }

    /// A time.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.read(name, "write a time such as 2026-01-22T11:29:38Z")
    }

    /// How many items the page may have.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let remedy = format!("write a number from 1 to {LARGEST_LIMIT}");
        match self.read("limit", &remedy)? {
            None => Ok(DEFAULT_LIMIT),
            Some(limit) if (1..=LARGEST_LIMIT).contains(&limit) => Ok(limit),
            Some(_) => Err(wrong(
                "limit",
                &self.text("limit").unwrap_or_default(),
                &remedy,
            )),
        }
    }
}

/// A parameter that cannot be what it is.
pub(super) fn wrong(name: &str, text: &str, remedy: &str) -> Problem {
    Problem::bad_request(format!("the parameter {name:?} is {text:?}: {remedy}"))
}

/// What `If-Match` and `If-None-Match` ask for; `now` is the version that there is.
pub(super) fn condition(headers: &HeaderMap, now: Option<i64>) -> Result<Condition, Problem> {
    let matching = single(headers, &header::IF_MATCH)?;
    let none_matching = single(headers, &header::IF_NONE_MATCH)?;
    match (matching, none_matching) {
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "if-match and if-none-match contradict each other: keep one",
        )),
        (None, None) => Ok(Condition::None),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(Problem::bad_request(
            "if-none-match takes only `*` here, for what must not be there yet",
        )),
        (Some("*"), None) => Ok(Condition::Exists),
        (Some(tags), None) => {
            let mut versions = tags.split(',').map(|tag| version(tag.trim()));
            let first = versions.clone().next().flatten();
            if versions.clone().all(|version| version.is_none()) {
                return Err(Problem::bad_request(
                    "if-match holds no version: send the etag of the answer that you read",
                ));
            }
            let same = versions.find(|version| version.is_some() && *version == now);
            Ok(Condition::Version(same.flatten().or(first).unwrap_or(-1)))
        }
    }
}

/// The version that an entity tag holds: `"17"`.
fn version(tag: &str) -> Option<i64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok()
}

fn single<'h>(
    headers: &'h HeaderMap,
    name: &header::HeaderName,
) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.trim())),
        _ => Err(Problem::bad_request(format!(
            "{name} is given twice, or is no text"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(header::HeaderName, &str)], now: Option<i64>) -> Option<Condition> {
        let headers = headers.iter().cloned();
        let headers = headers.map(|(name, value)| (name, value.parse().unwrap()));
        condition(&headers.collect(), now).ok()
    }

    #[test]
    fn preconditions_are_versions_stars_or_problems() {
        let matches = |value| [(header::IF_MATCH, value)];
        let none = |value| [(header::IF_NONE_MATCH, value)];
        assert_eq!(asked(&[], None), Some(Condition::None));
        assert_eq!(
            asked(&matches("\"17\""), None),
            Some(Condition::Version(17))
        );
        assert_eq!(
            asked(&matches("\"3\", \"17\""), Some(17)),
            Some(Condition::Version(17))
        );
        assert_eq!(
            asked(&matches("\"3\", \"17\""), Some(5)),
            Some(Condition::Version(3))
        );
        assert_eq!(asked(&matches("*"), None), Some(Condition::Exists));
        assert_eq!(asked(&none("*"), None), Some(Condition::Absent));
        for wrong in [&matches("17")[..], &matches("W/\"17\""), &none("\"17\"")] {
            assert_eq!(asked(wrong, None), None, "{wrong:?}");
        }
        assert_eq!(asked(&[matches("*"), none("*")].concat(), None), None);
    }
}
