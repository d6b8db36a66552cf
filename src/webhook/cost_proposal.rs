//! `NewCostProposal`: a cost proposal was made for a case.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Made, case, schema};
use crate::event::{
    Rejection,
    field::Field,
    values::{DateOrTime, Id, Integer, Millis, Number, Text, TextOrNumber},
};

/// A cost proposal was made.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct NewCostProposal<'a> {
    /// The cost proposal's own id.
    id: Integer<'a>,
    /// The case's id.
    guid: Id<'a>,
    external_id: Option<TextOrNumber<'a>>,
    name: Text<'a>,
    price_net: Number<'a>,
    currency: Text<'a>,
    is_active: bool,
    date_valid_until: Option<DateOrTime<'a>>,
    reaction: Option<Text<'a>>,
    comment: Option<Text<'a>>,
    reaction_date: Option<Millis>,
    reaction_name: Option<Text<'a>>,
    details: Vec<Detail<'a>>,
    created_at: Millis,
    updated_at: Millis,
}

/// One line of a cost proposal.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, inline)]
struct Detail<'a> {
    line: Number<'a>,
    text: Text<'a>,
    r#type: Text<'a>,
    price_net: Number<'a>,
    quantity: Number<'a>,
}

pub(super) fn map(data: &Field<'_, '_>) -> Result<Made, Rejection> {
    let [case, proposal] = data.members(["case", "costProposal"])?;
    let (guid, audience) = case::read(&case)?;
    Made::new(&read(guid, &proposal)?, audience)
}

fn read<'a>(guid: Id<'a>, proposal: &Field<'a, '_>) -> Result<NewCostProposal<'a>, Rejection> {
    let [
        id,
        external_id,
        name,
        price_net,
        currency,
        is_active,
        date_valid_until,
        reaction,
        comment,
        reaction_date,
        reaction_name,
        details,
        created_at,
        updated_at,
    ] = proposal.members([
        "id",
        "externalId",
        "name",
        "priceNet",
        "currency",
        "isActive",
        "dateValidUntil",
        "reaction",
        "comment",
        "reactionDate",
        "reactionName",
        "details",
        "createdAt",
        "updatedAt",
    ])?;
    Ok(NewCostProposal {
        id: id.read()?,
        guid,
        external_id: external_id.read_optional()?,
        name: name.read()?,
        price_net: price_net.read()?,
        currency: currency.read()?,
        is_active: is_active.read()?,
        date_valid_until: date_valid_until.read_optional()?,
        reaction: reaction.read_optional()?,
        comment: comment.read_optional()?,
        reaction_date: reaction_date.read_optional()?,
        reaction_name: reaction_name.read_optional()?,
        details: details.read_items(|detail| read_detail(&detail))?,
        created_at: created_at.read()?,
        updated_at: updated_at.read()?,
    })
}

fn read_detail<'a>(detail: &Field<'a, '_>) -> Result<Detail<'a>, Rejection> {
    let [line, text, r#type, price_net, quantity] =
        detail.members(["line", "text", "type", "priceNet", "quantity"])?;
    Ok(Detail {
        line: line.read()?,
        text: text.read()?,
        r#type: r#type.read()?,
        price_net: price_net.read()?,
        quantity: quantity.read()?,
    })
}

pub(super) fn data_schema() -> Value {
    let text = schema::of::<Text<'_>>;
    let number = schema::of::<Number<'_>>;
    let detail = schema::required([
        ("line", number()),
        ("text", text()),
        ("type", text()),
        ("priceNet", number()),
        ("quantity", number()),
    ]);
    let proposal = schema::object(
        [
            ("id", schema::of::<Integer<'_>>()),
            ("name", text()),
            ("priceNet", number()),
            ("currency", text()),
            ("isActive", schema::of::<bool>()),
            ("details", schema::array(&detail)),
            ("createdAt", schema::time()),
            ("updatedAt", schema::time()),
        ],
        [
            ("externalId", schema::of::<Option<TextOrNumber<'_>>>()),
            ("dateValidUntil", schema::of::<Option<DateOrTime<'_>>>()),
            ("reaction", schema::of::<Option<Text<'_>>>()),
            ("comment", schema::of::<Option<Text<'_>>>()),
            ("reactionDate", schema::nullable(&schema::time())),
            ("reactionName", schema::of::<Option<Text<'_>>>()),
        ],
    );
    schema::required([("case", case::data_schema()), ("costProposal", proposal)])
}
