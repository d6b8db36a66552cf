//! What is given for a subscriber, whether a file gives it in TOML or a request in JSON: the same
//! rules read both, and each value knows its place.

use serde_json::Value as Json;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::settings::{Place, document::Document};

/// A value and where it stands.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value, as far as subscribers have such.
pub(super) enum Value {
    Text(String),
    Flag(bool),
    /// A number; `None` is one that is not whole, or below zero.
    Number(Option<usize>),
    List(Vec<Node>),
    Table(Vec<Field>),
    /// Something that no key of a subscriber takes.
    Other,
}

/// One key of a table.
pub(super) struct Field {
    pub(super) name: String,
    /// Where the key stands.
    pub(super) place: Place,
    pub(super) node: Node,
}

/// The keys of a table in a file.
pub(super) fn fields_of_toml(document: &Document<'_>, table: &DeTable<'_>) -> Vec<Field> {
    let field = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        Field {
            name: name.to_string(),
            place: document.place(key.span().start),
            node: of_toml(document, value),
        }
    };
    table.iter().map(field).collect()
}

fn of_toml(document: &Document<'_>, value: &Spanned<DeValue<'_>>) -> Node {
    let place = document.place(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Integer(number) => {
            Value::Number(usize::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Float(_) => Value::Number(None),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| of_toml(document, item)).collect())
        }
        DeValue::Table(table) => Value::Table(fields_of_toml(document, table)),
        DeValue::Datetime(_) => Value::Other,
    };
    Node { value, place }
}

/// A value in a request, which `pointer` (RFC 6901) leads to.
pub(super) fn of_json(json: Json, pointer: String) -> Node {
    let value = match json {
        Json::String(text) => Value::Text(text),
        Json::Bool(flag) => Value::Flag(flag),
        Json::Number(number) => {
            Value::Number(number.as_u64().and_then(|n| usize::try_from(n).ok()))
        }
        Json::Array(items) => Value::List(
            items
                .into_iter()
                .enumerate()
                .map(|(index, item)| of_json(item, format!("{pointer}/{index}")))
                .collect(),
        ),
        Json::Object(members) => Value::Table(
            members
                .into_iter()
                .map(|(name, value)| {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    let pointer = format!("{pointer}/{escaped}");
                    Field {
                        place: Place::Request(pointer.clone()),
                        node: of_json(value, pointer),
                        name,
                    }
                })
                .collect(),
        ),
        Json::Null => Value::Other,
    };
    Node {
        value,
        place: Place::Request(pointer),
    }
}
