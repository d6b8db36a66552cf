//! The case that an event is about: its id is in most payloads, its parties decide who may see
//! them.

use std::collections::HashSet;

use serde_json::Value;

use super::{Audience, schema};
use crate::event::{Rejection, field::Field, values::Id};

/// The id of the case, and who may see the event.
pub(super) fn read<'a>(case: &Field<'a, '_>) -> Result<(Id<'a>, Audience), Rejection> {
    let [id, parties] = case.members(["id", "parties"])?;
    let id: Id<'a> = id.read()?;
    let audience = Audience {
        case: Some(id.0.clone().into_owned()),
        parties: read_parties(&parties)?,
        sender: None,
    };
    Ok((id, audience))
}

/// Who may see an event that need not belong to a case.
pub(super) fn read_optional(case: &Field<'_, '_>) -> Result<Audience, Rejection> {
    let Some(case) = case.optional() else {
        return Ok(Audience::default());
    };
    let [id, parties] = case.members(["id", "parties"])?;
    Ok(Audience {
        case: id.read_optional::<Id<'_>>()?.map(|id| id.0.into_owned()),
        parties: read_parties(&parties)?,
        sender: None,
    })
}

fn read_parties(parties: &Field<'_, '_>) -> Result<Vec<String>, Rejection> {
    let Some(parties) = parties.optional() else {
        return Ok(Vec::new());
    };
    let mut names = parties.read_items(|party| party.read::<Id<'_>>())?;
    // A set, since an event may list more parties than can be compared pair by pair.
    let mut seen = HashSet::with_capacity(names.len());
    names.retain(|name| seen.insert(name.0.clone()));
    Ok(names.into_iter().map(|name| name.0.into_owned()).collect())
}

/// The schema of `data.case`.
pub(super) fn data_schema() -> Value {
    schema::object([("id", schema::of::<Id<'_>>())], [("parties", parties())])
}

/// The schema of `data.case` where neither it nor its id is required.
pub(super) fn optional_data_schema() -> Value {
    let id = schema::nullable(&schema::of::<Id<'_>>());
    schema::nullable(&schema::object([], [("id", id), ("parties", parties())]))
}

fn parties() -> Value {
    schema::nullable(&schema::array(&schema::of::<Id<'_>>()))
}
