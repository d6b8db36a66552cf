//! One subscriber: who it is, what it may see and what it wants.

use crate::{
    settings::{
        Place, checks,
        mistakes::{Wrong, nearest},
    },
    webhook::WebhookType,
};

use super::{
    super::{Cases, Interest, Subscriber, SubscriberId, Target, WebhookTypes},
    Rules,
    secrets::{self, SIGNING_SECRET, Variable},
    table::{Given, Table},
    target,
};

/// The most attempts of one subscriber that may run at once.
const MOST_IN_FLIGHT: usize = 1000;

const KEYS: [&str; 13] = [
    "id",
    "enabled",
    "party",
    "cases",
    "scope",
    "events",
    "signing_secret",
    "signing_secret_file",
    "signing_secret_env",
    "timeout",
    "max_in_flight",
    "http",
    "amqp",
];

/// What was read of one subscriber.
pub(super) struct Entry {
    /// Its id, if that is sound, and where it stands.
    pub(super) id: Option<(SubscriberId, Place)>,
    /// The subscriber, if nothing that it needs is missing.
    pub(super) subscriber: Option<Subscriber>,
}

/// Reads one subscriber; mistakes are left in the table. `reserved`: it is a case's own hook, and
/// may have such an id.
pub(super) fn read(
    table: &Table<'_>,
    rules: &Rules,
    variable: Variable<'_>,
    reserved: bool,
) -> Entry {
    table.allow_only(&KEYS);
    let id = id(table, reserved);
    let enabled = table.flag("enabled").unwrap_or(true);
    let interest = interest(table);
    let events = events(table);
    let signing_secrets =
        secrets::several(table, &SIGNING_SECRET, variable, secrets::signing_secret);
    let timeout = timeout(table, rules);
    let max_in_flight = table.count("max_in_flight", MOST_IN_FLIGHT);
    let target = target(table, rules, variable);
    let place = table.place("id");
    let origin = table.origin();
    let subscriber = || {
        Some(Subscriber {
            id: id.clone()?,
            enabled,
            interest: interest?,
            events: events?,
            signing_secrets: signing_secrets?,
            timeout: timeout?,
            max_in_flight: max_in_flight.unwrap_or(rules.max_in_flight),
            target: target?,
            origin,
        })
    };
    Entry {
        subscriber: subscriber(),
        id: id.map(|id| (id, place)),
    }
}

fn id(table: &Table<'_>, reserved: bool) -> Option<SubscriberId> {
    let remedy = "Write 1 to 63 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit";
    if !table.has("id") {
        table.wrong("id", Wrong::new("is missing", remedy));
    }
    let Given { value, place } = table.text("id")?;
    let id = SubscriberId::new(value);
    let read = if !id.is_sound() {
        Err(Wrong::new(format!("is {value:?}"), remedy))
    } else if value.starts_with("case-") && !reserved {
        Err(Wrong::new(
            format!("is {value:?}, and ids that begin with `case-` belong to the cases' own hooks"),
            "Write another id",
        ))
    } else {
        Ok(id)
    };
    table.accept("id", read, place)
}

/// Which events it may see: `party`, `cases`, both, or all by `scope`.
fn interest(table: &Table<'_>) -> Option<Interest> {
    let party = table.text("party");
    let cases = table.texts("cases");
    if table.has("scope") {
        return scope(table);
    }
    if !table.has("party") && !table.has("cases") {
        let what = "is missing, and so are `cases` and `scope`: nothing says which events it may \
                    see";
        let remedy = "Write `party`, or `cases`, or both; for everything write scope = \"all\"";
        table.wrong("party", Wrong::new(what, remedy));
        return None;
    }
    if cases.as_ref().is_some_and(Vec::is_empty) {
        let remedy = "List case ids, or remove the key";
        table.wrong("cases", Wrong::new("is an empty list", remedy));
    }
    let party = party.and_then(|given| table.accept("party", opaque(given.value), given.place));
    let accept = |given: Given<&str>| table.accept("cases", opaque(given.value), given.place);
    let cases: Option<Cases> = cases.map(|cases| cases.into_iter().filter_map(accept).collect());
    match (party, cases) {
        (Some(party), cases) => Some(Interest::Party { party, cases }),
        (None, Some(cases)) => Some(Interest::Cases(cases)),
        (None, None) => None,
    }
}

