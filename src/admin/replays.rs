//! Replays of dead letters: begun at `POST /v1/dead-letters/replay`, watched and stopped at
//! `/v1/replays`. They run in the background, on whichever bridge takes them.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tracing::info;

use super::{
    api::Api,
    auth::Caller,
    dead_letters::{MOST_IDS, check_kind, check_reason, check_type, said},
    forms::{CountAnswer, ReplayAnswer, ReplayForm, ReplayPage},
    problem::Problem,
    request::{Json, Name, Query},
    subscribers::answer,
};
use crate::{
    replay::{DEFAULT_RATE, HIGHEST_RATE},
    settings::{Mistake, Place, mistakes::nearest},
    store::{StoreError, dead_letters::Kind, filter::Filter},
};

/// As long as any text that a filter may hold.
const LONGEST_ID: usize = 256;

const KEYS: [&str; 9] = [
    "ids",
    "kind",
    "subscriber",
    "type",
    "reason",
    "since",
    "until",
    "dry_run",
    "rate",
];

/// Replays dead letters, in the background: each starts again at its first attempt, with the same
/// webhook id. Nothing given means all of them. `dry_run` counts them instead.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/replay",
    tag = "dead letters",
    request_body = ReplayForm,
    responses(
        (status = 200, description = "What would be replayed (`dry_run`)", body = CountAnswer),
        (status = 202, description = "The replay has begun", body = ReplayAnswer,
            headers(("location" = String, description = "Where it can be watched"))),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn begin(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    query: Query,
    Json(body): Json,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let asked = Reading::read(body)?;
    let replays = api.replays()?;
    if asked.dry_run {
        let count = replays.count(&asked.filter).await?;
        return Ok(answer(&CountAnswer::from(count)));
    }
    let meant = said(&asked.filter);
    let replay = replays
        .begin(asked.filter, asked.rate, &caller.name)
        .await?;
    info!(
        by = caller.name,
        replay = replay.id,
        total = replay.total,
        filter = meant,
        "replay begun through the API"
    );
    let location = HeaderValue::try_from(format!("/v1/replays/{}", replay.id));
    let body = answer(&ReplayAnswer::from(replay));
    let mut response = (StatusCode::ACCEPTED, body).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Lists replays, the last begun first.
#[utoipa::path(
    get,
    path = "/v1/replays",
    tag = "replays",
    params(
        ("cursor" = inline(Option<String>), Query, description = "`next` of the page before"),
        ("limit" = inline(Option<u32>), Query, description = "How many at most; 100 unless given", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page", body = ReplayPage),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(api): State<Arc<Api>>, query: Query) -> Result<Response, Problem> {
    query.allow_only(&["cursor", "limit"], &[])?;
    let limit = query.limit()?;
    let before = query.read("cursor", "write `next` of the page before")?;
    let mut replays = api.replays()?.list(before, limit + 1).await?;
    let more = replays.len() > limit;
    replays.truncate(limit);
    let items: Vec<ReplayAnswer> = replays.into_iter().map(ReplayAnswer::from).collect();
    let last = items.last().filter(|_| more);
    let next = last.map(|last| last.id.to_string());
    Ok(answer(&ReplayPage { items, next }))
}

/// Shows how a replay stands.
#[utoipa::path(
    get,
    path = "/v1/replays/{id}",
    tag = "replays",
    params(("id" = i64, Path, description = "The replay's id")),
    responses(
        (status = 200, description = "The replay", body = ReplayAnswer),
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
    let replays = api.replays()?;
    let replay = replays.get(number(&id)?).await;
    let replay = replay.map_err(|error| missing(error, &id))?;
    Ok(answer(&ReplayAnswer::from(replay)))
}

/// Stops a replay after the batch in flight. One that has ended stays as it is.
#[utoipa::path(
    post,
    path = "/v1/replays/{id}/stop",
    tag = "replays",
    params(("id" = i64, Path, description = "The replay's id")),
    responses(
        (status = 200, description = "The replay", body = ReplayAnswer),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no store, or it is away or busy", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stop(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Name(id): Name,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let replays = api.replays()?;
    let replay = replays.stop(number(&id)?).await;
    let replay = replay.map_err(|error| missing(error, &id))?;
    info!(
        by = caller.name,
        replay = replay.id,
        "replay stopped through the API"
    );
    Ok(answer(&ReplayAnswer::from(replay)))
}

fn number(id: &str) -> Result<i64, Problem> {
    id.parse().map_err(|_| none(id))
}

fn missing(error: StoreError, id: &str) -> Problem {
    match error {
        StoreError::Missing => none(id),
        error => error.into(),
    }
}

fn none(id: &str) -> Problem {
    Problem::not_found(format!("there is no replay {id:?}"))
}

/// What a replay is asked for.
#[derive(Debug)]
struct Reading {
    filter: Filter,
    dry_run: bool,
    rate: u32,
}

impl Reading {
    /// Reads a body, and finds every mistake in it.
    fn read(body: Value) -> Result<Self, Problem> {
        let Value::Object(mut given) = body else {
            let what = "the body is not an object".to_owned();
            let mistake = mistake("", what, "Write the filter in braces; {} means everything");
            return Err(Problem::invalid(&vec![mistake].into()));
        };
        let mut wrong = Vec::new();
        for name in given.keys().filter(|name| !KEYS.contains(&name.as_str())) {
            let remedy = match nearest(name, KEYS) {
                Some(near) => format!("Write `{near}`"),
                None => format!("Remove it; there are {}", KEYS.join(", ")),
            };
            wrong.push(mistake(
                name,
                format!("`{name}` is not a known key"),
                &remedy,
            ));
        }
        let mut text = |key: &str, check: fn(&str) -> Result<(), String>, wrong: &mut Vec<_>| {
            let given = given.remove(key)?;
            let checked = match given.as_str() {
                Some(text) => check(text),
                None => Err("write it in quotes".to_owned()),
            };
            match checked {
                Ok(()) => given.as_str().map(str::to_owned),
                Err(remedy) => {
                    wrong.push(mistake(
                        key,
                        format!("`{key}` is {given}"),
                        &capital(&remedy),
                    ));
                    None
                }
            }
        };
        let kind = text("kind", check_kind, &mut wrong);
        let mut filter = Filter {
            kind: kind.and_then(|word| Kind::from_name(&word)),
            subscriber: text("subscriber", check_id, &mut wrong),
            webhook: text("type", check_type, &mut wrong),
            reason: text("reason", check_reason, &mut wrong),
            since: text("since", check_time, &mut wrong).and_then(|at| at.parse().ok()),
            until: text("until", check_time, &mut wrong).and_then(|at| at.parse().ok()),
            ids: Vec::new(),
        };
        if let Some(ids) = given.remove("ids") {
            if let Some(ids) = numbers(&ids) {
                filter.ids = ids;
            } else {
                let what = "`ids` is not a list of dead letters' ids".to_owned();
                let remedy = "Write 1 to 1000 whole numbers in brackets";
                wrong.push(mistake("ids", what, remedy));
            }
        }
        let dry_run = given.remove("dry_run").unwrap_or(Value::Bool(false));
        if !dry_run.is_boolean() {
            let what = "`dry_run` is neither true nor false".to_owned();
            wrong.push(mistake("dry_run", what, "Write true or false"));
        }
        let rate = match given.remove("rate") {
            None => Some(DEFAULT_RATE),
            Some(rate) => rate
                .as_u64()
                .and_then(|rate| u32::try_from(rate).ok())
                .filter(|rate| (1..=HIGHEST_RATE).contains(rate)),
        };
        if rate.is_none() {
            let what = format!("`rate` is not a whole number from 1 to {HIGHEST_RATE}");
            wrong.push(mistake("rate", what, "Write how many a second"));
        }
        match rate {
            Some(rate) if wrong.is_empty() => Ok(Self {
                filter,
                dry_run: dry_run == Value::Bool(true),
                rate,
            }),
            _ => Err(Problem::invalid(&wrong.into())),
        }
    }
}

fn numbers(ids: &Value) -> Option<Vec<i64>> {
    let ids = ids
        .as_array()
        .filter(|ids| (1..=MOST_IDS).contains(&ids.len()))?;
    ids.iter().map(Value::as_i64).collect()
}

fn check_id(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_ID || text.chars().any(char::is_control) {
        return Err("write a subscriber's id".to_owned());
    }
    Ok(())
}

fn check_time(text: &str) -> Result<(), String> {
    let read: Result<jiff::Timestamp, _> = text.parse();
    read.map(drop)
        .map_err(|_| "write a time such as 2026-01-22T11:29:38Z".to_owned())
}

fn mistake(key: &str, what: String, remedy: &str) -> Mistake {
    let escaped = key.replace('~', "~0").replace('/', "~1");
    let pointer = if key.is_empty() {
        String::new()
    } else {
        format!("/{escaped}")
    };
    Mistake {
        place: Place::Request(pointer),
        what,
        remedy: remedy.to_owned(),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replay_is_read_with_all_its_mistakes() {
        let asked = json!({
            "ids": [1, 2], "kind": "dead", "subscriber": "fixit", "type": "StatusUpdate",
            "reason": "timeout", "since": "2026-01-22T00:00:00Z", "until": "2026-01-23T00:00:00+01:00",
            "dry_run": true, "rate": 50,
        });
        let read = Reading::read(asked).map_err(drop).unwrap();
        assert!(read.dry_run && read.rate == 50 && read.filter.ids == [1, 2]);
        assert_eq!(read.filter.kind, Some(Kind::Dead));
        assert_eq!(
            read.filter.until.unwrap().to_string(),
            "2026-01-22T23:00:00Z"
        );
        let wrong = json!({
            "ids": [], "kind": "ded", "subscriber": 5, "type": "Status", "reason": "bad", "since": "now",
            "dry_run": 1, "rate": 0, "rat/e": 1,
        });
        let problem = Reading::read(wrong).unwrap_err();
        let body = serde_json::to_value(&problem).unwrap();
        let errors = body["errors"].as_array().unwrap();
        let pointers: Vec<_> = errors
            .iter()
            .map(|e| e["pointer"].as_str().unwrap())
            .collect();
        let all = [
            "/dry_run",
            "/ids",
            "/kind",
            "/rate",
            "/rat~1e",
            "/reason",
            "/since",
            "/subscriber",
            "/type",
        ];
        assert_eq!(pointers, all);
        let everything = Reading::read(json!({})).map_err(drop).unwrap();
        assert!(everything.filter.is_empty() && !everything.dry_run);
    }
}
