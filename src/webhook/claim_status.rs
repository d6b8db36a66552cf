//! `ClaimStatusChange`: a claim got a new status.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Made, case, schema};
use crate::event::{
    Rejection,
    field::Field,
    values::{Id, Micros, Text},
};

/// A claim got a new status.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct ClaimStatusChange<'a> {
    timestamp: Micros,
    case_id: Id<'a>,
    claim_id: Id<'a>,
    claim_status_id: Id<'a>,
    claim_status_name: Text<'a>,
}

pub(super) fn map(data: &Field<'_, '_>, timestamp: Micros) -> Result<Made, Rejection> {
    let [case, claim, status] = data.members(["case", "claim", "status"])?;
    let (case_id, audience) = case::read(&case)?;
    let claim_id = claim.read_member("id")?;
    let [status_id, status_name] = status.members(["id", "name"])?;
    let payload = ClaimStatusChange {
        timestamp,
        case_id,
        claim_id,
        claim_status_id: status_id.read()?,
        claim_status_name: status_name.read()?,
    };
    Made::new(&payload, audience)
}

pub(super) fn data_schema() -> Value {
    let status = schema::required([
        ("id", schema::of::<Id<'_>>()),
        ("name", schema::of::<Text<'_>>()),
    ]);
    schema::required([
        ("case", case::data_schema()),
        ("claim", schema::identified()),
        ("status", status),
    ])
}
