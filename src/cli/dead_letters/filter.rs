//! Which dead letters are meant, as arguments say it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Which dead letters: those for which everything given holds.
#[derive(Debug, clap::Args)]
pub(super) struct FilterArgs {
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

    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty() && self.words().iter().all(|(_, value)| value.is_none())
    }

    /// As parameters of an address.
    pub(super) fn query(&self) -> Vec<(&'static str, Option<String>)> {
        let ids = self.id.iter().map(|id| ("id", Some(id.to_string())));
        self.words().into_iter().chain(ids).collect()
    }

    /// As a body.
    pub(super) fn body(&self) -> Map<String, Value> {
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
