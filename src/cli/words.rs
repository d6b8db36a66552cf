//! What the commands that speak the API print: values as texts, tables of two columns, pages one
//! after the other.

use std::io::Write;

use comfy_table::{Table, presets};
use serde_json::Value;

use super::client::Client;

/// How many items are asked for at a time.
const PAGE: usize = 1000;

/// A value as a text: what is absent is nothing.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as a text, or this if it is absent.
pub(super) fn text_or(value: &Value, absent: &str) -> String {
    if value.is_null() {
        return absent.to_owned();
    }
    text(value)
}

/// A list of texts with commas.
pub(super) fn list(value: &Value) -> String {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Prints an object, or a line for people.
pub(super) fn say(
    out: &mut impl Write,
    json: bool,
    object: &Value,
    line: &str,
) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Prints names and values, a line each; those without a value are left out.
pub(super) fn pairs(out: &mut impl Write, pairs: &[(&str, String)]) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([*name, value]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(())
}

/// A list of the API, page by page.
pub(super) struct Pages {
    path: Vec<String>,
    filter: Vec<(String, String)>,
    /// How many more are wanted; all, without.
    left: Option<usize>,
    cursor: Option<String>,
    ended: bool,
}

impl Pages {
    /// At most `limit` items of this list.
    pub(super) fn new(
        path: &[&str],
        filter: &[(&str, Option<String>)],
        limit: Option<usize>,
    ) -> Self {
        let given = filter.iter().filter_map(|(name, value)| {
            let value = value.clone()?;
            Some(((*name).to_owned(), value))
        });
        Self {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            filter: given.collect(),
            left: limit,
            cursor: None,
            ended: false,
        }
    }

    /// Whether there was more than was wanted.
    pub(super) fn more(&self) -> bool {
        self.cursor.is_some()
    }

    /// The next page.
    pub(super) async fn next(&mut self, client: &Client) -> anyhow::Result<Option<Vec<Value>>> {
        if self.ended || self.left == Some(0) {
            return Ok(None);
        }
        let limit = self.left.unwrap_or(PAGE).min(PAGE);
        let mut query = self.filter.clone();
        query.push(("limit".to_owned(), limit.to_string()));
        query.extend(
            self.cursor
                .take()
                .map(|cursor| ("cursor".to_owned(), cursor)),
        );
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let mut body = client.get(&path, &query).await?;
        self.cursor = body["next"].as_str().map(str::to_owned);
        self.ended = self.cursor.is_none();
        let items = match body["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(items.len());
        }
        Ok(Some(items))
    }
}
