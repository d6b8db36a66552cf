//! Who asks, and what they may.

use axum::http::{HeaderMap, Method, StatusCode, header};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::settings::{AdminToken, Role};

/// Everybody who may use the API.
pub(super) struct Tokens(Vec<Known>);

struct Known {
    caller: Caller,
    /// Hashes are compared: all are as long as one another, and so is every comparison.
    digest: [u8; 32],
}

/// Who asks. Cheap enough to clone for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The name of the token.
    pub(super) name: String,
    pub(super) role: Role,
}

impl Tokens {
    pub(super) fn new(tokens: &[AdminToken]) -> Self {
        let known = |token: &AdminToken| Known {
            caller: Caller {
                name: token.name.clone(),
                role: token.role,
            },
            digest: Sha256::digest(token.value.expose_secret()).into(),
        };
        Self(tokens.iter().map(known).collect())
    }

    /// Nobody may use the API.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who sends this request. How long it takes does not depend on how much of a token is right,
    /// nor on which one it is.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.is_empty() {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "no-token-configured",
                "The API is closed",
                "no token is configured: add [[admin.token]] to the settings and restart the bridge",
            ));
        }
        let Some(given) = bearer(headers) else {
            return Err(unauthorized(
                "the request carries no token: send `authorization: Bearer <token>`",
                "Bearer realm=\"hookbridge\"",
            ));
        };
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(&known.caller);
            }
        }
        found.cloned().ok_or_else(|| {
            unauthorized(
                "the token is none of those in the settings",
                "Bearer realm=\"hookbridge\", error=\"invalid_token\"",
            )
        })
    }
}

impl Caller {
    /// Whether they may do this: a viewer may read.
    pub(super) fn may(&self, method: &Method) -> Result<(), Problem> {
        match self.role {
            Role::Operator => Ok(()),
            Role::Viewer if method.is_safe() => Ok(()),
            Role::Viewer => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "operators-only",
                "For operators",
                format!(
                    "the token \"{}\" may read and not change: use an operator's",
                    self.name
                ),
            )),
        }
    }
}

/// What stands behind `Bearer`, if the header is there once.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

fn unauthorized(detail: &str, challenge: &'static str) -> Problem {
    let status = StatusCode::UNAUTHORIZED;
    Problem::new(status, "unauthorized", "Unauthorized", detail)
        .with_header(header::WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let token = |name: &str, role| AdminToken {
            name: name.to_owned(),
            value: format!("{name}-value").into(),
            value_file: None,
            role,
        };
        Tokens::new(&[token("ops", Role::Operator), token("desk", Role::Viewer)])
    }

    fn caller(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        Some(tokens().caller(&headers).ok()?.name)
    }

    #[test]
    fn the_token_and_nothing_else_opens_the_api() {
        assert_eq!(caller(&["Bearer ops-value"]).as_deref(), Some("ops"));
        assert_eq!(caller(&["bearer  desk-value"]).as_deref(), Some("desk"));
        for wrong in [
            &[][..],
            &["Bearer"],
            &["Bearer "],
            &["ops-value"],
            &["Basic ops-value"],
            &["Bearer ops-valu"],
            &["Bearer ops-value1"],
            &["Bearer ops-value", "Bearer ops-value"],
        ] {
            assert_eq!(caller(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_viewer_reads_and_changes_nothing() {
        let caller = |role| Caller {
            name: "one".to_owned(),
            role,
        };
        for (method, reads) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::PUT, false),
            (Method::PATCH, false),
            (Method::POST, false),
            (Method::DELETE, false),
        ] {
            assert_eq!(caller(Role::Viewer).may(&method).is_ok(), reads, "{method}");
            assert!(caller(Role::Operator).may(&method).is_ok(), "{method}");
        }
    }
}
