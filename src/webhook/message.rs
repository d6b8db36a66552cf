//! `NewMessage`: a message between the parties of a case. Its sender is read, never sent: it
//! decides who must not get the webhook.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Audience, Made, case, schema};
use crate::event::{
    Rejection,
    field::Field,
    values::{Id, Integer, Millis, Text},
};

/// A message was sent between the parties of a case.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct NewMessage<'a> {
    /// The message's own id.
    id: Integer<'a>,
    /// The case's id.
    guid: Id<'a>,
    content: Text<'a>,
    message_type: Text<'a>,
    created_at: Millis,
    updated_at: Millis,
}

pub(super) fn map(data: &Field<'_, '_>) -> Result<Made, Rejection> {
    let [case, message] = data.members(["case", "message"])?;
    let (guid, audience) = case::read(&case)?;
    let [id, sender, content, message_type, created_at, updated_at] = message.members([
        "id",
        "sender",
        "content",
        "messageType",
        "createdAt",
        "updatedAt",
    ])?;
    let payload = NewMessage {
        id: id.read()?,
        guid,
        content: content.read()?,
        message_type: message_type.read()?,
        created_at: created_at.read()?,
        updated_at: updated_at.read()?,
    };
    let Id(sender) = sender.read()?;
    let audience = Audience {
        sender: Some(sender.into_owned()),
        ..audience
    };
    Made::new(&payload, audience)
}

pub(super) fn data_schema() -> Value {
    let message = schema::required([
        ("id", schema::of::<Integer<'_>>()),
        ("sender", schema::of::<Id<'_>>()),
        ("content", schema::of::<Text<'_>>()),
        ("messageType", schema::of::<Text<'_>>()),
        ("createdAt", schema::time()),
        ("updatedAt", schema::time()),
    ]);
    schema::required([("case", case::data_schema()), ("message", message)])
}
