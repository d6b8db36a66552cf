//! What the API takes. It is read by `subscriber/loading/request.rs`, by the rules of the
//! subscribers' files; the forms here say what these rules take.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    pub(in crate::admin) ids: Option<Vec<i64>>,
    /// `dead`, `rejected` or `lost`.
    #[schema(nullable = false)]
    pub(in crate::admin) kind: Option<String>,
    /// To whom they were addressed.
    #[schema(nullable = false)]
    pub(in crate::admin) subscriber: Option<String>,
    /// The webhook type.
    #[serde(rename = "type")]
    #[schema(nullable = false)]
    pub(in crate::admin) webhook: Option<String>,
    /// Why they failed in the end.
    #[schema(nullable = false)]
    pub(in crate::admin) reason: Option<String>,
    /// Failed then or later.
    #[schema(nullable = false, format = "date-time")]
    pub(in crate::admin) since: Option<String>,
    /// Failed before.
    #[schema(nullable = false, format = "date-time")]
    pub(in crate::admin) until: Option<String>,
    /// Only count what would be replayed.
    #[schema(nullable = false)]
    pub(in crate::admin) dry_run: Option<bool>,
    /// At most so many a second.
    #[schema(nullable = false, minimum = 1, maximum = 10000)]
    pub(in crate::admin) rate: Option<u32>,
}
