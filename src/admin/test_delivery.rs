//! `POST /v1/subscribers/{id}/test`: sends a documented example now, and tells what became of it.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension,
    extract::State,
    http::{StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use jiff::Timestamp;
use tracing::info;
use uuid::Uuid;

use super::{
    api::Api,
    auth::Caller,
    forms::{TestAnswer, TestForm},
    problem::Problem,
    request::{Json, Name, Query},
    subscribers::{answer, none},
};
use crate::{
    delivery::{Delivery, Outcome},
    settings::mistakes::nearest,
    subscriber::SubscriberId,
    webhook::{WebhookType, examples::EXAMPLES},
};

/// Sends the documented example of a webhook type to the subscriber's target, now and once, and
/// answers with the outcome. It is sent to a disabled subscriber, too, and whether or not the
/// subscriber wants the type. It is not retried, and no dead letter.
#[utoipa::path(
    post,
    path = "/v1/subscribers/{id}/test",
    tag = "subscribers",
    params(("id" = String, Path, description = "The subscriber's id")),
    request_body = TestForm,
    responses(
        (status = 200, description = "What became of it", body = TestAnswer),
        (status = 404, description = "There is no such subscriber", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The bridge cannot send it now, or not tell whether there is such a subscriber", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn test(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Name(id): Name,
    query: Query,
    Json(body): Json,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let kind = kind(&body)?;
    let subscriber = api.subscriber(&id).await?.ok_or_else(|| none(&id))?;
    let Ok(_place) = api.tests.try_acquire() else {
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-tests",
            "Too many tests",
            "as many tests as there may be are under way: wait for them",
        )
        .with_header(header::RETRY_AFTER, "1"));
    };
    let delivery = delivery(&subscriber.id, kind)?;
    let webhook_id = delivery.webhook_id.to_string();
    info!(by = caller.name, subscriber = %subscriber.id, webhook = %kind, "test asked for through the API");
    let began = Instant::now();
    let outcome = (api.handles.attempt)(subscriber, delivery).await;
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let failure = match outcome {
        Ok(Outcome::Delivered) => None,
        Ok(Outcome::Failed(failure)) => Some(failure),
        Err(why) => {
            let title = "Cannot be sent now";
            return Err(Problem::unavailable("cannot-send", title, why));
        }
    };
    Ok(answer(&TestAnswer {
        webhook_id,
        kind: kind.name(),
        outcome: if failure.is_none() {
            "delivered"
        } else {
            "failed"
        },
        reason: failure.as_ref().map(|failure| failure.reason.as_str()),
        detail: failure.map(|failure| failure.detail),
        milliseconds,
    }))
}

fn kind(body: &serde_json::Value) -> Result<WebhookType, Problem> {
    let names = WebhookType::ALL.map(WebhookType::name);
    let wrong =
        |field: &str, what: &str, remedy: String| Problem::invalid_field(field, what, &remedy);
    let Some(members) = body.as_object() else {
        let remedy = "Write {\"type\": \"StatusUpdate\"}".to_owned();
        return Err(wrong(
            "type",
            "is missing: the body is not an object",
            remedy,
        ));
    };
    if let Some(name) = members.keys().find(|name| *name != "type") {
        return Err(wrong(
            name,
            "is not a known key",
            "Write only `type`".to_owned(),
        ));
    }
    let given = members.get("type").and_then(serde_json::Value::as_str);
    let Some(name) = given else {
        let remedy = format!("Write one of {}", names.join(", "));
        return Err(wrong("type", "is missing, or no text", remedy));
    };
    WebhookType::from_name(name).ok_or_else(|| {
        let remedy = match nearest(name, names) {
            Some(near) => format!("Write \"{near}\""),
            None => format!("There are {}", names.join(", ")),
        };
        wrong(
            "type",
            &format!("is {name:?}, which is no webhook type"),
            remedy,
        )
    })
}

/// The documented example as a delivery of its own: no receiver has seen its id.
fn delivery(subscriber: &SubscriberId, kind: WebhookType) -> Result<Delivery, Problem> {
    let example = EXAMPLES
        .iter()
        .find(|example| example.event_type.webhook() == kind)
        .ok_or_else(|| Problem::not_found(format!("{kind} has no documented example")))?;
    let event: serde_json::Value = serde_json::from_str(example.event).unwrap_or_default();
    let case = event["data"]["case"]["id"].as_str().map(str::to_owned);
    let now = Timestamp::now();
    Ok(Delivery {
        webhook_id: Uuid::new_v4(),
        kind,
        subscriber: subscriber.clone(),
        payload: Bytes::from(example.payload()),
        event_time: now,
        received_at: now,
        replay: 0,
        case,
        traceparent: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_webhook_type_has_an_example_to_test_with() {
        for kind in WebhookType::ALL {
            let delivery = delivery(&SubscriberId::new("one"), kind)
                .map_err(drop)
                .unwrap();
            assert_eq!(delivery.kind, kind);
            serde_json::from_slice::<serde_json::Value>(&delivery.payload).unwrap();
        }
    }
}
