//! Secrets of subscribers: given in the file, in a file of their own (`_file`), or in an
//! environment variable (`_env`). No mistake repeats one.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};

use crate::settings::{checks, mistakes::Wrong};

use super::table::{Given, Source, Table};

/// Looks an environment variable up.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The names under which one secret may be given.
pub(super) struct Names {
    pub(super) plain: &'static str,
    pub(super) file: &'static str,
    pub(super) variable: &'static str,
}

pub(super) const SIGNING_SECRET: Names = Names {
    plain: "signing_secret",
    file: "signing_secret_file",
    variable: "signing_secret_env",
};

pub(super) const AUTHORIZATION: Names = Names {
    plain: "authorization",
    file: "authorization_file",
    variable: "authorization_env",
};

pub(super) const URI: Names = Names {
    plain: "uri",
    file: "uri_file",
    variable: "uri_env",
};

/// The one secret given under these names, if `check` passes it.
pub(super) fn one(
    table: &Table<'_>,
    names: &Names,
    variable: Variable<'_>,
    check: impl Fn(&str) -> Result<(), Wrong>,
) -> Option<SecretString> {
    let key = only_name(table, names)?;
    let given = table.text(key)?;
    read(table, names, key, &given, variable, &check)
}

/// The secrets given under these names, one or a list of them.
pub(super) fn several(
    table: &Table<'_>,
    names: &Names,
    variable: Variable<'_>,
    check: impl Fn(&str) -> Result<(), Wrong>,
) -> Option<Vec<SecretString>> {
    let Some(key) = only_name(table, names) else {
        return Some(Vec::new());
    };
    let given = table.text_or_texts(key)?;
    if given.is_empty() {
        table.wrong(
            key,
            Wrong::new("is an empty list", "Write a secret, or remove the key"),
        );
    }
    given
        .iter()
        .map(|given| read(table, names, key, given, variable, &check))
        .collect()
}

/// The one of the names that is used; each further one is a mistake.
fn only_name(table: &Table<'_>, names: &Names) -> Option<&'static str> {
    let mut used = [names.plain, names.file, names.variable]
        .into_iter()
        .filter(|key| table.has(key));
    let first = used.next()?;
    for other in used {
        let what = format!("is given beside `{first}`");
        table.wrong(other, Wrong::new(what, "Keep one of them"));
    }
    Some(first)
}

fn read(
    table: &Table<'_>,
    names: &Names,
    key: &str,
    given: &Given<&str>,
    variable: Variable<'_>,
    check: &impl Fn(&str) -> Result<(), Wrong>,
) -> Option<SecretString> {
    let (secret, source) = if key == names.plain {
        (Ok(SecretString::from(given.value)), String::new())
    } else if let Source::File(file) = table.source() {
        elsewhere(file, names, key, given.value, variable)
    } else {
        let what = "is for subscribers' files: a request gives the secret itself";
        let remedy = format!("Write `{}`", names.plain);
        (Err(Wrong::new(what, remedy)), String::new())
    };
    let checked = secret.and_then(|secret| match check(secret.expose_secret()) {
        Ok(()) => Ok(secret),
        Err(wrong) => Err(Wrong::new(source + &wrong.what, wrong.remedy)),
    });
    table.accept(key, checked, given.place.clone())
}

/// The secret that the file of a subscriber has in another file or in a variable, and how to say so.
fn elsewhere(
    file: &Path,
    names: &Names,
    key: &str,
    given: &str,
    variable: Variable<'_>,
) -> (Result<SecretString, Wrong>, String) {
    if key == names.file {
        let directory = file.parent().unwrap_or(Path::new(""));
        let path = directory.join(given);
        let source = format!("names {}, whose content ", path.display());
        return (checks::secret_in(&path), source);
    }
    let source = format!("names {given}, whose value ");
    (secret_in_variable(given, variable), source)
}

fn secret_in_variable(name: &str, variable: Variable<'_>) -> Result<SecretString, Wrong> {
    // Asking the system for these would panic or find nothing.
    let value = Some(name)
        .filter(|name| !name.is_empty() && !name.contains(['=', '\0']))
        .and_then(variable);
    let Some(value) = value else {
        return Err(Wrong::new(
            format!("names {name}, which is no environment variable that is set"),
            "Set it for the bridge's process",
        ));
    };
    let secret = checks::without_newline(&value);
    if secret.is_empty() {
        return Err(Wrong::new(
            format!("names {name}, which is empty"),
            "Set it to the secret",
        ));
    }
    Ok(SecretString::from(secret))
}

/// A Standard Webhooks secret: `whsec_` and the base64 of 24 to 64 bytes.
pub(super) fn signing_secret(secret: &str) -> Result<(), Wrong> {
    let remedy = "Write whsec_ and the base64 of 24 to 64 random bytes, such as \
                  `openssl rand -base64 32` prints";
    let Some(key) = secret.strip_prefix("whsec_") else {
        return Err(Wrong::new("does not begin with whsec_", remedy));
    };
    let Ok(bytes) = BASE64_STANDARD.decode(key) else {
        return Err(Wrong::new("is not base64 after whsec_", remedy));
    };
    if !(24..=64).contains(&bytes.len()) {
        let what = format!("holds {} bytes", bytes.len());
        return Err(Wrong::new(what, remedy));
    }
    // What signs the webhooks has the last word.
    standardwebhooks::Webhook::new(secret)
        .map(drop)
        .map_err(|_| Wrong::new("is no signing secret", remedy))
}

/// The value of an HTTP header: visible ASCII, and spaces within it.
pub(super) fn header_value(value: &str) -> Result<(), Wrong> {
    if value.is_empty() {
        return Err(Wrong::new("is empty", "Write a value, or remove the key"));
    }
    if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Wrong::new(
            "holds characters that are not visible ASCII",
            "Write ASCII letters, digits and signs only, on one line",
        ));
    }
    if value.trim() != value {
        return Err(Wrong::new(
            "begins or ends with a space, which does not survive the way",
            "Remove the space",
        ));
    }
    Ok(())
}