fn scope(table: &Table<'_>) -> Option<Interest> {
    let scope = table.text("scope")?;
    if scope.value != "all" {
        let what = format!("is {:?}", scope.value);
        let remedy = "Write \"all\" for every event, or remove it and write `party` or `cases`";
        table.wrong("scope", Wrong::new(what, remedy));
    }
    for key in ["party", "cases"].into_iter().filter(|key| table.has(key)) {
        let what = format!("stands beside `{key}`, and contradicts it");
        let remedy = format!("Remove `scope`, or remove `{key}` if it is to get everything");
        table.wrong("scope", Wrong::new(what, remedy));
    }
    Some(Interest::All)
}

/// An id from the order hub, as events carry it.
fn opaque(id: &str) -> Result<String, Wrong> {
    if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) {
        return Err(Wrong::new(
            "holds an id that no event can carry",
            "Write 1 to 128 bytes without control characters",
        ));
    }
    Ok(id.to_owned())
}

/// The webhook types it wants.
fn events(table: &Table<'_>) -> Option<WebhookTypes> {
    let remedy = "Write the webhook types wanted, or [\"*\"] for all";
    if !table.has("events") {
        table.wrong("events", Wrong::new("is missing", remedy));
    }
    let names = table.texts("events")?;
    if names.is_empty() {
        table.wrong("events", Wrong::new("is an empty list", remedy));
    }
    let has_party = table.has("party");
    let mut types = WebhookTypes::default();
    for Given { value, place } in &names {
        if *value == "*" {
            if names.len() > 1 {
                let wrong = Wrong::new("holds \"*\" beside others", "Write [\"*\"] alone");
                table.note("events", wrong, place.clone());
            }
            types = WebhookType::ALL.into_iter().collect();
            // Who has no party cannot be told from a message's sender.
            if !has_party {
                types.remove(WebhookType::NewMessage);
            }
            continue;
        }
        let read = match WebhookType::from_name(value) {
            Some(WebhookType::NewMessage) if !has_party => Err(Wrong::new(
                "holds NewMessage, and without `party` the receiver cannot be told from the sender",
                "Write `party`, or take NewMessage out",
            )),
            Some(kind) => Ok(kind),
            None => Err(unknown_type(value)),
        };
        if let Some(kind) = table.accept("events", read, place.clone()) {
            types.insert(kind);
        }
    }
    Some(types)
}

fn unknown_type(name: &str) -> Wrong {
    let names = WebhookType::ALL.map(WebhookType::name);
    let remedy = match nearest(name, names) {
        Some(near) => format!("Write \"{near}\""),
        None => format!("There are {}", names.join(", ")),
    };
    Wrong::new(format!("holds {name:?}, which is no webhook type"), remedy)
}

fn timeout(table: &Table<'_>, rules: &Rules) -> Option<std::time::Duration> {
    if !table.has("timeout") {
        return Some(rules.timeout);
    }
    let Given { value, place } = table.text("timeout")?;
    let read = checks::duration(value).and_then(|timeout| {
        if timeout < rules.shutdown_timeout {
            return Ok(timeout);
        }
        let limit = humantime::format_duration(rules.shutdown_timeout);
        Err(Wrong::new(
            format!("is {value:?}, and `delivery.shutdown_timeout` is {limit}"),
            "Keep it below that: a stop must be able to wait for the last attempt",
        ))
    });
    table.accept("timeout", read, place)
}

/// Exactly one of `[http]` and `[amqp]`.
fn target(table: &Table<'_>, rules: &Rules, variable: Variable<'_>) -> Option<Target> {
    match (table.has("http"), table.has("amqp")) {
        (false, false) => {
            let what = "is missing, and so is `amqp`: nothing says where its webhooks go";
            table.wrong("http", Wrong::new(what, "Write [http] or [amqp]"));
        }
        (true, true) => {
            let what = "stands beside `http`";
            let remedy = "Keep one of the two; two targets are two subscribers";
            table.wrong("amqp", Wrong::new(what, remedy));
        }
        _ => {}
    }
    let http = table.table("http", "http.").and_then(|http| {
        let target = target::http(&http, variable);
        table.absorb(&http);
        target.map(Target::Http)
    });
    let amqp = table.table("amqp", "amqp.").and_then(|amqp| {
        let target = target::amqp(&amqp, rules, variable);
        table.absorb(&amqp);
        target.map(Target::Amqp)
    });
    http.or(amqp)
}
