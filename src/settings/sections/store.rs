//! `[store]`: where it is, and what goes with that.

use std::{net::IpAddr, path::Path};

use secrecy::ExposeSecret;
use url::Url;

use crate::settings::{StorePlace, StoreSettings, checks, mistakes::Wrong, values::Values};

/// What PostgreSQL's `sslmode` may be.
const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// `[store]`. A mistaken URL leaves no store, and a mistake that says so.
pub(super) fn store(values: &mut Values<'_>) -> Option<StoreSettings> {
    let directory = values.directory();
    let url = values.secret("store.url", "store.url_file", |url| {
        store_place(url, &directory).map(drop)
    });
    let place = url.and_then(|url| store_place(url.value.expose_secret(), &directory).ok());
    let retention = values.text("store.dead_letter_retention", |text| match text {
        "forever" => Ok(None),
        _ => checks::duration(text).map(Some).map_err(|wrong| Wrong {
            remedy: "Write a duration such as \"30d\", or \"forever\"".to_owned(),
            ..wrong
        }),
    });
    let key = "store.secret_key_file";
    let secret_key_file = match &place {
        // Several bridges must have the same key, so none of them may make one.
        Some(StorePlace::Postgres(_)) => values.file(key),
        Some(StorePlace::Sqlite(_)) | None => values.path(key),
    };
    let place = place?;
    if secret_key_file.is_none() && values.is_sound(key) {
        let remedy = "Name a file with 32 random bytes in base64, such as \"hookbridge.key\"";
        values.wrong(key, Wrong::new("is empty, and there is a store", remedy));
    }
    Some(StoreSettings {
        place,
        secret_key_file: secret_key_file.unwrap_or_default(),
        dead_letter_retention: retention.flatten(),
    })
}

/// Which database a URL names. What is wrong with it never repeats it: it may hold a password.
fn store_place(url: &str, directory: &Path) -> Result<StorePlace, Wrong> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains(['?', '#']) {
            return Err(Wrong::new(
                "names no file, or more than a file",
                "Write sqlite:// and the path of a file, without parameters",
            ));
        }
        return Ok(StorePlace::Sqlite(directory.join(path)));
    }
    let remedy = "Write sqlite://hookbridge.db, or postgres://user:password@host/database";
    let parsed = Url::parse(url).map_err(|_| Wrong::new("is not a URL", remedy))?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(Wrong::new("is neither sqlite:// nor postgres://", remedy));
    }
    for (name, value) in parsed.query_pairs() {
        let remedy = match &*name {
            "sslmode" | "ssl-mode" if !SSL_MODES.contains(&&*value.to_ascii_lowercase()) => {
                format!("Write one of {}", SSL_MODES.join(", "))
            }
            "port" if value.parse::<u16>().is_err() => "Write a number up to 65535".to_owned(),
            "hostaddr" if value.parse::<IpAddr>().is_err() => "Write an IP address".to_owned(),
            "statement-cache-capacity" if value.parse::<usize>().is_err() => {
                "Write a whole number".to_owned()
            }
            _ => continue,
        };
        let what = format!("has a `{name}` that no connection can be made with");
        return Err(Wrong::new(what, remedy));
    }
    Ok(StorePlace::Postgres(url.into()))
}
