//! `/v1/cases/{case}/hook`: Case Settings. A case's own hook is a subscriber to the webhooks of the
//! case administration, with an id that the case gives it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{
    api::Api,
    auth::Caller,
    forms::{HookAnswer, HookForm},
    problem::Problem,
    request::{Json, Name, Query},
    subscribers::{current, remove, save, version, with_version},
};
use crate::{
    store::StoreError,
    subscriber::{
        Interest, Origin, Subscriber, Target, form,
        loading::request::{self as asking, hook_id},
    },
};

/// Shows a case's hook without its secrets.
#[utoipa::path(
    get,
    path = "/v1/cases/{case}/hook",
    tag = "cases",
    params(("case" = String, Path, description = "The case's id")),
    responses(
        (status = 200, description = "The hook", body = HookAnswer,
            headers(("etag" = String, description = "The version"))),
        (status = 404, description = "The case has none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be told whether there is one: the store is away or busy, or holds what cannot be read", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Name(case): Name,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let subscriber = api.subscriber(hook_id(&case).as_str()).await?;
    let subscriber = subscriber.ok_or_else(|| none(&case))?;
    shown(&api, &subscriber, &case, StatusCode::OK)
}

/// Makes or replaces a case's hook: it gets the six webhook types of the case administration.
#[utoipa::path(
    put,
    path = "/v1/cases/{case}/hook",
    tag = "cases",
    params(
        ("case" = String, Path, description = "The case's id", min_length = 1, max_length = 128),
        ("if-match" = Option<String>, Header, description = "The etag that it must have, or `*` if it must be there"),
        ("if-none-match" = Option<String>, Header, description = "`*` if it must not be there yet"),
    ),
    request_body = HookForm,
    responses(
        (status = 200, description = "Replaced", body = HookAnswer,
            headers(("etag" = String, description = "The version"))),
        (status = 201, description = "Made", body = HookAnswer,
            headers(("etag" = String, description = "The version"))),
        (status = 409, description = "The URL is another case's", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Name(case): Name,
    query: Query,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let now = current(&api, hook_id(&case).as_str(), &headers).await?;
    let asked = asking::hook(&case, body, now.as_deref(), &api.handles.rules);
    let asked = asked.map_err(|mistakes| Problem::invalid(&mistakes))?;
    if is_anothers(&api, &asked.subscriber, &case) {
        return Err(StoreError::UrlTaken.into());
    }
    let saved = save(&api, &caller, &asked, now.as_deref(), &headers).await?;
    let status = if saved.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let subscriber = Subscriber {
        origin: Origin::Store {
            version: saved.version,
        },
        ..asked.subscriber
    };
    shown(&api, &subscriber, &case, status)
}

/// Whether a subscriber to other cases has this URL. Of two hooks that are made at once, the store
/// refuses the second; this sees those that are defined otherwise, too.
fn is_anothers(api: &Api, hook: &Subscriber, case: &str) -> bool {
    let Target::Http(target) = &hook.target else {
        return false;
    };
    let set = api.handles.registry.live().load();
    set.iter().filter(|one| one.id != hook.id).any(|one| {
        let same = matches!(&one.target, Target::Http(other) if other.url == target.url);
        same && match &one.interest {
            Interest::Cases(cases)
            | Interest::Party {
                cases: Some(cases), ..
            } => cases.iter().any(|other| other != case),
            Interest::Party { cases: None, .. } | Interest::All => false,
        }
    })
}

/// Removes a case's hook.
#[utoipa::path(
    delete,
    path = "/v1/cases/{case}/hook",
    tag = "cases",
    params(
        ("case" = String, Path, description = "The case's id"),
        ("if-match" = Option<String>, Header, description = "The etag that it must have"),
    ),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "The case has none", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Name(case): Name,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    remove(&api, &caller, hook_id(&case).as_str(), &headers).await
}

fn shown(
    api: &Api,
    subscriber: &Subscriber,
    case: &str,
    status: StatusCode,
) -> Result<Response, Problem> {
    let form = form::shown(subscriber);
    // Hooks have no other target.
    let http = form.http.ok_or_else(|| none(case))?;
    let version = version(subscriber);
    let body = HookAnswer {
        url: http.url,
        authorization: http.authorization,
        enabled: form.enabled,
        subscriber: form.id,
        version,
        status: api.status(&subscriber.id).into(),
    };
    Ok(with_version(status, &body, version))
}

fn none(case: &str) -> Problem {
    Problem::not_found(format!("the case {case:?} has no hook"))
}
