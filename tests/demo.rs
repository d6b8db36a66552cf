//! `hookbridge demo`, as a newcomer runs it, and what it leaves behind: nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    private_node::processes_of,
    support::{broker::Vhost, management},
};

const BROKER: &str = "HOOKBRIDGE__BROKER__URI";

/// Longer than the demo gives itself.
const PATIENCE: Duration = Duration::from_mins(3);

#[test]
fn the_demo_shows_every_webhook_a_retry_and_a_dead_letter_and_leaves_nothing() {
    let mut demo = Demo::start(&[], None);
    let shown = demo.rest();
    let (status, errors) = demo.end();
    assert!(status.success(), "{errors}\n{shown}");

    let rows: Vec<_> = shown
        .lines()
        .filter(|line| line.starts_with("evt-"))
        .collect();
    assert_eq!(rows.len(), 28, "{shown}");
    assert!(
        rows.iter().all(|row| row.contains("  verified  ")),
        "{shown}"
    );
    for (event, webhook) in [
        ("evt-01", "StatusUpdate"),
        ("evt-02", "NewCostProposal"),
        ("evt-03", "NewMessage"),
        ("evt-04", "NewFileUploaded"),
        ("evt-05", "ActivityChange"),
        ("evt-06", "ActivityChange"),
        ("evt-07", "ClaimAttributeChange"),
        ("evt-08", "ContactAttributeChange"),
        ("evt-09", "CaseAttributeChange"),
        ("evt-10", "ActivityAttributeChange"),
        ("evt-11", "ClaimStatusChange"),
    ] {
        let row = format!("{event}  {webhook} ");
        assert!(
            rows.iter().any(|line| line.starts_with(&row)),
            "{row}\n{shown}"
        );
    }
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let ids: Vec<_> = shown
        .lines()
        .filter(|line| line.trim_start().starts_with("attempt "))
        .map(|line| words(line).pop().unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "{shown}");
    assert_eq!(ids[0], ids[1], "{shown}");
    for (name, value) in [
        ("hookbridge-reason", "http_status"),
        ("hookbridge-attempts", "2"),
        ("hookbridge-first-reason", "http_status"),
        ("events published", "11 11 11"),
        ("delivered over HTTP", "5 5 5"),
        ("delivered over AMQP", "20 20 20"),
        ("retried", "2 2 2"),
        ("dead", "1 1 1"),
        ("rejected", "0 0 0"),
        ("lost", "0 0 –"),
    ] {
        let wanted = words(&format!("{name} {value}"));
        assert!(
            shown.lines().any(|line| words(line) == wanted),
            "{name}\n{shown}"
        );
    }
    let wide = shown.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None);
    assert!(
        !shown.contains('\x1b'),
        "no colour where there is no terminal"
    );
}

#[test]
fn the_demo_on_a_given_broker_deletes_what_it_declared() {
    let vhost = Vhost::new("demo");
    let mut demo = Demo::start(&[], Some(&vhost));
    let shown = demo.rest();
    let (status, errors) = demo.end();
    assert!(status.success(), "{errors}\n{shown}");
    assert!(shown.contains("hookbridge-demo-"), "{shown}");
    nothing_in(&vhost);
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_either() {
    let vhost = Vhost::new("demo");
    let mut demo = Demo::start(&[], Some(&vhost));
    demo.until("evt-01");
    demo.signal("INT");
    demo.rest();
    let (status, errors) = demo.end();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("stopped before the demo was over"),
        "{errors}"
    );
    nothing_in(&vhost);
}

#[test]
fn a_kept_demo_shows_what_is_published_until_it_is_stopped() {
    let mut demo = Demo::start(&["--keep"], None);
    let settings = demo.until("  settings ");
    let settings = settings.split_whitespace().last().unwrap();
    hookbridge(&["healthcheck", "--config", settings]);

    let publish = demo.until(" publish --config ");
    demo.until("EVENT ");
    let published = Command::new("sh")
        .args(["-c", &publish])
        .env_remove(BROKER)
        .output()
        .unwrap();
    assert!(published.status.success(), "{published:?}");
    let row = demo.until("NewMessage");
    assert!(
        row.contains("northwind-hub") && row.contains("verified"),
        "{row}"
    );
    demo.signal("INT");
    demo.rest();
    let (status, errors) = demo.end();
    assert!(status.success(), "{errors}");
}

/// Runs another command, which must succeed.
fn hookbridge(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
    let output = command.args(arguments).env_remove(BROKER).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn nothing_in(vhost: &Vhost) {
    let list = |what: &str| {
        let path = format!("{what}/{}?columns=name", vhost.name);
        management::call("GET", &path, &Value::Null).json()
    };
    assert_eq!(list("queues"), serde_json::json!([]));
    let exchanges = list("exchanges");
    let own = |exchange: &&Value| {
        let name = exchange["name"].as_str().unwrap();
        !name.is_empty() && !name.starts_with("amq.")
    };
    let left: Vec<_> = exchanges.as_array().unwrap().iter().filter(own).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A demo under way, with a temporary folder of its own.
struct Demo {
    process: Child,
    out: BufReader<ChildStdout>,
    folder: TempDir,
    began: Instant,
}

impl Demo {
    fn start(arguments: &[&str], broker: Option<&Vhost>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        command
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", folder.path());
        match broker {
            Some(vhost) => command.env(BROKER, vhost.uri()),
            None => command.env_remove(BROKER),
        };
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            out: BufReader::new(process.stdout.take().unwrap()),
            process,
            folder,
            began: Instant::now(),
        }
    }

    /// Reads until a line that holds `text`, and returns it.
    fn until(&mut self, text: &str) -> String {
        let mut before = String::new();
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).unwrap() == 0 {
                let (status, errors) = self.finish();
                panic!("no {text:?}, but {status}: {errors}\n{before}");
            }
            if line.contains(text) {
                return line;
            }
            before += &line;
        }
    }

    /// Reads to the end.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        rest
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    fn finish(&mut self) -> (ExitStatus, String) {
        let mut errors = String::new();
        let mut pipe = self.process.stderr.take().unwrap();
        pipe.read_to_string(&mut errors).unwrap();
        (self.process.wait().unwrap(), errors)
    }

    /// Its end: the status and what it said on standard error. Nothing is left in its folder, and
    /// no process works there.
    fn end(mut self) -> (ExitStatus, String) {
        let ended = self.finish();
        assert!(self.began.elapsed() < PATIENCE);
        assert_eq!(processes_of(self.folder.path()), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}\n{}", ended.1);
        ended
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
