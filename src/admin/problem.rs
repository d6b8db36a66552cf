//! What the API answers when it does not do what was asked: RFC 9457 problem details.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    registry::ChangeError,
    settings::{Mistake, Mistakes, Place},
    store::StoreError,
};

/// Why something was not done, for people and for programs (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:hookbridge:problem:not-found", "title": "Not found", "status": 404,
    "detail": "there is no subscriber \"fixit\"",
}))]
pub struct Problem {
    /// Which kind of problem it is: always the same for the same kind.
    #[serde(rename = "type")]
    kind: String,
    /// The kind, for people.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What is wrong this time, and what to do about it.
    detail: String,
    /// Every field of the request that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A field of the request that is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// Its name, such as `http.url`; empty for the whole body.
    field: String,
    /// Where it is in the body, as a JSON pointer (RFC 6901).
    pointer: String,
    /// What is wrong.
    detail: String,
    /// What to write instead.
    remedy: String,
}

impl Problem {
    /// A problem of a kind, which is a word or two with hyphens.
    pub(super) fn new(
        status: StatusCode,
        kind: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("urn:hookbridge:problem:{kind}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// What is wrong.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The request cannot be understood: its address, or a header of it.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self::new(status, "bad-request", "Bad request", detail)
    }

    /// There is no such thing.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// What the body asks for breaks a rule.
    pub(super) fn invalid(mistakes: &Mistakes) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| format!("{}. {}", mistake.what, mistake.remedy))
            .collect();
        let mut problem = Self::new(status, "invalid", "Invalid content", lines.join("; "));
        problem.errors = mistakes.iter().map(FieldError::from).collect();
        problem
    }

    /// One field breaks a rule.
    pub(super) fn invalid_field(field: &str, what: &str, remedy: &str) -> Self {
        let mistake = Mistake {
            place: Place::Request(format!("/{field}")),
            what: format!("`{field}` {what}"),
            remedy: remedy.to_owned(),
        };
        Self::invalid(&vec![mistake].into())
    }

    /// There is no store.
    pub(super) fn no_store() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-store",
            "No store",
            ChangeError::NoStore.to_string(),
        )
    }

    /// It cannot be done just now.
    pub(super) fn unavailable(kind: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail)
            .with_header(header::RETRY_AFTER, "5")
    }

    /// Adds a header to the answer.
    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }
}

impl From<&Mistake> for FieldError {
    fn from(mistake: &Mistake) -> Self {
        let pointer = match &mistake.place {
            Place::Request(pointer) => pointer.clone(),
            Place::File { .. } | Place::Variable(_) => String::new(),
        };
        let names = pointer.split('/').skip(1);
        let names: Vec<String> = names
            .map(|name| name.replace("~1", "/").replace("~0", "~"))
            .collect();
        Self {
            field: names.join("."),
            pointer,
            detail: mistake.what.clone(),
            remedy: mistake.remedy.clone(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let said = error.to_string();
        match error {
            StoreError::Away(_) | StoreError::Unreadable(_) => {
                Self::unavailable("store-away", "The store is away", said)
            }
            StoreError::Busy(_) => Self::unavailable("store-busy", "The store is busy", said),
            StoreError::Missing => Self::not_found("there is no such thing in the store"),
            StoreError::Changed { now } => Self::changed(now),
            StoreError::UrlTaken => Self::new(
                StatusCode::CONFLICT,
                "url-taken",
                "The URL is taken",
                format!("{said}: a URL should be unique per case, since payloads name no case"),
            ),
            StoreError::NoFilter => Self::bad_request(
                "nothing says which dead letters are meant: give at least one of kind, subscriber, \
                 type, reason, since, until and id",
            ),
        }
    }
}

impl Problem {
    /// A precondition does not hold.
    pub(super) fn changed(now: Option<i64>) -> Self {
        let now = match now {
            Some(version) => format!("its version is \"{version}\" now"),
            None => "it is not there".to_owned(),
        };
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "changed",
            "Changed meanwhile",
            format!("the precondition of the request does not hold: {now}; read it again"),
        )
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NoStore => Self::no_store(),
            ChangeError::InFile(_) => Self::new(
                StatusCode::CONFLICT,
                "in-file",
                "Defined in a file",
                error.to_string(),
            ),
            ChangeError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let headers = std::mem::take(&mut self.headers);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body).into_response();
        response.headers_mut().extend(headers);
        response
    }
}
