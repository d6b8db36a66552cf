//! `hookbridge dead-letters`: what failed for good, seen, replayed and removed over a running
//! bridge's API.

use std::io::Write;

use anyhow::bail;
use comfy_table::{Table, presets};
use serde_json::Value;

use super::{
    client::{Client, ServerArgs},
    runtime,
    words::{self, say},
};

mod filter;
mod replays;

use filter::FilterArgs;
use replays::{standing, watch};

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
                replays::count(&begun, json, out)?;
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
        } => replays::list(client, json, out).await?,
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
