//! The environment's part of the settings: `HOOKBRIDGE__SECTION__KEY` stands for `section.key`.

use std::collections::HashMap;

use super::{
    keys::{self, KEYS},
    mistakes::{Mistake, Place},
};

/// What the names of all variables begin with that are settings.
pub(super) const PREFIX: &str = "HOOKBRIDGE__";

/// The variables that are settings, by name, and what is wrong with the names of others.
pub(super) struct Variables {
    /// Name and value of each variable that stands for a known key.
    pub(super) known: HashMap<String, String>,
    /// One for each variable that stands for no key.
    pub(super) mistakes: Vec<Mistake>,
}

/// Sorts out the variables that begin with [`PREFIX`]; all others are none of ours.
pub(super) fn variables(environment: impl Iterator<Item = (String, String)>) -> Variables {
    let names: Vec<String> = KEYS.iter().map(|(key, _)| variable(key)).collect();
    let mut variables = Variables {
        known: HashMap::new(),
        mistakes: Vec::new(),
    };
    for (name, value) in environment.filter(|(name, _)| name.starts_with(PREFIX)) {
        if names.contains(&name) {
            variables.known.insert(name, value);
            continue;
        }
        let key = name[PREFIX.len()..].to_lowercase();
        let (section, key) = key.split_once("__").unwrap_or(("", &key));
        let remedy = match keys::meant(section, key) {
            Some(meant) => format!("Set {} instead", variable(&meant)),
            None => "Unset it: config/hookbridge.toml has every key".to_owned(),
        };
        variables.mistakes.push(Mistake {
            what: "this variable stands for no setting".to_owned(),
            remedy,
            place: Place::Variable(name),
        });
    }
    variables
}

/// The variable that stands for `section.key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// A list in a variable: a TOML array of strings, or values with commas between them.
pub(super) fn list(text: &str) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Line {
        value: Vec<String>,
    }

    let text = text.trim();
    if text.starts_with('[') {
        let line: Line = toml::from_str(&format!("value = {text}")).ok()?;
        return Some(line.value);
    }
    let values = text.split(',').map(str::trim);
    Some(
        values
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// A list of tables in a variable: a TOML array of inline tables.
pub(super) fn tables(text: &str) -> Option<Vec<config::Value>> {
    let text = match text.trim() {
        "" => "[]",
        text => text,
    };
    let line = config::Config::builder()
        .add_source(config::File::from_str(
            &format!("value = {text}"),
            config::FileFormat::Toml,
        ))
        .build()
        .ok()?;
    line.get_array("value").ok()
}
