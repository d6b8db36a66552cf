//! The schemas are schemas, and the documented examples satisfy them.

use jsonschema::Validator;
use serde_json::Value;

use super::EXAMPLES;
use crate::webhook::{
    EventType, WebhookType,
    schema::{event_schema, webhook_schema},
};

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

#[test]
fn every_example_satisfies_its_schemas() {
    for example in &EXAMPLES {
        let event = serde_json::from_str(example.event).unwrap();
        let errors = validator(&event_schema(example.event_type)).validate(&event);
        assert!(errors.is_ok(), "{errors:?}");
        let webhook = serde_json::from_str(example.webhook).unwrap();
        let errors = validator(&webhook_schema(example.event_type.webhook())).validate(&webhook);
        assert!(errors.is_ok(), "{errors:?}");
    }
}

#[test]
fn every_schema_is_one_of_draft_2020_12() {
    let events = EventType::ALL.map(event_schema);
    let webhooks = WebhookType::ALL.map(webhook_schema);
    for schema in events.iter().chain(&webhooks) {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{schema}");
        let draft = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(schema["$schema"], draft);
    }
}

#[test]
fn a_webhooks_schema_requires_every_documented_key_and_allows_no_other() {
    for example in &EXAMPLES {
        let webhook: Value = serde_json::from_str(example.webhook).unwrap();
        let validator = validator(&webhook_schema(example.event_type.webhook()));
        let keys = webhook.as_object().unwrap().keys();
        for key in keys {
            let mut less = webhook.clone();
            less.as_object_mut().unwrap().remove(key);
            assert!(!validator.is_valid(&less), "{key}: {less}");
            let mut wrong = webhook.clone();
            wrong[key] = Value::Object(serde_json::Map::new());
            assert!(!validator.is_valid(&wrong), "{wrong}");
        }
        let mut more = webhook.clone();
        more["secret"] = 1.into();
        assert!(!validator.is_valid(&more), "{more}");
    }
}

#[test]
fn a_payload_with_every_value_set_satisfies_its_schema() {
    let event = super::example(EventType::CaseCostProposalCreated)
        .with("data.costProposal.externalId", "7")
        .with("data.costProposal.dateValidUntil", r#""2019-12-31""#)
        .with("data.costProposal.reaction", r#""accepted""#)
        .with("data.costProposal.comment", r#""fine""#)
        .with(
            "data.costProposal.reactionDate",
            r#""2019-12-01T00:00:00Z""#,
        )
        .with("data.costProposal.reactionName", r#""Kim""#);
    let payload = serde_json::from_str(&super::payload(&event)).unwrap();
    let validator = validator(&webhook_schema(WebhookType::NewCostProposal));
    assert!(validator.validate(&payload).is_ok());
}
