//! What the API gives of dead letters and replays.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::store::{
    dead_letters::DeadLetter,
    replays::{Count, Replay, Skipped},
};

/// A dead letter without its payload.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterItem {
    /// Its id.
    id: i64,
    /// Which queue it came from: `dead`, `rejected` or `lost`.
    kind: &'static str,
    /// The id that every attempt carried; null for what is no delivery.
    webhook_id: Option<String>,
    /// 0, and one more at each replay.
    replay: i64,
    /// To whom it was addressed.
    subscriber: Option<String>,
    /// The webhook type.
    #[serde(rename = "type")]
    webhook: Option<String>,
    /// The case.
    case: Option<String>,
    /// Why it failed in the end.
    reason: String,
    /// One line about that.
    detail: String,
    /// The attempt that it ended on.
    attempts: Option<i64>,
    /// Why the first attempt failed, if the second is what `reason` tells.
    first_reason: Option<String>,
    /// One line about that.
    first_detail: Option<String>,
    /// When the domain event happened.
    #[schema(format = "date-time")]
    event_time: Option<String>,
    /// When it reached the bridge.
    #[schema(format = "date-time")]
    received_at: Option<String>,
    /// When it failed for good.
    #[schema(format = "date-time")]
    failed_at: String,
    /// When it was put into the store.
    #[schema(format = "date-time")]
    archived_at: String,
    /// How often the same came here.
    count: i64,
    /// The key that it was published with.
    routing_key: String,
    /// W3C trace context.
    traceparent: Option<String>,
    /// How many bytes the payload has.
    payload_bytes: i64,
    /// When it was last replayed.
    #[schema(format = "date-time")]
    replayed_at: Option<String>,
    /// By which replay.
    replayed_by: Option<i64>,
}

impl From<DeadLetter> for DeadLetterItem {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            kind: letter.kind.as_str(),
            webhook_id: letter.webhook_id,
            replay: letter.replay,
            subscriber: letter.subscriber,
            webhook: letter.webhook,
            case: letter.case,
            reason: letter.reason,
            detail: letter.detail,
            attempts: letter.attempts,
            first_reason: letter.first_reason,
            first_detail: letter.first_detail,
            event_time: letter.event_time.map(|at| at.to_string()),
            received_at: letter.received_at.map(|at| at.to_string()),
            failed_at: letter.failed_at.to_string(),
            archived_at: letter.archived_at.to_string(),
            count: letter.count,
            routing_key: letter.routing_key,
            traceparent: letter.traceparent,
            payload_bytes: letter.payload_bytes,
            replayed_at: letter.replayed_at.map(|at| at.to_string()),
            replayed_by: letter.replayed_by,
        }
    }
}

/// A dead letter with everything that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterAnswer {
    /// The dead letter.
    #[serde(flatten)]
    pub(in crate::admin) letter: DeadLetterItem,
    /// The payload as text, character by character; null if it is not UTF-8.
    pub(in crate::admin) payload: Option<String>,
    /// The payload in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) payload_base64: Option<String>,
    /// What a replay would find: the subscriber is `enabled`, `disabled` or `gone`; null for what is no
    /// delivery.
    pub(in crate::admin) subscriber_now: Option<&'static str>,
    /// Scheme, host and port, or queue or exchange, that its deliveries go to now.
    pub(in crate::admin) target_now: Option<String>,
    /// The other dead letters of the same webhook, the earliest first: each replay that failed again.
    pub(in crate::admin) related: Vec<DeadLetterItem>,
}

/// Dead letters, the latest failure first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterPage {
    /// What is on this page.
    pub(in crate::admin) items: Vec<DeadLetterItem>,
    /// The `cursor` of the next page, if there is one.
    pub(in crate::admin) next: Option<String>,
}

/// How many dead letters are no more.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedAnswer {
    /// How many.
    pub(in crate::admin) deleted: u64,
}

/// Dead letters that a replay does not publish.
#[derive(Debug, Serialize, ToSchema)]
pub struct SkippedForm {
    /// Nobody has the subscriber's id any more.
    gone: u64,
    /// The subscriber is disabled.
    disabled: u64,
    /// What is no delivery, and no domain event either.
    unusable: u64,
    /// How many of them by subscriber; at most 100 subscribers.
    subscribers: BTreeMap<String, u64>,
}

impl From<Skipped> for SkippedForm {
    fn from(skipped: Skipped) -> Self {
        Self {
            gone: skipped.gone,
            disabled: skipped.disabled,
            unusable: skipped.unusable,
            subscribers: skipped.subscribers,
        }
    }
}

/// What a replay would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct CountAnswer {
    /// How many dead letters would be looked at.
    total: u64,
    /// How many of them would not be published, and why.
    skipped: SkippedForm,
}

impl From<Count> for CountAnswer {
    fn from(count: Count) -> Self {
        Self {
            total: count.total,
            skipped: count.skipped.into(),
        }
    }
}

/// A replay of dead letters, in the background.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayAnswer {
    /// Its id.
    pub(in crate::admin) id: i64,
    /// `running`, `done` or `stopped`.
    state: &'static str,
    /// What is replayed.
    #[schema(value_type = Object)]
    filter: Value,
    /// The name of the token that began it.
    by: String,
    /// When it began.
    #[schema(format = "date-time")]
    began_at: String,
    /// When it ended.
    #[schema(format = "date-time")]
    ended_at: Option<String>,
    /// How many dead letters were meant when it began.
    total: u64,
    /// How many are published and confirmed.
    replayed: u64,
    /// How many are not published, and why.
    skipped: SkippedForm,
    /// At most so many a second.
    rate: u32,
    /// Why it does not go on just now.
    trouble: Option<String>,
}

impl From<Replay> for ReplayAnswer {
    fn from(replay: Replay) -> Self {
        let mut filter = serde_json::to_value(&replay.filter).unwrap_or_default();
        // As requests call it.
        if let Some(members) = filter.as_object_mut()
            && let Some(kind) = members.remove("webhook")
        {
            members.insert("type".to_owned(), kind);
        }
        Self {
            id: replay.id,
            state: replay.state.as_str(),
            filter,
            by: replay.by,
            began_at: replay.began_at.to_string(),
            ended_at: replay.ended_at.map(|at| at.to_string()),
            total: replay.total,
            replayed: replay.replayed,
            skipped: replay.skipped.into(),
            rate: replay.rate,
            trouble: replay.trouble,
        }
    }
}

/// Replays, the last begun first.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayPage {
    /// What is on this page.
    pub(in crate::admin) items: Vec<ReplayAnswer>,
    /// The `cursor` of the next page, if there is one.
    pub(in crate::admin) next: Option<String>,
}
