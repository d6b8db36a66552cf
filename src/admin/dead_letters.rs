//! `/v1/dead-letters`: what failed for good, and the filter that says which of it is meant.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use tracing::{info, warn};

use super::{
    api::Api,
    auth::Caller,
    forms::{DeadLetterAnswer, DeadLetterItem, DeadLetterPage, DeletedAnswer},
    problem::Problem,
    request::{Name, Query, wrong},
    subscribers::answer,
};
use crate::{
    delivery::Reason,
    event::RejectionReason,
    settings::mistakes::nearest,
    store::{
        StoreError,
        dead_letters::{Kind, Removed},
        filter::Filter,
    },
    subscriber::{Destination, Subscriber, Target, address},
    webhook::WebhookType,
};

const FILTERS: [&str; 6] = ["kind", "subscriber", "type", "reason", "since", "until"];
/// What the broker dead-lettered by itself.
const BY_BROKER: &str = "broker";
/// How many ids one filter may name.
pub(super) const MOST_IDS: usize = 1000;

/// Lists dead letters, the latest failure first.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    tag = "dead letters",
    params(
        ("kind" = inline(Option<String>), Query, description = "`dead`, `rejected` or `lost`"),
        ("subscriber" = inline(Option<String>), Query, description = "To whom they were addressed"),
        ("type" = inline(Option<String>), Query, description = "The webhook type"),
        ("reason" = inline(Option<String>), Query, description = "Why they failed in the end"),
        ("since" = inline(Option<String>), Query, description = "Failed then or later", format = DateTime),
        ("until" = inline(Option<String>), Query, description = "Failed before", format = DateTime),
        ("id" = inline(Option<Vec<i64>>), Query, description = "Only these; it may be given several times"),
        ("cursor" = inline(Option<String>), Query, description = "`next` of the page before"),
        ("limit" = inline(Option<u32>), Query, description = "How many at most; 100 unless given", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page", body = DeadLetterPage),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(api): State<Arc<Api>>, query: Query) -> Result<Response, Problem> {
    let known: Vec<&str> = FILTERS.into_iter().chain(["cursor", "limit"]).collect();
    query.allow_only(&known, &["id"])?;
    let filter = filter(&query)?;
    let cursor = query.read("cursor", "write `next` of the page before")?;
    let limit = query.limit()?;
    let page = api.store()?.dead_letters(&filter, cursor, limit).await?;
    Ok(answer(&DeadLetterPage {
        items: page.items.into_iter().map(DeadLetterItem::from).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// Shows a dead letter with its payload, and with what a replay of it would find.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{id}",
    tag = "dead letters",
    params(("id" = i64, Path, description = "The dead letter's id")),
    responses(
        (status = 200, description = "The dead letter", body = DeadLetterAnswer),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Name(id): Name,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let store = api.store()?;
    let none = || Problem::not_found(format!("there is no dead letter {id:?}"));
    let found = match id.parse() {
        Ok(id) => store.dead_letter(id).await,
        Err(_) => return Err(none()),
    };
    let found = found.map_err(|error| match error {
        StoreError::Missing => none(),
        error => error.into(),
    })?;
    let addressee = found.letter.subscriber.clone();
    let now = match &addressee {
        Some(id) => api.subscriber(id).await?,
        None => None,
    };
    let (payload, payload_base64) = match String::from_utf8(found.payload) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    Ok(answer(&DeadLetterAnswer {
        letter: found.letter.into(),
        payload,
        payload_base64,
        subscriber_now: addressee.map(|_| match &now {
            Some(now) if now.enabled => "enabled",
            Some(_) => "disabled",
            None => "gone",
        }),
        target_now: now.as_deref().map(target),
        related: found
            .related
            .into_iter()
            .map(DeadLetterItem::from)
            .collect(),
    }))
}

/// Where a subscriber's deliveries go, without its secrets.
fn target(subscriber: &Subscriber) -> String {
    use secrecy::ExposeSecret;
    match &subscriber.target {
        Target::Http(target) => address(&target.url),
        Target::Amqp(target) => {
            let place = match &target.destination {
                Destination::Queue { name, .. } => format!("queue {name}"),
                Destination::Exchange { name, .. } => format!("exchange {name}"),
            };
            let broker = target.broker.as_ref();
            let uri = broker.and_then(|broker| broker.uri.expose_secret().parse().ok());
            match uri {
                Some(uri) => format!("{place} on {}", address(&uri)),
                None => format!("{place} on the home broker"),
            }
        }
    }
}

/// Removes dead letters for good: those for which everything given holds.
#[utoipa::path(
    delete,
    path = "/v1/dead-letters",
    tag = "dead letters",
    params(
        ("kind" = inline(Option<String>), Query, description = "`dead`, `rejected` or `lost`"),
        ("subscriber" = inline(Option<String>), Query, description = "To whom they were addressed"),
        ("type" = inline(Option<String>), Query, description = "The webhook type"),
        ("reason" = inline(Option<String>), Query, description = "Why they failed in the end"),
        ("since" = inline(Option<String>), Query, description = "Failed then or later", format = DateTime),
        ("until" = inline(Option<String>), Query, description = "Failed before", format = DateTime),
        ("id" = inline(Option<Vec<i64>>), Query, description = "Only these; it may be given several times"),
    ),
    responses(
        (status = 200, description = "How many were removed", body = DeletedAnswer),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_only(&FILTERS, &["id"])?;
    let filter = filter(&query)?;
    if filter.is_empty() {
        return Err(StoreError::NoFilter.into());
    }
    let Removed { count, ended } = api.store()?.delete_dead_letters(&filter).await;
    let (by, deleted, filter) = (caller.name, count, said(&filter));
    match &ended {
        Ok(()) => info!(by, deleted, filter, "dead letters removed through the API"),
        Err(error) => warn!(
            by,
            deleted, filter, "dead letters removed through the API, but not all of them: {error}"
        ),
    }
    ended?;
    Ok(answer(&DeletedAnswer { deleted }))
}

/// The filter that the parameters give.
fn filter(query: &Query) -> Result<Filter, Problem> {
    let mut ids = Vec::new();
    for text in query.all("id") {
        ids.push(
            text.parse()
                .map_err(|_| wrong("id", text, "write a dead letter's id"))?,
        );
    }
    if ids.len() > MOST_IDS {
        return Err(Problem::bad_request(format!(
            "more than {MOST_IDS} ids: name fewer"
        )));
    }
    let word = |name| query.text(name).map(|text| (name, text));
    let checked = |given: Option<(&str, String)>, check: fn(&str) -> Result<(), String>| match given
    {
        Some((name, text)) => match check(&text) {
            Ok(()) => Ok(Some(text)),
            Err(remedy) => Err(wrong(name, &text, &remedy)),
        },
        None => Ok(None),
    };
    Ok(Filter {
        ids,
        kind: checked(word("kind"), check_kind)?.and_then(|word| Kind::from_name(&word)),
        subscriber: query.text("subscriber"),
        webhook: checked(word("type"), check_type)?,
        reason: checked(word("reason"), check_reason)?,
        since: query.time("since")?,
        until: query.time("until")?,
    })
}

/// What to write instead, if this is no kind.
pub(super) fn check_kind(word: &str) -> Result<(), String> {
    one_of(word, &Kind::ALL.map(Kind::as_str))
}

/// What to write instead, if this is no webhook type.
pub(super) fn check_type(word: &str) -> Result<(), String> {
    one_of(word, &WebhookType::ALL.map(WebhookType::name))
}

/// What to write instead, if nothing fails with this reason.
pub(super) fn check_reason(word: &str) -> Result<(), String> {
    let mut reasons = Reason::ALL.map(Reason::as_str).to_vec();
    reasons.extend(RejectionReason::ALL.map(RejectionReason::as_str));
    reasons.push(BY_BROKER);
    one_of(word, &reasons)
}

fn one_of(word: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&word) {
        return Ok(());
    }
    Err(match nearest(word, words.iter().copied()) {
        Some(near) => format!("write {near}"),
        None => format!("there are {}", words.join(", ")),
    })
}

/// A filter in one line, for the log.
pub(super) fn said(filter: &Filter) -> String {
    serde_json::to_string(filter).unwrap_or_default()
}
