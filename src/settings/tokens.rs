//! `[[admin.token]]`: who may use the admin API, and for what.

use std::path::PathBuf;

use config::ValueKind;
use secrecy::{ExposeSecret, SecretString};

use super::{
    AdminToken, Role, checks,
    mistakes::{Place, Wrong, nearest},
    values::{Row, Values},
};

const KEY: &str = "admin.token";
const KEYS: [&str; 4] = ["name", "value", "value_file", "role"];
/// Tokens that are shorter are warned of.
const SHORT_TOKEN: usize = 16;
/// The longest name: it stands in the log at every change.
const LONGEST_TOKEN_NAME: usize = 64;

/// Reads every token. One with a mistake is left out.
pub(super) fn tokens(values: &mut Values<'_>) -> Vec<AdminToken> {
    let mut tokens: Vec<AdminToken> = Vec::new();
    for row in values.tables(KEY) {
        let Some(token) = token(values, &row) else {
            continue;
        };
        let same = |other: &AdminToken| is_same(other, &token) || other.name == token.name;
        if let Some(other) = tokens.iter().find(|other| same(other)) {
            let (field, what) = if other.name == token.name {
                ("name", format!("is \"{}\" a second time", token.name))
            } else {
                let what = format!("is the same as that of \"{}\"", other.name);
                ("value", what)
            };
            let wrong = Wrong::new(what, "Give each token a name and a value of its own");
            note(values, &row, field, wrong);
            continue;
        }
        tokens.push(token);
    }
    tokens
}

/// These tokens with the values that their files have now.
pub(super) fn current(tokens: &[AdminToken]) -> Result<Vec<AdminToken>, String> {
    let mut now: Vec<AdminToken> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let value = match &token.value_file {
            None => token.value.clone(),
            Some(path) => checks::checked_secret_in(path, bearer).map_err(|wrong| {
                let Wrong { what, remedy } = wrong;
                format!(
                    "`value_file` of the token \"{}\" {what}. {remedy}",
                    token.name
                )
            })?,
        };
        let token = AdminToken {
            value,
            ..token.clone()
        };
        if let Some(other) = now.iter().find(|other| is_same(other, &token)) {
            return Err(format!(
                "the token \"{}\" is the same as that of \"{}\". Give each a value of its own",
                token.name, other.name
            ));
        }
        now.push(token);
    }
    Ok(now)
}

fn is_same(one: &AdminToken, other: &AdminToken) -> bool {
    one.value.expose_secret() == other.value.expose_secret()
}

fn token(values: &mut Values<'_>, row: &Row) -> Option<AdminToken> {
    for (name, _, place) in &row.fields {
        if !KEYS.contains(&name.as_str()) {
            let remedy = match nearest(name, KEYS) {
                Some(near) => format!("Write `{near}`"),
                None => format!("Remove it; there are {}", KEYS.join(", ")),
            };
            let wrong = Wrong::new("is not a setting", remedy);
            values.note_at(KEY, wrong.at(&format!("{KEY}.{name}"), place.clone()));
        }
    }
    let remedy = "Write who holds the token: the log names it at every change";
    let name = required(values, row, "name", remedy, |text| {
        let sound = (1..=LONGEST_TOKEN_NAME).contains(&text.chars().count());
        if !sound || text.chars().any(char::is_control) {
            let what = "is empty, too long, or holds control characters";
            return Err(Wrong::new(what, "Write up to 64 letters"));
        }
        Ok(text.to_owned())
    });
    let remedy = "Write \"operator\", or \"viewer\" for one that may read and not change";
    let role = required(values, row, "role", remedy, |text| match text {
        "operator" => Ok(Role::Operator),
        "viewer" => Ok(Role::Viewer),
        _ => Err(Wrong::new(format!("holds \"{text}\""), remedy)),
    });
    let (value, value_file) = value(values, row).unzip();
    if let Some(value) = &value {
        warn_if_short(values, row, value);
    }
    Some(AdminToken {
        name: name?,
        value: value?,
        value_file: value_file?,
        role: role?,
    })
}

/// `value` or the content of the file that `value_file` names, and that file.
fn value(values: &mut Values<'_>, row: &Row) -> Option<(SecretString, Option<PathBuf>)> {
    match (row.get("value"), row.get("value_file")) {
        (Some(_), Some(_)) => {
            let wrong = Wrong::new("is given beside `value`", "Keep one of the two");
            note(values, row, "value_file", wrong);
            None
        }
        (None, Some(_)) => {
            let directory = values.directory();
            required(values, row, "value_file", "", |path| {
                let path = directory.join(path);
                let value = checks::checked_secret_in(&path, bearer)?;
                Ok((value, Some(path)))
            })
        }
        _ => required(
            values,
            row,
            "value",
            "Write the token, or name a file in `value_file`",
            |text| bearer(text).map(|()| (SecretString::from(text), None)),
        ),
    }
}

/// Whoever guesses a token may do what it may. Nobody is kept from a short one, which may be good
/// enough behind other doors.
fn warn_if_short(values: &mut Values<'_>, row: &Row, value: &SecretString) {
    let length = value.expose_secret().len();
    if length < SHORT_TOKEN {
        let field = if row.get("value").is_some() {
            "value"
        } else {
            "value_file"
        };
        let what = format!("has a length of {length}, and can be guessed");
        let wrong = Wrong::new(what, "Write one such as `openssl rand -hex 32` prints");
        let place = row.get(field).map_or(&row.place, |(_, place)| place);
        values.warn(wrong.at(&format!("{KEY}.{field}"), place.clone()));
    }
}

/// What can stand behind `Bearer` in a header.
fn bearer(text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err(Wrong::new(
            "is empty",
            "Write a token, such as `openssl rand -hex 32` prints",
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Wrong::new(
            "holds a space, or characters that are not visible ASCII",
            "Write letters, digits and signs only, on one line",
        ));
    }
    Ok(())
}

fn required<T>(
    values: &mut Values<'_>,
    row: &Row,
    field: &'static str,
    remedy: &str,
    meaning: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<T> {
    let read = match row.get(field) {
        None => Err(Wrong::new("is missing", remedy)),
        Some((ValueKind::String(text), _)) => meaning(text),
        Some(_) => Err(Wrong::new("is not a text", "Write it in quotes")),
    };
    read.map_err(|wrong| note(values, row, field, wrong)).ok()
}

fn note(values: &mut Values<'_>, row: &Row, field: &str, wrong: Wrong) {
    let place: Place = row
        .get(field)
        .map_or_else(|| row.place.clone(), |(_, place)| place.clone());
    values.note_at(KEY, wrong.at(&format!("{KEY}.{field}"), place));
}
