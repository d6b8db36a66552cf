//! The house rules: which library is named where, what is pure, and who does not know whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source file: its path below `src/`, and its text without comments.
struct Source {
    path: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&root).unwrap().display().to_string();
        let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        Source { path, code }
    };
    files.into_iter().map(source).collect()
}

impl Source {
    /// Whether the path is one of these files, or below one of these folders (`name/`).
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.path == *place || place.ends_with('/') && self.path.starts_with(place)
        })
    }

    /// Whether this is a module of tests, which may use what it needs to look from outside.
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// Whether a path such as `lapin::` is named in it, as a word of its own.
    fn names(&self, path: &str) -> bool {
        self.code.match_indices(path).any(|(at, _)| {
            let before = self.code[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        })
    }

    /// Whether it uses another part of the crate: `crate::part`, in a list or by itself.
    fn uses(&self, part: &str) -> bool {
        let flat: String = self.code.split_whitespace().collect();
        let mut rest = flat.as_str();
        while let Some(at) = rest.find("crate::") {
            rest = &rest[at + "crate::".len()..];
            let list = if rest.starts_with('{') {
                first_words(rest)
            } else {
                vec![word(rest)]
            };
            if list.contains(&part) {
                return true;
            }
        }
        false
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The first word of every item of `{a::…, b::{…}, …}`.
fn first_words(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut words = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(c, '{' | ',') {
            words.push(word(&list[at + 1..]));
        }
    }
    words
}

/// Where each library may be named.
const LIBRARIES: [(&str, &[&str]); 12] = [
    ("lapin::", &["broker/", "deliver/amqp.rs"]),
    ("deadpool", &["broker/"]),
    (
        "reqwest::",
        &[
            "deliver/http.rs",
            "deliver/http/",
            "cli/client.rs",
            "telemetry/traces/collector.rs",
        ],
    ),
    (
        "prometheus::",
        &["telemetry/metrics.rs", "telemetry/metrics/"],
    ),
    (
        "opentelemetry",
        &["telemetry/traces.rs", "telemetry/traces/"],
    ),
    ("axum::", &["admin.rs", "admin/"]),
    ("config::", &["settings/"]),
    ("sqlx::", &["store/"]),
    ("aws_lc_rs::", &["store/keys.rs"]),
    ("x509_parser::", &["certificates.rs"]),
    ("sd_notify::", &["systemd.rs"]),
    ("anyhow::", &["main.rs", "cli.rs", "cli/"]),
];

/// A place that receives and consumes as a subscriber would, not as the bridge does.
const DEMO: &str = "cli/demo/";

#[test]
fn a_library_is_named_only_where_it_belongs() {
    let sources = sources();
    for (library, places) in LIBRARIES {
        let mut found = false;
        for source in sources.iter().filter(|s| s.names(library)) {
            if source.is_in(places) {
                found = true;
            } else if !source.is_test() && !source.is_in(&[DEMO, "cli/demo.rs"]) {
                panic!("{library} is named in {}", source.path);
            }
        }
        assert!(found, "{library} is named nowhere: is its name right?");
    }
}

#[test]
fn pure_files_know_no_runtime_and_no_client() {
    let pure = [
        "event.rs",
        "event/",
        "webhook.rs",
        "webhook/",
        "delivery.rs",
        "delivery/",
        "subscriber/set.rs",
    ];
    let sources = sources();
    for place in pure {
        let there = |source: &&Source| source.is_in(&[place]);
        assert!(sources.iter().any(|s| there(&s)), "{place} is not there");
        for source in sources.iter().filter(there) {
            let unknown = [
                "tokio",
                "tokio_util",
                "lapin",
                "reqwest",
                "std::fs",
                "std::net",
            ];
            for library in unknown {
                let named = source.names(&format!("{library}::"));
                assert!(!named, "{library} is named in {}", source.path);
            }
        }
    }
}

#[test]
fn parts_that_meet_in_the_bridge_do_not_know_each_other() {
    let sources = sources();
    let strangers: [(&str, &[&str]); 6] = [
        ("intake", &["deliver", "admin", "bridge", "cli"]),
        ("deliver", &["intake", "admin", "bridge", "cli"]),
        ("admin", &["intake", "deliver", "bridge", "cli"]),
        (
            "broker",
            &[
                "intake",
                "deliver",
                "admin",
                "bridge",
                "cli",
                "webhook",
                "event",
                "subscriber",
            ],
        ),
        (
            "store",
            &[
                "intake", "deliver", "admin", "bridge", "cli", "broker", "registry", "archive",
                "replay",
            ],
        ),
        (
            "telemetry",
            &["intake", "deliver", "admin", "bridge", "cli", "broker"],
        ),
    ];
    for (part, unknown) in strangers {
        let places = [format!("{part}.rs"), format!("{part}/")];
        let places = places.each_ref().map(String::as_str);
        for source in sources.iter().filter(|source| source.is_in(&places)) {
            for other in unknown {
                assert!(!source.uses(other), "{} uses {other}", source.path);
            }
        }
    }
    let bridge = sources.iter().find(|s| s.path == "bridge.rs").unwrap();
    for part in ["intake", "deliver", "admin", "broker"] {
        assert!(
            bridge.uses(part),
            "the bridge uses {part}: is the rule right?"
        );
    }
}

#[test]
fn every_task_is_known_to_a_tracker_and_every_channel_has_a_bound() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        for call in [
            "tokio::spawn(",
            "task::spawn(",
            "unbounded_channel",
            "thread::spawn(",
        ] {
            let named = source.code.contains(call);
            assert!(!named || source.is_in(&[DEMO]), "{call} in {}", source.path);
        }
    }
}
