//! What the API gives of subscribers, hooks of cases, and tests.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{subscriber::form::Shown, telemetry::status::Status};

/// A subscriber in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriberItem {
    /// The subscriber.
    #[serde(flatten)]
    pub(in crate::admin) subscriber: Shown,
    /// Where it is defined: `store`, or `file`, which the API does not change.
    pub(in crate::admin) origin: &'static str,
    /// The file and line that it is defined in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) file: Option<String>,
    /// Its version, which is also the etag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) version: Option<i64>,
}

/// A subscriber and how its deliveries fare.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriberAnswer {
    /// The subscriber.
    #[serde(flatten)]
    pub(in crate::admin) item: SubscriberItem,
    /// How its deliveries fare in this bridge since it started.
    pub(in crate::admin) status: StatusForm,
}

/// How a subscriber's deliveries fare.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatusForm {
    /// When a delivery last arrived.
    #[schema(format = "date-time")]
    last_success: Option<String>,
    /// The attempt that failed last.
    last_failure: Option<FailureForm>,
    /// Attempts that failed since the last one that did not.
    failures_in_a_row: u64,
    /// Attempts under way.
    in_flight: usize,
    /// Whether its deliveries go through the slow lanes.
    slow: bool,
}

/// An attempt that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureForm {
    /// When.
    #[schema(format = "date-time")]
    at: String,
    /// Why.
    reason: &'static str,
    /// One line about it.
    detail: String,
}

impl From<Status> for StatusForm {
    fn from(status: Status) -> Self {
        Self {
            last_success: status.last_success.map(|at| at.to_string()),
            last_failure: status.last_failure.map(|failure| FailureForm {
                at: failure.at.to_string(),
                reason: failure.reason.as_str(),
                detail: failure.detail,
            }),
            failures_in_a_row: status.failures_in_a_row,
            in_flight: status.in_flight,
            slow: status.slow,
        }
    }
}

/// Subscribers, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriberPage {
    /// What is on this page.
    pub(in crate::admin) items: Vec<SubscriberItem>,
    /// The `cursor` of the next page, if there is one.
    pub(in crate::admin) next: Option<String>,
}

/// A case's own hook.
#[derive(Debug, Serialize, ToSchema)]
pub struct HookAnswer {
    /// Where webhooks are sent; `***` stands for the query.
    pub(in crate::admin) url: String,
    /// Whether an `authorization` header is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) authorization: Option<crate::subscriber::form::Set>,
    /// Whether webhooks are sent.
    pub(in crate::admin) enabled: bool,
    /// The id of the subscriber that the hook is.
    pub(in crate::admin) subscriber: String,
    /// Its version, which is also the etag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) version: Option<i64>,
    /// How its deliveries fare in this bridge since it started.
    pub(in crate::admin) status: StatusForm,
}

/// What became of a test.
#[derive(Debug, Serialize, ToSchema)]
pub struct TestAnswer {
    /// The webhook id that it was sent with: no delivery has the same.
    pub(in crate::admin) webhook_id: String,
    /// The webhook type.
    #[serde(rename = "type")]
    pub(in crate::admin) kind: &'static str,
    /// `delivered` or `failed`.
    pub(in crate::admin) outcome: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) reason: Option<&'static str>,
    /// One line about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) detail: Option<String>,
    /// How long the attempt took.
    pub(in crate::admin) milliseconds: u64,
}
