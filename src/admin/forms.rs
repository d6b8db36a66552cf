//! What the API takes and gives, as its description shows it.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

mod asked;
mod dead_letters;
mod subscribers;

pub use asked::{
    AmqpForm, HookForm, HttpForm, Kept, PatchForm, ReplayForm, SecretForm, SigningForm,
    SubscriberForm, TestForm,
};
pub use dead_letters::{
    CountAnswer, DeadLetterAnswer, DeadLetterItem, DeadLetterPage, DeletedAnswer, ReplayAnswer,
    ReplayPage, SkippedForm,
};
pub use subscribers::{
    FailureForm, HookAnswer, StatusForm, SubscriberAnswer, SubscriberItem, SubscriberPage,
    TestAnswer,
};

/// The catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogueAnswer {
    /// Every webhook type, in the order of the documentation.
    pub(super) items: Vec<WebhookTypeItem>,
}

/// A webhook type, and the domain events that it is made from.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookTypeItem {
    /// The webhook type.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The JSON Schema of its payload.
    #[schema(value_type = Object)]
    pub(super) schema: Value,
    /// The domain events that it is made from.
    pub(super) events: Vec<EventTypeItem>,
}

/// A domain event.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventTypeItem {
    /// The event's `type`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Which of its fields the webhook is made from.
    pub(super) made_from: &'static str,
    /// The JSON Schema of the event.
    #[schema(value_type = Object)]
    pub(super) schema: Value,
}
