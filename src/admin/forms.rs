//! What the API takes and gives, as its description shows it. What is taken is read by
//! `subscriber/loading/request.rs`, by the rules of the subscribers' files; the forms here say what
//! these rules take.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    store::{
        dead_letters::DeadLetter,
        replays::{Count, Replay, Skipped},
    },
    subscriber::form::Shown,
    telemetry::status::Status,
};

/// A subscriber, as a request gives it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "SubscriberForm", example = json!({
    "party": "fixit", "events": ["StatusUpdate", "NewMessage"],
    "http": { "url": "https://fixit.example/hooks", "authorization": "Bearer …" },
}))]
pub struct SubscriberForm {
    /// As in the address; it may be left out.
    #[schema(nullable = false, pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    id: Option<String>,
    /// Whether webhooks are made for it.
    #[schema(nullable = false, default = true)]
    enabled: Option<bool>,
    /// Who it is in the order hub.
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    party: Option<String>,
    /// Only these cases.
    #[schema(nullable = false, min_items = 1)]
    cases: Option<Vec<String>>,
    /// `all` for every event, beside neither `party` nor `cases`.
    #[schema(nullable = false, pattern = "^all$")]
    scope: Option<String>,
    /// Webhook types, or `*` alone for all.
    #[schema(min_items = 1)]
    events: Vec<String>,
    /// One secret that webhooks are signed with, or several while they are rotated: `whsec_` and the
    /// base64 of 24 to 64 bytes.
    #[schema(nullable = false)]
    signing_secret: Option<SigningForm>,
    /// How long one attempt may take, such as `10s`; below `delivery.shutdown_timeout`.
    #[schema(nullable = false)]
    timeout: Option<String>,
    /// How many attempts each bridge runs at once.
    #[schema(nullable = false, minimum = 1, maximum = 1000)]
    max_in_flight: Option<u32>,
    /// An HTTP endpoint; or else `amqp`.
    #[schema(nullable = false)]
    http: Option<HttpForm>,
    /// A queue or exchange; or else `http`.
    #[schema(nullable = false)]
    amqp: Option<AmqpForm>,
}

/// A secret, or word that it stays as it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SecretForm {
    /// The secret itself.
    Given(String),
    /// What a read shows in its place.
    Kept(Kept),
}

/// One signing secret or several.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SigningForm {
    /// One.
    One(SecretForm),
    /// Several, newest first.
    Several(Vec<SecretForm>),
}

/// Word that a secret stays as it is. Those that are sent to an endpoint stay only while its scheme,
/// host and port do.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Kept {
    /// Always true.
    set: bool,
}

/// An HTTP endpoint.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpForm {
    /// `http://` or `https://`, without user and password. A query of `***` keeps the one that is set.
    url: String,
    /// The `authorization` header, sent verbatim.
    #[schema(nullable = false)]
    authorization: Option<SecretForm>,
    /// Headers of the subscriber's own.
    #[schema(nullable = false)]
    headers: Option<BTreeMap<String, SecretForm>>,
}

/// A queue or exchange.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AmqpForm {
    /// The subscriber's own broker, `amqp://` or `amqps://`; left out for the home broker.
    #[schema(nullable = false)]
    uri: Option<SecretForm>,
    /// The queue; or else `exchange`.
    #[schema(nullable = false)]
    queue: Option<String>,
    /// Whether the bridge declares the queue.
    #[schema(nullable = false)]
    declare: Option<bool>,
    /// The exchange; or else `queue`.
    #[schema(nullable = false)]
    exchange: Option<String>,
    /// The routing key for an exchange; `{type}`, `{case}`, `{subscriber}` and `{party}` are filled in.
    #[schema(nullable = false)]
    routing_key: Option<String>,
}

/// A case's own hook, as a request gives it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "HookForm", example = json!({
    "url": "https://cases.example/hook/17", "authorization": "Basic …", "enabled": true,
}))]
pub struct HookForm {
    /// Where webhooks are sent; no other case's.
    url: String,
    /// The `authorization` header, sent verbatim.
    #[schema(nullable = false)]
    authorization: Option<SecretForm>,
    /// Whether webhooks are sent.
    #[schema(nullable = false, default = true)]
    enabled: Option<bool>,
}

/// A change of a subscriber.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "enabled": false }))]
pub struct PatchForm {
    /// Whether webhooks are made for it.
    enabled: bool,
}

