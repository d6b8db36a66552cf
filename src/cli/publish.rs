//! `hookbridge publish`: domain events from files to the source exchange, each mandatory and
//! confirmed, with its `type` as routing key.

use std::{
    io::{Read, Write},
    path::PathBuf,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::task::TaskTracker;

use super::{ConfigArgs, environment, no_broker, runtime};
use crate::{
    bridge::home_dialer,
    broker::{
        connection::OPERATION_TIMEOUT, home, message::Message, pool::Source, publisher::Publisher,
    },
    settings::{self, Settings},
};

/// Events published together.
const BATCH: usize = 256;

/// What `hookbridge publish` is asked for.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Files with one JSON object, or several as JSON Lines; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What of an event is needed to publish it: everything else is the bridge's to judge.
#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
}

struct Event {
    /// Where it stands: file and number in it.
    place: String,
    kind: String,
    body: Bytes,
}

/// Publishes the events and says how many to `out`, and which failed to `err`. Returns whether any
/// did.
pub fn run(args: &PublishArgs, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<bool> {
    let settings = settings::load(&args.config.config, environment())
        .map_err(|mistakes| anyhow::anyhow!("the settings are wrong:\n{mistakes}"))?;
    let mut events = Vec::new();
    for file in &args.files {
        events.extend(read(file)?);
    }
    runtime()?.block_on(publish(&settings, events, out, err))
}

/// All events of a file, before any is published: half a file helps nobody.
fn read(file: &PathBuf) -> anyhow::Result<Vec<Event>> {
    let mut text = String::new();
    let name = if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        "standard input".to_owned()
    } else {
        text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        file.display().to_string()
    };
    let mut events = Vec::new();
    for (index, value) in serde_json::Deserializer::from_str(&text)
        .into_iter::<&RawValue>()
        .enumerate()
    {
        let place = format!("{name}, event {}", index + 1);
        let raw = value.with_context(|| format!("{place}: not JSON"))?.get();
        let typed: Typed = serde_json::from_str(raw).with_context(|| {
            format!("{place}: not an object with a string `type`, which is its routing key")
        })?;
        if typed.kind.len() > 255 {
            bail!(
                "{place}: `type` has {} bytes, but a routing key can have 255",
                typed.kind.len()
            );
        }
        events.push(Event {
            place,
            kind: typed.kind,
            body: Bytes::copy_from_slice(raw.as_bytes()),
        });
    }
    if events.is_empty() {
        bail!("{name}: there is no event in it");
    }
    Ok(events)
}

async fn publish(
    settings: &Settings,
    events: Vec<Event>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<bool> {
    let dialer = home_dialer(&settings.broker);
    // A broker that is not there is one mistake, not one for each event.
    let probe = dialer.connect().await.map_err(|error| no_broker(&error))?;
    home::close(&probe).await;
    let tasks = TaskTracker::new();
    let source = Source::home(dialer, 1)?;
    let publisher = Publisher::start(source.clone(), None, &tasks);
    let exchange = &settings.source.exchange;
    let mut confirmed = 0;
    let mut failed = 0;
    for batch in events.chunks(BATCH) {
        let messages = batch
            .iter()
            .map(|event| message(exchange, &event.kind, event.body.clone()))
            .collect();
        let results = publisher.publish(messages, OPERATION_TIMEOUT).await;
        for (event, result) in batch.iter().zip(results) {
            match result {
                Ok(()) => confirmed += 1,
                Err(error) => {
                    failed += 1;
                    writeln!(err, "{}: {error}", event.place)?;
                }
            }
        }
    }
    source.close();
    writeln!(out, "{confirmed} published to '{exchange}'")?;
    if failed > 0 {
        writeln!(err, "{failed} failed")?;
    }
    Ok(failed > 0)
}

/// A domain event as it is published: its `type` is the routing key.
pub(super) fn message(exchange: &str, kind: &str, body: Bytes) -> Message {
    Message {
        exchange: exchange.to_owned(),
        routing_key: kind.to_owned(),
        message_id: uuid::Uuid::new_v4().to_string(),
        content_type: Some("application/cloudevents+json"),
        kind: None,
        app_id: None,
        timestamp: None,
        headers: Vec::new(),
        body,
    }
}
