//! `ActivityChange`: an activity was created or updated. With a claim it is of type `Claim`,
//! without one of type `Case`, and the two payloads differ.

use schemars::JsonSchema;
use serde::{
    Deserialize, Serialize,
    de::value::{Error, StrDeserializer},
};
use serde_json::{Value, json, value::RawValue};

use super::{Made, case, schema};
use crate::event::{
    Rejection,
    field::{self, Field},
    values::{Id, Micros, Text},
};

/// An activity was created or updated.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ActivityChange<'a> {
    Claim(ClaimActivity<'a>),
    Case(CaseActivity<'a>),
}

/// An activity of a claim.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, inline)]
pub(super) struct ClaimActivity<'a> {
    timestamp: Micros,
    case_id: Id<'a>,
    claim_id: Id<'a>,
    activity_id: Id<'a>,
    activity_template_id: Id<'a>,
    status: Status,
    r#type: ClaimType,
}

/// An activity of a case.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, inline)]
pub(super) struct CaseActivity<'a> {
    timestamp: Micros,
    case_id: Id<'a>,
    contact_id: Id<'a>,
    activity_id: Id<'a>,
    activity_template_id: Id<'a>,
    status: Status,
    r#type: CaseType,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
enum ClaimType {
    Claim,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
enum CaseType {
    Case,
}

/// The documented statuses of an activity.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
enum Status {
    Unset,
    Open,
    Submitted,
    UnderReview,
    Accepted,
    Rejected,
    Deleted,
    PartiallyAccepted,
}

impl field::Value<'_> for Status {
    const EXPECTED: &'static str = "one of Unset, Open, Submitted, UnderReview, Accepted, \
                                    Rejected, Deleted, PartiallyAccepted";

    fn read(raw: &RawValue) -> Result<Self, &'static str> {
        let word = Text::read(raw)?;
        Self::deserialize(StrDeserializer::<Error>::new(&word))
            .map_err(|_| "is not a documented status")
    }
}

pub(super) fn map(data: &Field<'_, '_>, timestamp: Micros) -> Result<Made, Rejection> {
    let [case, claim, contact, activity] =
        data.members(["case", "claim", "contact", "activity"])?;
    let (case_id, audience) = case::read(&case)?;
    let claim_id = read_claim(&claim)?;
    let [id, template, status] = activity.members(["id", "templateId", "status"])?;
    let activity_id = id.read()?;
    let activity_template_id = template.read()?;
    let status = status.read()?;
    let payload = match claim_id {
        Some(claim_id) => ActivityChange::Claim(ClaimActivity {
            timestamp,
            case_id,
            claim_id,
            activity_id,
            activity_template_id,
            status,
            r#type: ClaimType::Claim,
        }),
        None => ActivityChange::Case(CaseActivity {
            timestamp,
            case_id,
            contact_id: contact.read_member("id")?,
            activity_id,
            activity_template_id,
            status,
            r#type: CaseType::Case,
        }),
    };
    Made::new(&payload, audience)
}

fn read_claim<'a>(claim: &Field<'a, '_>) -> Result<Option<Id<'a>>, Rejection> {
    let Some(claim) = claim.optional() else {
        return Ok(None);
    };
    let [id] = claim.members(["id"])?;
    id.read_optional()
}

pub(super) fn data_schema() -> Value {
    let activity = schema::required([
        ("id", schema::of::<Id<'_>>()),
        ("templateId", schema::of::<Id<'_>>()),
        ("status", schema::of::<Status>()),
    ]);
    let claim_id = schema::nullable(&schema::of::<Id<'_>>());
    let claim = schema::nullable(&schema::object([], [("id", claim_id)]));
    let mut data = schema::object(
        [("case", case::data_schema()), ("activity", activity)],
        [("claim", claim)],
    );
    // A contact is looked at only where there is no claim.
    data["anyOf"] = json!([
        schema::required([("claim", schema::identified())]),
        schema::required([("contact", schema::identified())]),
    ]);
    data
}
