//! `/v1/subscribers`: who gets webhooks. Those from files are shown; those in the store can be
//! changed, and a change takes effect at once.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::{info, warn};

use super::{
    api::Api,
    auth::Caller,
    forms::{PatchForm, SubscriberAnswer, SubscriberForm, SubscriberItem, SubscriberPage},
    problem::Problem,
    request::{Json, Name, Query, condition},
};
use crate::{
    registry::ChangeError,
    settings::{Mistake, Place, mistakes::nearest},
    store::subscribers::{Condition, Given, Saved},
    subscriber::{
        Interest, Origin, Subscriber, SubscriberId, form,
        loading::request::{self as asking, Asked},
    },
};

const FILTERS: [&str; 5] = ["party", "case", "enabled", "cursor", "limit"];

/// Lists subscribers, in the order of their ids.
#[utoipa::path(
    get,
    path = "/v1/subscribers",
    tag = "subscribers",
    params(
        ("party" = inline(Option<String>), Query, description = "Only those of this party"),
        ("case" = inline(Option<String>), Query, description = "Only those that name this case"),
        ("enabled" = inline(Option<bool>), Query, description = "Only enabled or only disabled ones"),
        ("cursor" = inline(Option<String>), Query, description = "`next` of the page before"),
        ("limit" = inline(Option<u32>), Query, description = "How many at most; 100 unless given", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page", body = SubscriberPage),
        (status = 503, description = "It is not known yet who is subscribed: the store was never loaded, or holds what cannot be read", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(api): State<Arc<Api>>, query: Query) -> Result<Response, Problem> {
    query.allow_only(&FILTERS, &[])?;
    let (party, case) = (query.text("party"), query.text("case"));
    let enabled: Option<bool> = query.read("enabled", "write true or false")?;
    let limit = query.limit()?;
    let cursor = query.text("cursor");
    let wanted = |one: &Subscriber| {
        enabled.is_none_or(|enabled| one.enabled == enabled)
            && (party.is_none() || one.interest.party() == party.as_deref())
            && case.as_ref().is_none_or(|case| names(&one.interest, case))
    };
    let registry = &api.handles.registry;
    if let Some(lack) = registry.lack() {
        return Err(lack.into());
    }
    let set = registry.live().load();
    let after = cursor.as_deref().unwrap_or("");
    let mut found = set.after(after).filter(|one| wanted(one));
    let items: Vec<SubscriberItem> = found.by_ref().take(limit).map(|one| item(one)).collect();
    let next = found.next().and(items.last());
    let next = next.map(|last| last.subscriber.id.clone());
    Ok(answer(&SubscriberPage { items, next }))
}

fn names(interest: &Interest, case: &str) -> bool {
    match interest {
        Interest::Party { cases, .. } => cases.as_ref().is_some_and(|all| all.contains(case)),
        Interest::Cases(cases) => cases.contains(case),
        Interest::All => false,
    }
}

/// Shows a subscriber without its secrets, and how its deliveries fare in this bridge.
#[utoipa::path(
    get,
    path = "/v1/subscribers/{id}",
    tag = "subscribers",
    params(("id" = String, Path, description = "The subscriber's id")),
    responses(
        (status = 200, description = "The subscriber", body = SubscriberAnswer,
            headers(("etag" = String, description = "The version, if it is in the store"))),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be told whether there is one: the store is away or busy, or holds what cannot be read", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Name(id): Name,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let subscriber = api.subscriber(&id).await?.ok_or_else(|| none(&id))?;
    Ok(shown(&api, &subscriber, StatusCode::OK))
}

/// Makes or replaces a subscriber. What a read shows can be written back: `{"set": true}` keeps a
/// secret, unless it would be sent to another address.
#[utoipa::path(
    put,
    path = "/v1/subscribers/{id}",
    tag = "subscribers",
    params(
        ("id" = String, Path, description = "The subscriber's id", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"),
        ("if-match" = Option<String>, Header, description = "The etag that it must have, or `*` if it must be there"),
        ("if-none-match" = Option<String>, Header, description = "`*` if it must not be there yet"),
    ),
    request_body = SubscriberForm,
    responses(
        (status = 200, description = "Replaced", body = SubscriberAnswer,
            headers(("etag" = String, description = "The version"))),
        (status = 201, description = "Made", body = SubscriberAnswer,
            headers(("etag" = String, description = "The version"))),
        (status = 409, description = "It is defined in a file", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Name(id): Name,
    query: Query,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let now = current(&api, &id, &headers).await?;
    let asked = asking::subscriber(&id, body, now.as_deref(), &api.handles.rules);
    let asked = asked.map_err(|mistakes| Problem::invalid(&mistakes))?;
    let saved = save(&api, &caller, &asked, now.as_deref(), &headers).await?;
    Ok(saved_answer(&api, asked.subscriber, saved))
}

/// Enables or disables a subscriber; everything else stays.
#[utoipa::path(
    patch,
    path = "/v1/subscribers/{id}",
    tag = "subscribers",
    params(
        ("id" = String, Path, description = "The subscriber's id"),
        ("if-match" = Option<String>, Header, description = "The etag that it must have"),
    ),
    request_body = PatchForm,
    responses(
        (status = 200, description = "Changed", body = SubscriberAnswer,
            headers(("etag" = String, description = "The version"))),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is defined in a file", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn patch(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Name(id): Name,
    query: Query,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let enabled = enabled_in(&body)?;
    let now = api.subscriber(&id).await?;
    let condition = condition(&headers, now.as_deref().and_then(version))?;
    refuse_file(now.as_deref())?;
    let key = sound(&id)?;
    let registry = &api.handles.registry;
    let saved = registry
        .enable(&key, enabled, condition, &caller.name)
        .await;
    let saved = saved.map_err(|error| missing(error, &id))?;
    let what = if enabled { "enabled" } else { "disabled" };
    info!(by = caller.name, subscriber = %key, version = saved.version, "subscriber {what} through the API");
    let subscriber = api.subscriber(&id).await?.ok_or_else(|| none(&id))?;
    Ok(saved_answer(
        &api,
        Subscriber {
            enabled,
            ..(*subscriber).clone()
        },
        saved,
    ))
}

/// The one thing that can be changed by itself.
fn enabled_in(body: &serde_json::Value) -> Result<bool, Problem> {
    let wrong = |field: &str, what: &str, remedy: &str| Mistake {
        place: Place::Request(field.to_owned()),
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    };
    let Some(members) = body.as_object() else {
        let mistake = wrong(
            "",
            "the body is not an object",
            "Write {\"enabled\": false}",
        );
        return Err(Problem::invalid(&vec![mistake].into()));
    };
    let mut mistakes = Vec::new();
    for name in members.keys().filter(|name| *name != "enabled") {
        let remedy = match nearest(name, ["enabled"]) {
            Some(near) => format!("Write `{near}`"),
            None => "Only `enabled` can be changed by itself: PUT the whole subscriber".to_owned(),
        };
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        mistakes.push(wrong(
            &pointer,
            &format!("`{name}` cannot be changed by itself"),
            &remedy,
        ));
    }
    let enabled = members.get("enabled").and_then(serde_json::Value::as_bool);
    if enabled.is_none() {
        let what = "`enabled` is missing, or neither true nor false";
        mistakes.push(wrong("/enabled", what, "Write true or false"));
    }
    match enabled {
        Some(enabled) if mistakes.is_empty() => Ok(enabled),
        _ => Err(Problem::invalid(&mistakes.into())),
    }
}

/// Removes a subscriber. What is on its way to it becomes a dead letter.
#[utoipa::path(
    delete,
    path = "/v1/subscribers/{id}",
    tag = "subscribers",
    params(
        ("id" = String, Path, description = "The subscriber's id"),
        ("if-match" = Option<String>, Header, description = "The etag that it must have"),
    ),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is defined in a file", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Name(id): Name,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    remove(&api, &caller, &id, &headers).await
}

/// Removes the subscriber with this id.
pub(super) async fn remove(
    api: &Api,
    caller: &Caller,
    id: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    // Nothing need be known of it: one that cannot be read can be removed, too.
    let now = api.handles.registry.live().load().get(id).cloned();
    let condition = condition(headers, now.as_deref().and_then(version))?;
    refuse_file(now.as_deref())?;
    let key = sound(id)?;
    let removed = api.handles.registry.delete(&key, condition).await;
    removed.map_err(|error| missing(error, id))?;
    info!(by = caller.name, subscriber = %key, "subscriber removed through the API");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What there is now under this id. Where the request names another version than is known here,
/// another bridge may have made that just now.
pub(super) async fn current(
    api: &Api,
    id: &str,
    headers: &HeaderMap,
) -> Result<Option<Arc<Subscriber>>, Problem> {
    let now = api.subscriber(id).await?;
    let known = now.as_deref().and_then(version);
    match (condition(headers, known)?, known) {
        (Condition::Version(asked), Some(known)) if asked != known => {
            api.handles.registry.refresh(&sound(id)?).await?;
            api.subscriber(id).await
        }
        _ => Ok(now),
    }
}

/// Writes what was asked for.
pub(super) async fn save(
    api: &Api,
    caller: &Caller,
    asked: &Asked,
    now: Option<&Subscriber>,
    headers: &HeaderMap,
) -> Result<Saved, Problem> {
    let known = now.and_then(version);
    let mut condition = condition(headers, known)?;
    refuse_file(now)?;
    // A kept secret is that of the version that was read, and of no other.
    if let (true, Some(known)) = (asked.kept, known) {
        match condition {
            Condition::None | Condition::Exists => condition = Condition::Version(known),
            Condition::Version(asked) if asked != known => {
                return Err(Problem::changed(Some(known)));
            }
            Condition::Version(_) | Condition::Absent => {}
        }
    }
    let given = Given {
        timeout: asked.timeout,
        max_in_flight: asked.max_in_flight,
    };
    let registry = &api.handles.registry;
    let saved = registry
        .put(&asked.subscriber, given, condition, &caller.name)
        .await?;
    let what = if saved.created { "made" } else { "replaced" };
    info!(
        by = caller.name,
        subscriber = %asked.subscriber.id,
        version = saved.version,
        "subscriber {what} through the API"
    );
    if let Some(other) = registry.sharing(&asked.subscriber) {
        warn!(
            subscriber = %asked.subscriber.id,
            %other,
            "have different cases and the same URL. Use a URL of its own for each case"
        );
    }
    Ok(saved)
}

/// The subscriber as it is saved.
pub(super) fn saved_answer(api: &Api, subscriber: Subscriber, saved: Saved) -> Response {
    let subscriber = Subscriber {
        origin: Origin::Store {
            version: saved.version,
        },
        ..subscriber
    };
    let status = if saved.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    shown(api, &subscriber, status)
}

/// A subscriber in a file is not changed here.
pub(super) fn refuse_file(now: Option<&Subscriber>) -> Result<(), Problem> {
    match now.map(|now| &now.origin) {
        Some(origin @ Origin::File { .. }) => Err(ChangeError::InFile(origin.to_string()).into()),
        _ => Ok(()),
    }
}

/// The version of a subscriber in the store.
pub(super) fn version(subscriber: &Subscriber) -> Option<i64> {
    match subscriber.origin {
        Origin::Store { version } => Some(version),
        Origin::File { .. } => None,
    }
}

/// The id, if there can be a subscriber of it.
fn sound(id: &str) -> Result<SubscriberId, Problem> {
    Some(SubscriberId::new(id))
        .filter(SubscriberId::is_sound)
        .ok_or_else(|| none(id))
}

fn missing(error: ChangeError, id: &str) -> Problem {
    match error {
        ChangeError::Store(crate::store::StoreError::Missing) => none(id),
        error => error.into(),
    }
}

/// There is no subscriber of this id.
pub(super) fn none(id: &str) -> Problem {
    Problem::not_found(format!("there is no subscriber {id:?}"))
}

fn item(subscriber: &Subscriber) -> SubscriberItem {
    let version = version(subscriber);
    SubscriberItem {
        subscriber: form::shown(subscriber),
        origin: if version.is_some() { "store" } else { "file" },
        file: version.is_none().then(|| subscriber.origin.to_string()),
        version,
    }
}

fn shown(api: &Api, subscriber: &Subscriber, status: StatusCode) -> Response {
    let body = SubscriberAnswer {
        item: item(subscriber),
        status: api.status(&subscriber.id).into(),
    };
    with_version(status, &body, version(subscriber))
}

/// An answer with the version as its etag.
pub(super) fn with_version(
    status: StatusCode,
    body: &impl Serialize,
    version: Option<i64>,
) -> Response {
    let mut response = (status, answer(body)).into_response();
    let etag = version.and_then(|version| HeaderValue::try_from(format!("\"{version}\"")).ok());
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// An answer in JSON.
pub(super) fn answer(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        // No form fails to be written.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
