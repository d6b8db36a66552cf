//! One mark in every secret that a bridge of these tests is given: passwords, tokens, keys, and what
//! its subscribers are sent. What a bridge shows is searched for it wherever the tests look or stop
//! one: its log at the loudest, metrics, probes, the API's answers, what commands print, the messages
//! that it publishes, the dead letters that it leaves, and the file of its store. Whoever shows it
//! anywhere in the suite fails the test at work.

use std::{
    fmt::Write as _,
    io,
    path::Path,
    sync::{Mutex, Once, PoisonError},
};

use hookbridge::telemetry::logs;

/// In every planted secret, and in nothing else. Good as it stands in a header, a URL, a password
/// and in base64.
pub const MARK: &str = "zQplanted";
/// A signing secret.
pub const SIGNING: &str = "whsec_zQplantedzQplantedzQplantedzQplanted";
/// A key for secrets in a store: 32 bytes in base64.
pub const STORE_KEY: &str = "zQplantedzQplantedzQplantedzQplantedABCDEFA=\n";

static SHOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// In a subscriber's file: what it is sent is to be nothing but what every subscriber is.
pub const BARE: &str = "# nothing is planted here";

/// The password of a user.
pub fn password(user: &str) -> String {
    format!("{user}-{MARK}")
}

/// A subscriber's file with every secret that it does not give itself: a signing secret, and for an
/// endpoint an authorization, a header and a query.
pub fn in_subscriber(text: &str) -> String {
    if !text.trim_start().starts_with("id =") || text.contains(BARE) {
        return text.to_owned();
    }
    let mut signed = text.contains("signing_secret");
    let own = text.contains("authorization") || text.contains("headers");
    let mut planted = String::new();
    for line in text.lines() {
        if line.starts_with('[') && !signed {
            writeln!(planted, "signing_secret = \"{SIGNING}\"").unwrap();
            signed = true;
        }
        planted += line;
        planted.push('\n');
        if line == "[http]" && !own {
            writeln!(planted, "authorization = \"Bearer {MARK}\"").unwrap();
            writeln!(planted, "headers = {{ x-planted = \"{MARK}\" }}").unwrap();
        }
    }
    planted
}

/// Fails if the mark stands in a text that a bridge has shown.
#[track_caller]
pub fn shows_nothing(what: &str, text: &str) {
    if let Some(around) = around(text) {
        panic!("{what} shows a secret: {around}");
    }
}

/// The same for what lies on a disk.
#[track_caller]
pub fn holds_nothing(file: &Path) {
    // There is none, or it is gone.
    let bytes = std::fs::read(file).unwrap_or_default();
    shows_nothing(
        &file.display().to_string(),
        &String::from_utf8_lossy(&bytes),
    );
}

fn around(text: &str) -> Option<&str> {
    let at = text.find(MARK)?;
    let before = text.floor_char_boundary(at.saturating_sub(300));
    let after = text.ceil_char_boundary((at + 100).min(text.len()));
    Some(&text[before..after])
}

/// Has the log of every bridge in this process written, at its loudest, and searched.
pub fn watch_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let log = tracing_subscriber::fmt()
            .with_env_filter(logs::filter("trace").unwrap())
            .with_ansi(false)
            .with_writer(|| Search)
            .finish();
        tracing::subscriber::set_global_default(log).expect("nobody else writes a log");
    });
}

/// Fails if the log of a bridge in this process has shown the mark so far.
#[track_caller]
pub fn log_shows_nothing() {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(shown.is_empty(), "the log shows a secret: {shown:#?}");
}

/// Lines of the log, which come one at a time and are kept only if they should not be there.
struct Search;

impl io::Write for Search {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(around) = around(&String::from_utf8_lossy(line)) {
            let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
            shown.push(around.to_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
