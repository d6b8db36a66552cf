//! `hookbridge events`: the catalogue of domain events and webhooks, and their JSON Schemas.

use std::io::Write;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::webhook::{EventType, WebhookType, schema};

/// What `hookbridge events` is asked for.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct EventsArgs {
    /// Print JSON Lines instead of a table.
    #[arg(long)]
    pub json: bool,
    /// What else than the catalogue.
    #[command(subcommand)]
    pub command: Option<EventsCommand>,
}

/// What there is besides the catalogue.
#[derive(Debug, clap::Subcommand)]
pub enum EventsCommand {
    /// Print the JSON Schema of a domain event or a webhook.
    Schema {
        /// A domain event type (case.status.updated) or a webhook type (`StatusUpdate`).
        #[arg(value_name = "TYPE")]
        name: String,
    },
}

/// Runs `hookbridge events`, writing to `out`.
pub fn events(args: &EventsArgs, out: &mut impl Write) -> Result<()> {
    match &args.command {
        Some(EventsCommand::Schema { name }) => print_schema(name, out),
        None => print_catalogue(args.json, out),
    }
}

/// Writes the catalogue: a table for people, or one JSON object a line.
pub fn print_catalogue(json: bool, out: &mut impl Write) -> Result<()> {
    let entries = EventType::ALL.map(|event_type| Entry {
        event: event_type.name(),
        webhook: event_type.webhook().name(),
        made_from: event_type.made_from(),
    });
    if json {
        for entry in entries {
            serde_json::to_writer(&mut *out, &entry).context(WRITING)?;
            writeln!(out).context(WRITING)?;
        }
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["EVENT TYPE", "WEBHOOK TYPE", "MADE FROM"])
        .add_rows(entries.map(|entry| [entry.event, entry.webhook, entry.made_from]));
    writeln!(out, "{}", table.trim_fmt()).context(WRITING)
}

/// Writes the JSON Schema of the event type or webhook type with this name.
pub fn print_schema(name: &str, out: &mut impl Write) -> Result<()> {
    let schema = if let Some(event_type) = EventType::from_name(name) {
        schema::event_schema(event_type)
    } else if let Some(kind) = WebhookType::from_name(name) {
        schema::webhook_schema(kind)
    } else {
        bail!(
            "{name:?} is no type in the catalogue: expected an event type ({}) or a webhook type \
             ({})",
            EventType::ALL.map(EventType::name).join(", "),
            WebhookType::ALL.map(WebhookType::name).join(", ")
        );
    };
    writeln!(out, "{schema:#}").context(WRITING)
}

const WRITING: &str = "writing to standard output";

#[derive(Serialize)]
struct Entry {
    event: &'static str,
    webhook: &'static str,
    made_from: &'static str,
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn run(arguments: &[&str]) -> Result<String> {
        let command = EventsArgs::augment_args(clap::Command::new("events"));
        let matches = command.try_get_matches_from([&["events"], arguments].concat())?;
        let mut out = Vec::new();
        events(&EventsArgs::from_arg_matches(&matches)?, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn the_table_has_a_row_for_each_event_type() {
        let table = run(&[]).unwrap();
        let rows: Vec<_> = table.lines().collect();
        assert_eq!(rows.len(), 1 + EventType::ALL.len(), "{table}");
        for (row, event_type) in rows[1..].iter().zip(EventType::ALL) {
            let cells = [
                event_type.name(),
                event_type.webhook().name(),
                event_type.made_from(),
            ];
            let mut rest = *row;
            for cell in cells {
                let at = rest.find(cell).unwrap_or_else(|| panic!("{cell} in {row}"));
                rest = &rest[at + cell.len()..];
            }
        }
    }

    #[test]
    fn json_has_a_line_for_each_event_type() {
        let lines = run(&["--json"]).unwrap();
        assert_eq!(lines.lines().count(), EventType::ALL.len());
        assert_eq!(
            lines.lines().next().unwrap(),
            r#"{"event":"case.status.updated","webhook":"StatusUpdate","made_from":"case.id, status.name, status.key, status.createdAt, status.updatedAt"}"#
        );
    }

    #[test]
    fn every_type_has_a_schema() {
        let events = EventType::ALL.map(EventType::name);
        let webhooks = WebhookType::ALL.map(WebhookType::name);
        for name in events.into_iter().chain(webhooks) {
            let schema: serde_json::Value =
                serde_json::from_str(&run(&["schema", name]).unwrap()).unwrap();
            assert_eq!(schema["title"], name);
        }
    }

    #[test]
    fn an_unknown_type_is_an_error_that_lists_the_known_ones() {
        let error = run(&["schema", "case.closed"]).unwrap_err().to_string();
        let events = EventType::ALL.map(EventType::name);
        let webhooks = WebhookType::ALL.map(WebhookType::name);
        for name in ["case.closed"].into_iter().chain(events).chain(webhooks) {
            assert!(error.contains(name), "{name} in {error}");
        }
    }
}
