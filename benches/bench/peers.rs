//! The consumers for Node and Python: installed with pinned versions from their registries, below
//! `target/`, when they are first wanted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::race::Side;

/// What a language needs here.
struct Language {
    side: Side,
    folder: &'static str,
    program: &'static str,
    consumer: &'static str,
    /// What pins the versions.
    lock: &'static str,
    install: fn(&Path) -> Vec<Command>,
}

const LANGUAGES: [Language; 2] = [
    Language {
        side: Side::Node,
        folder: "node",
        program: "node",
        consumer: "consumer.mjs",
        lock: "package-lock.json",
        install: |folder| {
            let mut install = Command::new("npm");
            install
                .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
                .current_dir(folder);
            vec![install]
        },
    },
    Language {
        side: Side::Python,
        folder: "python",
        program: "python3",
        consumer: "consumer.py",
        lock: "requirements.txt",
        install: |folder| {
            let mut environment = Command::new("python3");
            environment
                .args(["-m", "venv", "environment"])
                .current_dir(folder);
            let mut install = Command::new(folder.join("environment/bin/pip"));
            install
                .args(["install", "--disable-pip-version-check", "--quiet", "-r"])
                .arg("requirements.txt")
                .current_dir(folder);
            vec![environment, install]
        },
    },
];

fn language(side: Side) -> &'static Language {
    let side = match side {
        Side::NodeBodies => Side::Node,
        other => other,
    };
    LANGUAGES
        .iter()
        .find(|language| language.side == side)
        .expect("a peer in another language")
}

fn folder(language: &Language) -> PathBuf {
    crate::target_folder().join("peers").join(language.folder)
}

/// Installs a peer; an error says what is missing.
pub(crate) fn install(side: Side) -> Result<(), String> {
    let language = language(side);
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/peers")
        .join(language.folder);
    let to = folder(language);
    let failed = |what: &str, why: String| format!("{}: {what}: {why}", language.program);
    fs::create_dir_all(&to).map_err(|error| failed("no folder", error.to_string()))?;
    let wanted = fs::read_to_string(from.join(language.lock)).unwrap_or_default();
    let installed = to.join("installed");
    for entry in fs::read_dir(&from).into_iter().flatten().flatten() {
        let copied = fs::copy(entry.path(), to.join(entry.file_name()));
        copied.map_err(|error| failed("cannot be copied", error.to_string()))?;
    }
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("  installing what the {} peer needs", language.program);
    for mut command in (language.install)(&to) {
        let ended = command.output();
        let output = ended.map_err(|error| failed("cannot be run", error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            return Err(failed("cannot be installed", said.trim().to_owned()));
        }
    }
    fs::write(installed, wanted).map_err(|error| failed("no note", error.to_string()))
}

/// How a peer is run, from a queue to the URL or queue in `target`.
pub(crate) fn command(side: Side, uri: &str, from: &str, target: &Value) -> Command {
    let language = language(side);
    let folder = folder(language);
    let program = match side {
        Side::Python => folder.join("environment/bin/python"),
        _ => language.program.into(),
    };
    let webhook = side != Side::NodeBodies;
    let mut job = json!({ "uri": uri, "from": from, "webhook": webhook });
    for (key, value) in target.as_object().into_iter().flatten() {
        job[key] = value.clone();
    }
    let mut command = Command::new(program);
    command
        .arg(folder.join(language.consumer))
        .arg(job.to_string());
    command
}

/// The language and its libraries, with their versions.
pub(crate) fn versions(side: Side) -> Option<String> {
    let language = language(side);
    let said = Command::new(language.program)
        .arg("--version")
        .output()
        .ok()?;
    let version = String::from_utf8_lossy(&said.stdout);
    let version = version
        .trim()
        .trim_start_matches(['v', 'P', 'y', 't', 'h', 'o', 'n', ' ']);
    let lock = fs::read_to_string(folder(language).join(language.lock)).ok()?;
    if side == Side::Node {
        let lock: Value = serde_json::from_str(&lock).ok()?;
        let of = |name: &str| {
            let version = &lock["packages"][format!("node_modules/{name}")]["version"];
            version.as_str().unwrap_or("?").to_owned()
        };
        let (amqplib, undici) = (of("amqplib"), of("undici"));
        return Some(format!(
            "Node {version} (amqplib {amqplib}, undici {undici})"
        ));
    }
    let of = |name: &str| {
        let line = lock.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or("?").trim_start_matches("==").to_owned()
    };
    let (aio_pika, aiohttp) = (of("aio-pika"), of("aiohttp"));
    Some(format!(
        "Python {version} (aio-pika {aio_pika}, aiohttp {aiohttp})"
    ))
}
