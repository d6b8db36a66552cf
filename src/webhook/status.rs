//! `StatusUpdate`: a case got a new status.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Made, case, schema};
use crate::event::{
    Rejection,
    field::Field,
    values::{Id, Millis, Text},
};

/// A case got a new status.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct StatusUpdate<'a> {
    /// The case's id.
    guid: Id<'a>,
    name: Text<'a>,
    key: Text<'a>,
    created_at: Millis,
    updated_at: Millis,
}

pub(super) fn map(data: &Field<'_, '_>) -> Result<Made, Rejection> {
    let [case, status] = data.members(["case", "status"])?;
    let (guid, audience) = case::read(&case)?;
    let [name, key, created_at, updated_at] =
        status.members(["name", "key", "createdAt", "updatedAt"])?;
    let payload = StatusUpdate {
        guid,
        name: name.read()?,
        key: key.read()?,
        created_at: created_at.read()?,
        updated_at: updated_at.read()?,
    };
    Made::new(&payload, audience)
}

pub(super) fn data_schema() -> Value {
    let status = schema::required([
        ("name", schema::of::<Text<'_>>()),
        ("key", schema::of::<Text<'_>>()),
        ("createdAt", schema::time()),
        ("updatedAt", schema::time()),
    ]);
    schema::required([("case", case::data_schema()), ("status", status)])
}
