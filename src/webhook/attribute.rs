//! `ClaimAttributeChange`, `CaseAttributeChange`, `ContactAttributeChange` and
//! `ActivityAttributeChange`: an attribute of one of the four changed.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Made, case, schema};
use crate::event::{
    Rejection,
    field::Field,
    values::{Id, Micros},
};

/// An attribute of a claim changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct ClaimAttributeChange<'a> {
    timestamp: Micros,
    case_id: Id<'a>,
    claim_id: Id<'a>,
    attribute_id: Id<'a>,
    r#type: ClaimType,
}

/// An attribute of a case changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct CaseAttributeChange<'a> {
    timestamp: Micros,
    case_id: Id<'a>,
    contact_id: Id<'a>,
    attribute_id: Id<'a>,
    r#type: CaseType,
}

/// An attribute of a contact changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct ContactAttributeChange<'a> {
    timestamp: Micros,
    contact_id: Id<'a>,
    company_id: Id<'a>,
    attribute_id: Id<'a>,
    r#type: ContactType,
}

/// An attribute of an activity changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct ActivityAttributeChange<'a> {
    timestamp: Micros,
    case_id: Id<'a>,
    activity_id: Id<'a>,
    attribute_id: Id<'a>,
    r#type: ActivityType,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
enum ClaimType {
    ClaimAttribute,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
enum CaseType {
    CaseAttribute,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
enum ContactType {
    ContactAttribute,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
enum ActivityType {
    ActivityAttribute,
}

pub(super) fn map_claim(data: &Field<'_, '_>, timestamp: Micros) -> Result<Made, Rejection> {
    let [case, claim, attribute] = data.members(["case", "claim", "attribute"])?;
    let (case_id, audience) = case::read(&case)?;
    let payload = ClaimAttributeChange {
        timestamp,
        case_id,
        claim_id: claim.read_member("id")?,
        attribute_id: attribute.read_member("id")?,
        r#type: ClaimType::ClaimAttribute,
    };
    Made::new(&payload, audience)
}

pub(super) fn map_case(data: &Field<'_, '_>, timestamp: Micros) -> Result<Made, Rejection> {
    let [case, contact, attribute] = data.members(["case", "contact", "attribute"])?;
    let (case_id, audience) = case::read(&case)?;
    let payload = CaseAttributeChange {
        timestamp,
        case_id,
        contact_id: contact.read_member("id")?,
        attribute_id: attribute.read_member("id")?,
        r#type: CaseType::CaseAttribute,
    };
    Made::new(&payload, audience)
}

pub(super) fn map_contact(data: &Field<'_, '_>, timestamp: Micros) -> Result<Made, Rejection> {
    let [case, contact, company, attribute] =
        data.members(["case", "contact", "company", "attribute"])?;
    // A contact may belong to no case; one that is named only decides who gets the webhook.
    let audience = case::read_optional(&case)?;
    let payload = ContactAttributeChange {
        timestamp,
        contact_id: contact.read_member("id")?,
        company_id: company.read_member("id")?,
        attribute_id: attribute.read_member("id")?,
        r#type: ContactType::ContactAttribute,
    };
    Made::new(&payload, audience)
}

pub(super) fn map_activity(data: &Field<'_, '_>, timestamp: Micros) -> Result<Made, Rejection> {
    let [case, activity, attribute] = data.members(["case", "activity", "attribute"])?;
    let (case_id, audience) = case::read(&case)?;
    let payload = ActivityAttributeChange {
        timestamp,
        case_id,
        activity_id: activity.read_member("id")?,
        attribute_id: attribute.read_member("id")?,
        r#type: ActivityType::ActivityAttribute,
    };
    Made::new(&payload, audience)
}

/// The data's schema where the attribute is that of the named thing in a case.
pub(super) fn data_schema(owner: &'static str) -> Value {
    schema::required([
        ("case", case::data_schema()),
        (owner, schema::identified()),
        ("attribute", schema::identified()),
    ])
}

pub(super) fn contact_data_schema() -> Value {
    schema::object(
        [
            ("contact", schema::identified()),
            ("company", schema::identified()),
            ("attribute", schema::identified()),
        ],
        [("case", case::optional_data_schema())],
    )
}
