//! `hookbridge dead-letters`: what failed for good, seen, replayed and removed over a running
//! bridge's API.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    client::{Client, ServerArgs},
    runtime,
    words::{self, say},
};

/// How often a replay is asked how far it is, and how often that is said where no terminal is.
const ASK: Duration = Duration::from_millis(500);
const SAY: Duration = Duration::from_secs(10);

/// What `hookbridge dead-letters` is asked for.
#[derive(Debug, clap::Args)]
pub struct DeadLettersArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters, the latest failure first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many at most
        #[arg(
            long,
            value_name = "COUNT",
            default_value_t = 100,
            conflicts_with = "all"
        )]
        limit: usize,
        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Show a dead letter with its payload
    Show {
        /// The dead letter's id
        id: i64,
    },
    /// Replay dead letters: each starts again at its first attempt, with the same webhook id
    Replay {
        #[command(flatten)]
        filter: FilterArgs,
        /// Replay everything: needed if nothing else says what is meant
        #[arg(long)]
        all: bool,
        /// Only count what would be replayed
        #[arg(long)]
        dry_run: bool,
        /// At most so many a second
        #[arg(long, value_name = "COUNT")]
        rate: Option<u32>,
        /// Do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// List replays, or watch or stop one
    Replays {
        /// Watch this one until it ends
        #[arg(long, value_name = "ID", conflicts_with = "stop")]
        watch: Option<i64>,
        /// Stop this one
        #[arg(long, value_name = "ID")]
        stop: Option<i64>,
    },
    /// Remove dead letters for good
    Purge {
        #[command(flatten)]
        filter: FilterArgs,
        /// Really remove them
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters: those for which everything given holds.
#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Only this one; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<i64>,
    /// Only those from this queue: dead, rejected or lost
    #[arg(long)]
    kind: Option<String>,
    /// Only those for this subscriber
    #[arg(long, value_name = "ID")]
    subscriber: Option<String>,
    /// Only those of this webhook type
    #[arg(long = "type", value_name = "TYPE")]
    webhook: Option<String>,
    /// Only those that failed for this reason
    #[arg(long)]
    reason: Option<String>,
    /// Failed then or later: a time such as 2026-01-22T11:29:38Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Failed before then: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

/// A time, or the time so long ago.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "write a time such as 2026-01-22T11:29:38Z, or how long ago, such as 2h")?;
    Timestamp::now()
        .checked_sub(ago)
        .map_err(|_| "that is too long ago".to_owned())
}

impl FilterArgs {
    fn words(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("kind", self.kind.clone()),
            ("subscriber", self.subscriber.clone()),
            ("type", self.webhook.clone()),
            ("reason", self.reason.clone()),
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
        ]
    }

    fn is_empty(&self) -> bool {
        self.id.is_empty() && self.words().iter().all(|(_, value)| value.is_none())
    }

    /// As parameters of an address.
    fn query(&self) -> Vec<(&'static str, Option<String>)> {
        let ids = self.id.iter().map(|id| ("id", Some(id.to_string())));
        self.words().into_iter().chain(ids).collect()
    }

    /// As a body.
    fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        for (name, value) in self.words() {
            body.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        if !self.id.is_empty() {
            body.insert("ids".to_owned(), json!(self.id));
        }
        body
    }
}

