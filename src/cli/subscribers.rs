//! `hookbridge subscribers`: who gets webhooks, seen and changed over a running bridge's API.

use std::{fs, io::Read, io::Write, path::PathBuf};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use super::{
    client::{Client, ServerArgs},
    runtime,
    words::{self, say},
};

/// What `hookbridge subscribers` is asked for.
#[derive(Debug, clap::Args)]
pub struct SubscribersArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List subscribers
    List {
        /// Only those of this party
        #[arg(long)]
        party: Option<String>,
        /// Only those that name this case
        #[arg(long)]
        case: Option<String>,
        /// Only enabled ones
        #[arg(long, conflicts_with = "disabled")]
        enabled: bool,
        /// Only disabled ones
        #[arg(long)]
        disabled: bool,
    },
    /// Show a subscriber without its secrets, and how its deliveries fare
    Show {
        /// The subscriber's id
        id: String,
    },
    /// Make or replace a subscriber
    Put {
        /// The subscriber's id
        id: String,
        /// A file with the subscriber in JSON, or in TOML if its name ends in .toml; - is JSON on
        /// standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only if it still has this version, which `show` tells
        #[arg(long, value_name = "VERSION")]
        if_match: Option<i64>,
    },
    /// Remove a subscriber
    Delete {
        /// The subscriber's id
        id: String,
        /// Really remove it
        #[arg(long)]
        yes: bool,
    },
    /// Have webhooks made for a subscriber
    Enable {
        /// The subscriber's id
        id: String,
    },
    /// Have no webhooks made for a subscriber
    Disable {
        /// The subscriber's id
        id: String,
    },
    /// Send a documented example to a subscriber now, and tell what became of it
    Test {
        /// The subscriber's id
        id: String,
        /// The webhook type
        #[arg(value_name = "TYPE", default_value = "StatusUpdate")]
        kind: String,
    },
}

/// Does what is asked, and prints it to `out`. Returns whether what was asked for failed: a test
/// that did not arrive.
pub fn run(args: &SubscribersArgs, out: &mut impl Write) -> anyhow::Result<bool> {
    let client = Client::new(&args.server)?;
    runtime()?.block_on(perform(&client, &args.command, args.server.json, out))
}

async fn perform(
    client: &Client,
    command: &Command,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    match command {
        Command::List {
            party,
            case,
            enabled,
            disabled,
        } => {
            let state = (*enabled || *disabled).then(|| enabled.to_string());
            let filter = [
                ("party", party.clone()),
                ("case", case.clone()),
                ("enabled", state),
            ];
            list(client, &filter, json, out).await?;
        }
        Command::Show { id } => {
            let found = client.get(&["v1", "subscribers", id], &[]).await?;
            show(&found, json, out)?;
        }
        Command::Put { id, file, if_match } => {
            put(client, id, file, *if_match, json, out).await?;
        }
        Command::Delete { id, yes } => {
            if !yes {
                bail!("nothing was removed: add --yes to remove the subscriber {id}");
            }
            client.delete(&["v1", "subscribers", id], &[]).await?;
            say(
                out,
                json,
                &json!({"id": id, "removed": true}),
                &format!("{id} is removed"),
            )?;
        }
        Command::Enable { id } => enable(client, id, true, json, out).await?,
        Command::Disable { id } => enable(client, id, false, json, out).await?,
        Command::Test { id, kind } => return test(client, id, kind, json, out).await,
    }
    Ok(false)
}

async fn list(
    client: &Client,
    filter: &[(&str, Option<String>)],
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "ID",
        "STATE",
        "WHO",
        "EVENTS",
        "TARGET",
        "DEFINED IN",
    ]);
    let mut pages = words::Pages::new(&["v1", "subscribers"], filter, None);
    while let Some(items) = pages.next(client).await? {
        for item in &items {
            if json {
                writeln!(out, "{item}")?;
            } else {
                table.add_row([
                    words::text(&item["id"]),
                    state(item),
                    who(item),
                    words::list(&item["events"]),
                    target(item),
                    words::text_or(&item["file"], "the store"),
                ]);
            }
        }
    }
    if !json {
        writeln!(out, "{}", table.trim_fmt())?;
    }
    Ok(())
}

fn state(subscriber: &Value) -> String {
    let enabled = subscriber["enabled"] == true;
    if enabled { "enabled" } else { "disabled" }.to_owned()
}

