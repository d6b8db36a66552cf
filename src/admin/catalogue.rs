//! What there is to subscribe to.

use axum::response::Response;

use super::{
    api::Api,
    forms::{CatalogueAnswer, EventTypeItem, WebhookTypeItem},
    problem::Problem,
    request::Query,
    subscribers::answer,
};
use crate::webhook::{EventType, WebhookType, schema};

/// The webhook types, the domain events that they are made from, and the JSON Schemas of both.
#[utoipa::path(
    get,
    path = "/v1/webhook-types",
    tag = "catalogue",
    responses((status = 200, description = "The catalogue", body = CatalogueAnswer))
)]
pub(super) async fn webhook_types(
    _: axum::extract::State<std::sync::Arc<Api>>,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_only(&[], &[])?;
    let items = WebhookType::ALL.map(|kind| WebhookTypeItem {
        kind: kind.name(),
        schema: schema::webhook_schema(kind),
        events: EventType::ALL
            .into_iter()
            .filter(|event| event.webhook() == kind)
            .map(|event| EventTypeItem {
                kind: event.name(),
                made_from: event.made_from(),
                schema: schema::event_schema(event),
            })
            .collect(),
    });
    Ok(answer(&CatalogueAnswer {
        items: items.into(),
    }))
}
