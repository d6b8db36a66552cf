//! The JSON Schemas (draft 2020-12) of domain events and webhooks, for whoever publishes the one
//! or receives the other. A webhook's comes from its payload type, an event's from the family's
//! `data_schema`, which stands beside the reading of the same fields.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    EventType, WebhookType, activity, attribute, claim_status, cost_proposal, files, message,
    status,
};
use crate::event::{
    Gmt,
    values::{Id, Name},
};

/// The schema of a domain event: everything that the bridge reads of it. What else an event has
/// is allowed, and not sent.
pub fn event_schema(event_type: EventType) -> Value {
    let data = match event_type {
        EventType::CaseStatusUpdated => status::data_schema(),
        EventType::CaseCostProposalCreated => cost_proposal::data_schema(),
        EventType::CaseMessageCreated => message::data_schema(),
        EventType::CaseFileUploaded => files::data_schema(),
        EventType::ActivityCreated | EventType::ActivityUpdated => activity::data_schema(),
        EventType::ClaimAttributeChanged => attribute::data_schema("claim"),
        EventType::CaseAttributeChanged => attribute::data_schema("contact"),
        EventType::ContactAttributeChanged => attribute::contact_data_schema(),
        EventType::ActivityAttributeChanged => attribute::data_schema("activity"),
        EventType::ClaimStatusChanged => claim_status::data_schema(),
    };
    let mut schema = required([
        ("specversion", json!({ "const": "1.0" })),
        ("id", of::<Id<'_>>()),
        ("source", of::<Name<'_>>()),
        ("type", json!({ "const": event_type.name() })),
        ("time", time()),
        ("data", data),
    ]);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!(event_type.name());
    schema
}

/// The schema of a webhook's payload: exactly the documented keys.
pub fn webhook_schema(kind: WebhookType) -> Value {
    match kind {
        WebhookType::StatusUpdate => payload::<status::StatusUpdate<'_>>(),
        WebhookType::NewCostProposal => payload::<cost_proposal::NewCostProposal<'_>>(),
        WebhookType::NewMessage => payload::<message::NewMessage<'_>>(),
        WebhookType::NewFileUploaded => payload::<files::NewFileUploaded<'_>>(),
        WebhookType::ActivityChange => payload::<activity::ActivityChange<'_>>(),
        WebhookType::ClaimAttributeChange => payload::<attribute::ClaimAttributeChange<'_>>(),
        WebhookType::CaseAttributeChange => payload::<attribute::CaseAttributeChange<'_>>(),
        WebhookType::ContactAttributeChange => payload::<attribute::ContactAttributeChange<'_>>(),
        WebhookType::ActivityAttributeChange => payload::<attribute::ActivityAttributeChange<'_>>(),
        WebhookType::ClaimStatusChange => payload::<claim_status::ClaimStatusChange<'_>>(),
    }
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
}

fn payload<T: JsonSchema>() -> Value {
    generator().into_root_schema_for::<T>().to_value()
}

/// The schema of a value.
pub(super) fn of<T: JsonSchema>() -> Value {
    T::json_schema(&mut generator()).to_value()
}

/// The schema of a time in an event: any offset, any decimals.
pub(super) fn time() -> Value {
    of::<Gmt>()
}

/// The schema of an object that has these fields.
pub(super) fn required<const N: usize>(fields: [(&str, Value); N]) -> Value {
    object(fields, [])
}

/// The schema of an object that has the first fields, and may have the second.
pub(super) fn object<const R: usize, const O: usize>(
    required: [(&str, Value); R],
    optional: [(&str, Value); O],
) -> Value {
    let names = required.each_ref().map(|(name, _)| *name);
    let properties: Map<String, Value> = required
        .into_iter()
        .chain(optional)
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    json!({ "type": "object", "required": names.as_slice(), "properties": properties })
}

/// The schema of an object with an id.
pub(super) fn identified() -> Value {
    required([("id", of::<Id<'_>>())])
}

/// The schema of an array of such items.
pub(super) fn array(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// The schema of such a value or null.
pub(super) fn nullable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}
