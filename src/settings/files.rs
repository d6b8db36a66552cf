//! Whether the files that settings name hold what `run` needs of them. Commands that need less of
//! the settings do not look: a probe must not fail over a certificate that is just being renewed.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::zeroize::Zeroizing;

use super::{Settings, StorePlace, StoreSettings, checks, mistakes::Wrong, values::Values};
use crate::pem;

/// The bytes of a key of the store, and how many keys its file may hold.
const KEY_BYTES: usize = 32;
const MOST_KEYS: usize = 2;

/// Looks into every file that is named, and notes what is wrong.
pub(super) fn look_into(settings: &Settings, values: &mut Values<'_>) {
    let (broker, targets) = (&settings.broker, &settings.targets);
    let admin = settings.admin.tls.as_ref();
    let pairs = [
        (
            ["admin.certificate_file", "admin.key_file"],
            admin.map(|tls| (&tls.certificate_file, &tls.key_file)),
        ),
        (
            ["broker.client_certificate_file", "broker.client_key_file"],
            broker
                .client_certificate_file
                .as_ref()
                .zip(broker.client_key_file.as_ref()),
        ),
        (
            ["targets.client_certificate_file", "targets.client_key_file"],
            targets
                .client_certificate_file
                .as_ref()
                .zip(targets.client_key_file.as_ref()),
        ),
    ];
    for (keys, files) in pairs {
        if let Some(files) = files.filter(|_| keys.iter().all(|key| values.is_sound(key))) {
            pair(values, keys, files);
        }
    }
    // The library for AMQP passes over what it cannot read, the one for HTTP refuses it.
    for (key, file, all) in [
        ("broker.ca_file", &broker.ca_file, false),
        ("targets.ca_file", &targets.ca_file, true),
    ] {
        if let Some(file) = file.as_ref().filter(|_| values.is_sound(key)) {
            authorities(values, key, file, all);
        }
    }
    if let Some(store) = &settings.store {
        secret_keys(values, store);
    }
}

/// A certificate with its chain, and its key.
fn pair(
    values: &mut Values<'_>,
    [certificate, key]: [&'static str; 2],
    (certificate_file, key_file): (&PathBuf, &PathBuf),
) {
    let (chain, private) = (pem::certificates(certificate_file), pem::key(key_file));
    if let Err(why) = &chain {
        let remedy = "Write the certificate and its chain into it, as PEM";
        let what = names(certificate_file, "no certificates that can be shown", why);
        values.wrong(certificate, Wrong::new(what, remedy));
    }
    if let Err(why) = &private {
        let remedy = "Write the certificate's private key into it, as PEM and without a passphrase";
        let what = names(key_file, "no private key that can be used", why);
        values.wrong(key, Wrong::new(what, remedy));
    }
    if let (Ok(chain), Ok(private)) = (chain, private)
        && let Err(why) = pem::fit(chain, private)
    {
        let what = format!(
            "names {}, which cannot be used with {} of `{key}` ({why})",
            certificate_file.display(),
            key_file.display()
        );
        let remedy = "Write the certificate and its chain into the one, and the private key that it was \
                      made for into the other";
        values.wrong(certificate, Wrong::new(what, remedy));
    }
}

/// Certificate authorities: every one of them must be readable, or at least one.
fn authorities(values: &mut Values<'_>, key: &'static str, file: &Path, all: bool) {
    let why = match pem::certificates(file).map(pem::trusted) {
        Ok((1.., 0)) => return,
        Ok((1.., _)) if !all => return,
        Ok((_, unreadable)) => format!("{unreadable} in it cannot be read"),
        Err(why) => why,
    };
    let what = names(file, "no certificate authorities that can be trusted", &why);
    let remedy = "Write the authorities' certificates into it, as PEM";
    values.wrong(key, Wrong::new(what, remedy));
}

fn names(file: &Path, what: &str, why: &str) -> String {
    format!("names {}, which holds {what} ({why})", file.display())
}

/// What secrets in the store are encrypted with.
fn secret_keys(values: &mut Values<'_>, store: &StoreSettings) {
    const KEY: &str = "store.secret_key_file";
    let file = &store.secret_key_file;
    // Made at the first start.
    let to_be_made = matches!(store.place, StorePlace::Sqlite(_)) && !file.exists();
    if to_be_made || !values.is_sound(KEY) {
        return;
    }
    let read = checks::checked_secret_in(file, |text| {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let is_key = |line: &str| {
            let bytes = BASE64_STANDARD.decode(line).map(Zeroizing::new);
            bytes.is_ok_and(|bytes| bytes.len() == KEY_BYTES)
        };
        let count = lines.clone().count();
        if lines.all(is_key) && (1..=MOST_KEYS).contains(&count) {
            return Ok(());
        }
        Err(Wrong::new(
            "is not one key, or two while they are rotated",
            "Write 32 bytes in base64 on a line: the key that the store was used with, or for a new \
             store such as `openssl rand -base64 32` prints",
        ))
    });
    if let Err(wrong) = read {
        values.wrong(KEY, wrong);
    }
}
