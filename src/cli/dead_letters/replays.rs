//! Replays: what one would do, how far one is, and all of them.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::{
    client::Client,
    words::{self, say},
};

/// How often a replay is asked how far it is, and how often that is said where no terminal is.
const ASK: Duration = Duration::from_millis(500);
const SAY: Duration = Duration::from_secs(10);

/// Says what a replay would do.
pub(super) fn count(count: &Value, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let total = count["total"].as_u64().unwrap_or(0);
    let line = format!(
        "{} would be replayed{}",
        total.saturating_sub(skipped(count)),
        why_skipped(count)
    );
    say(out, json, count, &line)
}

fn skipped(replay: &Value) -> u64 {
    let skipped = &replay["skipped"];
    let counts = ["gone", "disabled", "unusable"];
    counts.iter().filter_map(|why| skipped[*why].as_u64()).sum()
}

/// `, 3 are not: 2 subscriber removed, 1 subscriber disabled`
fn why_skipped(replay: &Value) -> String {
    let whys = [
        ("gone", "subscriber removed"),
        ("disabled", "subscriber disabled"),
        ("unusable", "unusable"),
    ];
    let parts: Vec<String> = whys
        .iter()
        .filter_map(|(why, words)| {
            let count = replay["skipped"][*why]
                .as_u64()
                .filter(|count| *count > 0)?;
            Some(format!("{count} {words}"))
        })
        .collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(", {} not: {}", skipped(replay), parts.join(", "))
}

/// Waits for the end of a replay, and says how far it is. Returns whether it did not come to it.
pub(super) async fn watch(
    client: &Client,
    mut replay: Value,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<bool> {
    let id = words::text(&replay["id"]);
    let on_terminal = io::stderr().is_terminal();
    let mut said = None::<Instant>;
    while replay["state"] == "running" {
        if json {
            writeln!(out, "{replay}")?;
            out.flush()?;
        } else if on_terminal {
            write!(err, "\r\x1b[K{}", standing(&replay))?;
            err.flush()?;
        } else if said.is_none_or(|said| said.elapsed() >= SAY) {
            writeln!(err, "{}", standing(&replay))?;
            said = Some(Instant::now());
        }
        tokio::select! {
            () = tokio::time::sleep(ASK) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot listen for signals")?;
                bail!(
                    "replay {id} goes on in the bridge: hookbridge dead-letters replays --watch {id}, or --stop {id}"
                );
            }
        }
        replay = client.get(&["v1", "replays", &id], &[]).await?;
    }
    if on_terminal && !json {
        write!(err, "\r\x1b[K")?;
    }
    say(out, json, &replay, &standing(&replay))?;
    Ok(replay["state"] != "done")
}

/// How a replay stands, in one line.
pub(super) fn standing(replay: &Value) -> String {
    let trouble = match replay["trouble"].as_str() {
        Some(trouble) => format!("; it does not go on: {trouble}"),
        None => String::new(),
    };
    format!(
        "replay {} {}: {} of {} replayed{}{trouble}",
        words::text(&replay["id"]),
        words::text(&replay["state"]),
        words::text(&replay["replayed"]),
        words::text(&replay["total"]),
        why_skipped(replay)
    )
}

/// Lists all of them.
pub(super) async fn list(client: &Client, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "ID", "STATE", "BEGAN AT", "BY", "TOTAL", "REPLAYED", "SKIPPED", "FILTER",
    ]);
    let mut pages = words::Pages::new(&["v1", "replays"], &[], None);
    while let Some(items) = pages.next(client).await? {
        for item in &items {
            if json {
                writeln!(out, "{item}")?;
                continue;
            }
            table.add_row([
                words::text(&item["id"]),
                words::text(&item["state"]),
                words::text(&item["began_at"]),
                words::text(&item["by"]),
                words::text(&item["total"]),
                words::text(&item["replayed"]),
                skipped(item).to_string(),
                words::text(&item["filter"]),
            ]);
        }
    }
    if !json {
        writeln!(out, "{}", table.trim_fmt())?;
    }
    Ok(())
}