fn who(subscriber: &Value) -> String {
    let cases = subscriber["cases"].as_array();
    let cases = cases.map(|cases| match cases.as_slice() {
        [one] => format!("case {}", words::text(one)),
        several => format!("{} cases", several.len()),
    });
    let party = subscriber["party"].as_str();
    let party = party.map(|party| format!("party {party}"));
    match (party, cases) {
        (Some(party), Some(cases)) => format!("{party}, {cases}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "everything".to_owned(),
    }
}

fn target(subscriber: &Value) -> String {
    if let Some(url) = subscriber["http"]["url"].as_str() {
        return url.to_owned();
    }
    let amqp = &subscriber["amqp"];
    let place = match amqp["queue"].as_str() {
        Some(queue) => format!("queue {queue}"),
        None => format!("exchange {}", words::text(&amqp["exchange"])),
    };
    match amqp["uri"]["address"].as_str() {
        Some(address) => format!("{place} on {address}"),
        None => place,
    }
}

fn show(subscriber: &Value, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        return Ok(writeln!(out, "{subscriber}")?);
    }
    let status = &subscriber["status"];
    let set = |place: &Value| if place.is_null() { "none" } else { "set" }.to_owned();
    let headers = subscriber["http"]["headers"].as_object();
    let headers = headers.map(|all| all.keys().cloned().collect::<Vec<_>>().join(", "));
    let secrets = subscriber["signing_secret"].as_array().map_or(0, Vec::len);
    let failure = &status["last_failure"];
    let failed = format!(
        "{} {}: {}",
        words::text(&failure["at"]),
        words::text(&failure["reason"]),
        words::text(&failure["detail"])
    );
    let defined = match subscriber["version"].as_i64() {
        Some(version) => format!("the store, version {version}"),
        None => words::text(&subscriber["file"]),
    };
    words::pairs(
        out,
        &[
            ("id", words::text(&subscriber["id"])),
            ("state", state(subscriber)),
            ("gets", who(subscriber)),
            ("events", words::list(&subscriber["events"])),
            ("target", target(subscriber)),
            ("authorization", set(&subscriber["http"]["authorization"])),
            ("headers", headers.unwrap_or_else(|| "none".to_owned())),
            ("signing secrets", secrets.to_string()),
            ("timeout", words::text(&subscriber["timeout"])),
            ("at once", words::text(&subscriber["max_in_flight"])),
            ("defined in", defined),
            (
                "last success",
                words::text_or(&status["last_success"], "none since the start"),
            ),
            (
                "last failure",
                if failure.is_null() {
                    "none since the start".to_owned()
                } else {
                    failed
                },
            ),
            ("failed in a row", words::text(&status["failures_in_a_row"])),
            ("in flight", words::text(&status["in_flight"])),
            (
                "slow",
                if status["slow"] == true { "yes" } else { "no" }.to_owned(),
            ),
        ],
    )
}

async fn put(
    client: &Client,
    id: &str,
    file: &PathBuf,
    if_match: Option<i64>,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut body = read(file)?;
    // What only reads have, so that what `show --json` prints can be put back.
    if let Some(members) = body.as_object_mut() {
        for name in ["status", "origin", "version"] {
            members.remove(name);
        }
    }
    let saved = client
        .put(&["v1", "subscribers", id], &body, if_match)
        .await?;
    let version = words::text(&saved["version"]);
    say(
        out,
        json,
        &saved,
        &format!("{id} is saved, version {version}"),
    )
}

/// A subscriber in a file.
fn read(file: &PathBuf) -> anyhow::Result<Value> {
    let name = file.display();
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
    } else {
        text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    }
    if file
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        // The parser's own words would quote the line, with whatever secret stands there.
        let table: Map<String, Value> = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{name} is not TOML: {}", error.message()))?;
        return Ok(table.into());
    }
    serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        anyhow::anyhow!("{name} is not JSON: line {line}, column {column}")
    })
}

async fn enable(
    client: &Client,
    id: &str,
    enabled: bool,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let body = json!({"enabled": enabled});
    let saved = client.patch(&["v1", "subscribers", id], &body).await?;
    say(out, json, &saved, &format!("{id} is {}", state(&saved)))
}

async fn test(
    client: &Client,
    id: &str,
    kind: &str,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let body = json!({"type": kind});
    let outcome = client
        .post(&["v1", "subscribers", id, "test"], Some(&body))
        .await?;
    let failed = outcome["outcome"] != "delivered";
    let took = words::text(&outcome["milliseconds"]);
    let line = if failed {
        let (reason, detail) = (
            words::text(&outcome["reason"]),
            words::text(&outcome["detail"]),
        );
        format!("failed ({reason}) after {took} ms: {detail}")
    } else {
        format!(
            "delivered in {took} ms, webhook id {}",
            words::text(&outcome["webhook_id"])
        )
    };
    say(out, json, &outcome, &line)?;
    Ok(failed)
}
