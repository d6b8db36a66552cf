//! The one table of every key and its built-in default. `config/hookbridge.toml` explains them;
//! a test holds that the two agree.

use super::mistakes::{Wrong, nearest};

/// What a key holds when nobody says otherwise, and with it what kind of value it takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Default {
    /// A text, a duration or a path.
    Text(&'static str),
    /// A whole number.
    Number(i64),
    /// `true` or `false`.
    Flag(bool),
    /// A list of texts.
    List(&'static [&'static str]),
    /// A list of tables, empty by default.
    Tables,
}

/// Every key, as `section.key`.
pub(super) const KEYS: &[(&str, Default)] = &[
    (
        "broker.uri",
        Default::Text("amqp://guest:guest@127.0.0.1:5672/%2f"),
    ),
    ("broker.uri_file", Default::Text("")),
    ("broker.ca_file", Default::Text("")),
    ("broker.client_certificate_file", Default::Text("")),
    ("broker.client_key_file", Default::Text("")),
    ("broker.prefix", Default::Text("hookbridge")),
    ("broker.declare", Default::Flag(true)),
    ("source.exchange", Default::Text("domain.events")),
    ("source.bindings", Default::List(&["#"])),
    ("source.unknown_events", Default::Text("ignore")),
    ("source.max_event_bytes", Default::Number(1_048_576)),
    ("source.prefetch", Default::Number(1000)),
    ("delivery.retry_delay", Default::Text("30s")),
    ("delivery.timeout", Default::Text("15s")),
    ("delivery.max_in_flight_per_subscriber", Default::Number(64)),
    ("delivery.shutdown_timeout", Default::Text("30s")),
    ("targets.allow_networks", Default::List(&[])),
    ("targets.ca_file", Default::Text("")),
    ("targets.client_certificate_file", Default::Text("")),
    ("targets.client_key_file", Default::Text("")),
    ("targets.proxy", Default::Text("")),
    ("targets.proxy_file", Default::Text("")),
    ("subscribers.directory", Default::Text("subscribers")),
    ("subscribers.watch", Default::Text("")),
    ("store.url", Default::Text("")),
    ("store.url_file", Default::Text("")),
    ("store.secret_key_file", Default::Text("hookbridge.key")),
    ("store.dead_letter_retention", Default::Text("30d")),
    ("admin.listen", Default::Text("127.0.0.1:8080")),
    ("admin.certificate_file", Default::Text("")),
    ("admin.key_file", Default::Text("")),
    ("admin.token", Default::Tables),
    ("log.format", Default::Text("text")),
    ("log.level", Default::Text("info")),
    ("telemetry.otlp_endpoint", Default::Text("")),
];

/// What `key` holds when nobody says otherwise.
pub(super) fn default(key: &str) -> Option<Default> {
    let (_, default) = KEYS.iter().find(|(known, _)| *known == key)?;
    Some(*default)
}

/// Whether there is a section of this name.
pub(super) fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

/// What is wrong with a section that does not exist.
pub(super) fn unknown_section(name: &str) -> Wrong {
    let remedy = match (section_of(name), nearest(name, sections())) {
        (Some(section), _) => format!("Write it below [{section}]"),
        (None, Some(section)) => format!("Write [{section}]"),
        (None, None) => "Remove it: config/hookbridge.toml has every key".to_owned(),
    };
    Wrong::new("is not a section of the settings", remedy)
}

/// What is wrong with a key that its section does not have.
pub(super) fn unknown_key(section: &str, name: &str) -> Wrong {
    let meant = meant(section, name);
    let remedy = match meant.as_deref().and_then(|key| key.split_once('.')) {
        Some((known, near)) if known == section => format!("Write `{near}`"),
        Some((known, _)) => format!("Write it below [{known}]"),
        None => "Remove it: config/hookbridge.toml has every key".to_owned(),
    };
    Wrong::new("is not a setting", remedy)
}

/// The key that was most likely meant by one that does not exist: one like it in the section, or
/// one just so in another.
pub(super) fn meant(section: &str, name: &str) -> Option<String> {
    let section = sections()
        .find(|known| *known == section)
        .or_else(|| nearest(section, sections()));
    let within = section.and_then(|section| {
        let keys = KEYS.iter().filter_map(|(key, _)| key.split_once('.'));
        let names = keys.filter_map(|(known, name)| (known == section).then_some(name));
        Some(format!("{section}.{}", nearest(name, names)?))
    });
    within.or_else(|| Some(format!("{}.{name}", section_of(name)?)))
}

/// The section that has a key of this name, if any does.
fn section_of(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .filter_map(|(key, _)| key.split_once('.'))
        .find_map(|(section, known)| (known == name).then_some(section))
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .filter_map(|(key, _)| Some(key.split_once('.')?.0))
}