/// What is to be sent as a test.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "type": "StatusUpdate" }))]
pub struct TestForm {
    /// The webhook type whose documented example is sent.
    #[serde(rename = "type")]
    kind: String,
}

/// Which dead letters are to be replayed: those for which everything given holds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "subscriber": "fixit", "since": "2026-01-22T00:00:00Z", "dry_run": true }))]
pub struct ReplayForm {
    /// Only these.
    #[schema(nullable = false, max_items = 1000, min_items = 1)]
    pub(super) ids: Option<Vec<i64>>,
    /// `dead`, `rejected` or `lost`.
    #[schema(nullable = false)]
    pub(super) kind: Option<String>,
    /// To whom they were addressed.
    #[schema(nullable = false)]
    pub(super) subscriber: Option<String>,
    /// The webhook type.
    #[serde(rename = "type")]
    #[schema(nullable = false)]
    pub(super) webhook: Option<String>,
    /// Why they failed in the end.
    #[schema(nullable = false)]
    pub(super) reason: Option<String>,
    /// Failed then or later.
    #[schema(nullable = false, format = "date-time")]
    pub(super) since: Option<String>,
    /// Failed before.
    #[schema(nullable = false, format = "date-time")]
    pub(super) until: Option<String>,
    /// Only count what would be replayed.
    #[schema(nullable = false)]
    pub(super) dry_run: Option<bool>,
    /// At most so many a second.
    #[schema(nullable = false, minimum = 1, maximum = 10000)]
    pub(super) rate: Option<u32>,
}

/// A subscriber in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriberItem {
    /// The subscriber.
    #[serde(flatten)]
    pub(super) subscriber: Shown,
    /// Where it is defined: `store`, or `file`, which the API does not change.
    pub(super) origin: &'static str,
    /// The file and line that it is defined in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// Its version, which is also the etag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<i64>,
}

/// A subscriber and how its deliveries fare.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriberAnswer {
    /// The subscriber.
    #[serde(flatten)]
    pub(super) item: SubscriberItem,
    /// How its deliveries fare in this bridge since it started.
    pub(super) status: StatusForm,
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
    pub(super) items: Vec<SubscriberItem>,
    /// The `cursor` of the next page, if there is one.
    pub(super) next: Option<String>,
}

/// A case's own hook.
#[derive(Debug, Serialize, ToSchema)]
pub struct HookAnswer {
    /// Where webhooks are sent; `***` stands for the query.
    pub(super) url: String,
    /// Whether an `authorization` header is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authorization: Option<crate::subscriber::form::Set>,
    /// Whether webhooks are sent.
    pub(super) enabled: bool,
    /// The id of the subscriber that the hook is.
    pub(super) subscriber: String,
    /// Its version, which is also the etag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<i64>,
    /// How its deliveries fare in this bridge since it started.
    pub(super) status: StatusForm,
}

/// What became of a test.
#[derive(Debug, Serialize, ToSchema)]
pub struct TestAnswer {
    /// The webhook id that it was sent with: no delivery has the same.
    pub(super) webhook_id: String,
    /// The webhook type.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// `delivered` or `failed`.
    pub(super) outcome: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// One line about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
    /// How long the attempt took.
    pub(super) milliseconds: u64,
}

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
    pub(super) letter: DeadLetterItem,
    /// The payload as text, character by character; null if it is not UTF-8.
    pub(super) payload: Option<String>,
    /// The payload in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload_base64: Option<String>,
    /// What a replay would find: the subscriber is `enabled`, `disabled` or `gone`; null for what is no
    /// delivery.
    pub(super) subscriber_now: Option<&'static str>,
    /// Scheme, host and port, or queue or exchange, that its deliveries go to now.
    pub(super) target_now: Option<String>,
    /// The other dead letters of the same webhook, the earliest first: each replay that failed again.
    pub(super) related: Vec<DeadLetterItem>,
}

/// Dead letters, the latest failure first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterPage {
    /// What is on this page.
    pub(super) items: Vec<DeadLetterItem>,
    /// The `cursor` of the next page, if there is one.
    pub(super) next: Option<String>,
}

/// How many dead letters are no more.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedAnswer {
    /// How many.
    pub(super) deleted: u64,
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
    pub(super) id: i64,
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
    pub(super) items: Vec<ReplayAnswer>,
    /// The `cursor` of the next page, if there is one.
    pub(super) next: Option<String>,
}

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