/// Does what is asked, and prints it to `out`, and progress to `err`. Returns whether it failed: a
/// replay that was stopped.
pub fn run(
    args: &DeadLettersArgs,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<bool> {
    let client = Client::new(&args.server)?;
    runtime()?.block_on(perform(&client, &args.command, args.server.json, out, err))
}

async fn perform(
    client: &Client,
    command: &Command,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<bool> {
    match command {
        Command::List { filter, limit, all } => {
            let limit = (!all).then_some(*limit);
            list(client, filter, limit, json, out, err).await?;
        }
        Command::Show { id } => {
            let found = client
                .get(&["v1", "dead-letters", &id.to_string()], &[])
                .await?;
            show(&found, json, out)?;
        }
        Command::Replay {
            filter,
            all,
            dry_run,
            rate,
            detach,
        } => {
            if filter.is_empty() && !all {
                bail!("nothing says what to replay: give a filter, or --all for everything");
            }
            let mut body = filter.body();
            body.extend(rate.map(|rate| ("rate".to_owned(), rate.into())));
            body.insert("dry_run".to_owned(), (*dry_run).into());
            let path = ["v1", "dead-letters", "replay"];
            let begun = client.post(&path, Some(&body.into())).await?;
            if *dry_run {
                count(&begun, json, out)?;
            } else if *detach {
                let id = words::text(&begun["id"]);
                let line = format!("replay {id} of {} has begun", words::text(&begun["total"]));
                say(out, json, &begun, &line)?;
            } else {
                return watch(client, begun, json, out, err).await;
            }
        }
        Command::Replays {
            watch: None,
            stop: None,
        } => replays(client, json, out).await?,
        Command::Replays {
            watch: Some(id), ..
        } => {
            let begun = client.get(&["v1", "replays", &id.to_string()], &[]).await?;
            return watch(client, begun, json, out, err).await;
        }
        Command::Replays { stop: Some(id), .. } => {
            let path = ["v1", "replays", &id.to_string(), "stop"];
            let stopped = client.post(&path, None).await?;
            say(out, json, &stopped, &standing(&stopped))?;
        }
        Command::Purge { filter, yes } => purge(client, filter, *yes, json, out).await?,
    }
    Ok(false)
}

async fn list(
    client: &Client,
    filter: &FilterArgs,
    limit: Option<usize>,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "ID",
        "FAILED AT",
        "KIND",
        "SUBSCRIBER",
        "TYPE",
        "REASON",
        "REPLAYED AT",
    ]);
    let mut pages = words::Pages::new(&["v1", "dead-letters"], &filter.query(), limit);
    while let Some(items) = pages.next(client).await? {
        for item in &items {
            if json {
                writeln!(out, "{item}")?;
                continue;
            }
            let cells = [
                "id",
                "failed_at",
                "kind",
                "subscriber",
                "type",
                "reason",
                "replayed_at",
            ];
            table.add_row(cells.map(|cell| words::text_or(&item[cell], "–")));
        }
    }
    if !json {
        writeln!(out, "{}", table.trim_fmt())?;
        if pages.more() {
            writeln!(err, "there are more: --limit or --all shows them")?;
        }
    }
    Ok(())
}

fn show(letter: &Value, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        return Ok(writeln!(out, "{letter}")?);
    }
    let now = letter["subscriber_now"]
        .as_str()
        .map(|now| match letter["target_now"].as_str() {
            Some(target) => format!("{now}, {target}"),
            None => now.to_owned(),
        });
    let names = [
        "id",
        "kind",
        "webhook_id",
        "type",
        "subscriber",
        "case",
        "reason",
        "detail",
        "attempts",
        "first_reason",
        "first_detail",
        "event_time",
        "received_at",
        "failed_at",
        "archived_at",
        "count",
        "replay",
        "replayed_at",
        "replayed_by",
        "routing_key",
        "traceparent",
    ];
    let mut rows: Vec<(&str, String)> = names.map(|name| (name, words::text(&letter[name]))).into();
    rows.insert(5, ("subscriber now", now.unwrap_or_default()));
    for related in letter["related"].as_array().map_or(&[][..], Vec::as_slice) {
        let line = format!(
            "{} failed at {} ({})",
            words::text(&related["id"]),
            words::text(&related["failed_at"]),
            words::text(&related["reason"])
        );
        rows.push(("same webhook", line));
    }
    words::pairs(out, &rows)?;
    // As it is: a payload that is made pretty is another one.
    match (
        letter["payload"].as_str(),
        letter["payload_base64"].as_str(),
    ) {
        (Some(payload), _) => writeln!(out, "\n{payload}")?,
        (None, Some(payload)) => writeln!(out, "\nin base64: {payload}")?,
        (None, None) => {}
    }
    Ok(())
}

fn count(count: &Value, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
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
async fn watch(
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
fn standing(replay: &Value) -> String {
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

async fn replays(client: &Client, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
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

async fn purge(
    client: &Client,
    filter: &FilterArgs,
    yes: bool,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if filter.is_empty() {
        bail!("nothing says what to remove: give at least one filter");
    }
    if !yes {
        bail!(
            "nothing was removed: `dead-letters list` shows what this filter means; add --yes to remove it"
        );
    }
    let query: Vec<(String, String)> = filter
        .query()
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    let gone = client.delete(&["v1", "dead-letters"], &query).await?;
    say(
        out,
        json,
        &gone,
        &format!("{} removed", words::text(&gone["deleted"])),
    )
}
