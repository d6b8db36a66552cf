//! The commands: their help, their exit codes, and what they print where.

use std::fs;

use serde_json::Value;

use crate::support::{
    broker::Vhost,
    eventually::SOON,
    http::Receiver,
    program::{EVENT_KEY, Setup, event},
};

const COMMANDS: [&str; 9] = [
    "run",
    "check",
    "topology",
    "events",
    "publish",
    "healthcheck",
    "subscribers",
    "dead-letters",
    "completions",
];

/// Nothing listens there.
const ABSENT: &str = "amqp://guest:se-cret@127.0.0.1:1/%2f";

#[tokio::test]
async fn every_command_has_help_that_says_what_it_does() {
    let setup = Setup::new(ABSENT);
    let help = setup.call(&["--help"]).await;
    assert_eq!(help.code, Some(0));
    assert_eq!(help.err, "");
    assert!(help.out.contains("hookbridge demo"), "{}", help.out);
    assert!(help.out.contains("Exit codes: 0 done"), "{}", help.out);
    for command in COMMANDS {
        let listed = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(command) && words.count() >= 3
        };
        assert!(help.out.lines().any(listed), "{command} in {}", help.out);
        let its = setup.call(&[command, "--help"]).await;
        assert_eq!(its.code, Some(0), "{command}");
        let usage = format!("Usage: hookbridge {command}");
        assert!(its.out.contains(&usage), "{}", its.out);
        // Every option and argument is explained, on its line or on the one after.
        let lines: Vec<_> = its.out.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let option = line.trim_start();
            let is_value = option.starts_with("- ");
            if is_value || !(option.starts_with('-') || option.starts_with('<')) {
                continue;
            }
            let explained = option
                .split_once("  ")
                .is_some_and(|(_, s)| !s.trim().is_empty())
                || lines
                    .get(number + 1)
                    .is_some_and(|next| next.starts_with("          ") && !next.trim().is_empty());
            assert!(explained, "{command}: {line}");
        }
    }
}

#[tokio::test]
async fn the_version_is_the_packages() {
    let setup = Setup::new(ABSENT);
    for arguments in [&["--version"][..], &["-V"], &["run", "--version"]] {
        let version = setup.call(arguments).await;
        assert_eq!(version.code, Some(0));
        let number = version.out.trim().rsplit(' ').next();
        assert_eq!(number, Some(env!("CARGO_PKG_VERSION")), "{}", version.out);
    }
}

#[tokio::test]
async fn wrong_use_exits_with_2_and_a_failure_with_1() {
    let setup = Setup::new(ABSENT);
    for arguments in [
        &[][..],
        &["nonsense"],
        &["run", "--nonsense"],
        &["run", "extra"],
        &["publish"],
        &["events", "schema"],
        &["completions"],
        &["completions", "tcl"],
        &["topology", "--format", "xml"],
        &["topology", "--apply", "--prune", "1s"],
        &["topology", "--prune", "soon"],
        &["healthcheck", "--address", "nowhere"],
    ] {
        let wrong = setup.call(arguments).await;
        assert_eq!(wrong.code, Some(2), "{arguments:?}: {}", wrong.err);
        assert!(wrong.err.contains("--help"), "{}", wrong.err);
        assert_eq!(wrong.out, "");
    }
    for arguments in [
        &["run", "--config", "missing.toml"][..],
        &["check", "--config", "missing.toml"],
        &["topology", "--config", "missing.toml"],
        &["topology", "--apply"],
        &["topology", "--prune", "1s"],
        &["events", "schema", "case.closed"],
        &["publish", "missing.json"],
        &["healthcheck", "--address", "127.0.0.1:1"],
    ] {
        let failed = setup.call(arguments).await;
        assert_eq!(failed.code, Some(1), "{arguments:?}: {}", failed.err);
        // What `check` finds is its output; errors of all others go to standard error.
        let is_check = arguments[0] == "check";
        let (told, other) = if is_check {
            (failed.out, failed.err)
        } else {
            (failed.err, failed.out)
        };
        assert_ne!(told, "", "{arguments:?}");
        assert_eq!(other, "", "{arguments:?}");
        assert!(
            !told.contains("se-cret") && !told.contains("panicked"),
            "{told}"
        );
        if arguments.contains(&"missing.toml") {
            assert!(told.contains("missing.toml"), "{told}");
        }
    }
}

#[tokio::test]
async fn settings_that_are_wrong_stop_the_start_with_every_mistake() {
    let setup = Setup::new(ABSENT);
    setup.set("delivery.retry_dely", "1s");
    setup.set("log.level", "loud");
    let refused = setup.call(&["run"]).await;
    assert_eq!(refused.code, Some(1));
    for words in ["retry_dely", "Write `retry_delay`", "log.level"] {
        assert!(refused.err.contains(words), "{words} in {}", refused.err);
    }
    let setup = Setup::new(ABSENT);
    setup.subscriber("wrong", "id = \"Wrong Id\"\n");
    let refused = setup.call(&["run"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("wrong.toml:1"), "{}", refused.err);
}

#[tokio::test]
async fn completions_are_printed_for_each_shell() {
    let setup = Setup::new(ABSENT);
    for (shell, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef hookbridge"),
        ("fish", "complete -c hookbridge"),
    ] {
        let printed = setup.call(&["completions", shell]).await;
        assert_eq!(printed.code, Some(0), "{}", printed.err);
        assert!(printed.out.contains(mark), "{shell}");
        for command in COMMANDS {
            assert!(printed.out.contains(command), "{command} for {shell}");
        }
    }
}

#[tokio::test]
async fn the_catalogue_is_a_table_json_lines_and_schemas() {
    let setup = Setup::new(ABSENT);
    let table = setup.call(&["events"]).await;
    assert_eq!(table.code, Some(0), "{}", table.err);
    assert_eq!(table.out.lines().count(), 12, "{}", table.out);
    let lines = setup.call(&["events", "--json"]).await;
    assert_eq!(lines.out.lines().count(), 11);
    for line in lines.out.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        for key in ["event", "webhook"] {
            let name = entry[key].as_str().unwrap();
            assert!(table.out.contains(name));
            let schema = setup.call(&["events", "schema", name]).await;
            assert_eq!(schema.code, Some(0), "{}", schema.err);
            let schema: Value = serde_json::from_str(&schema.out).unwrap();
            assert_eq!(schema["title"], name);
        }
    }
    let unknown = setup.call(&["events", "schema", "case.closed"]).await;
    assert!(
        unknown.err.contains("case.status.updated"),
        "{}",
        unknown.err
    );
    assert_eq!(unknown.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_takes_a_file_json_lines_and_standard_input() {
    let vhost = Vhost::new("commands");
    let receiver = Receiver::start().await;
    let setup = Setup::of(&vhost);
    setup.http_subscriber("all", &receiver.url("/"));
    let program = setup.run_ready().await;
    let pretty = serde_json::to_string_pretty(&event("one", &[])).unwrap();
    fs::write(setup.path("one.json"), pretty).unwrap();
    let lines: Vec<_> = (0..300)
        .map(|number| event(&format!("line-{number}"), &[]).to_string())
        .collect();
    fs::write(setup.path("many.jsonl"), lines.join("\n") + "\n\n").unwrap();
    let config = setup.config().display().to_string();

    let said = |count| format!("{count} published to 'domain.events'\n");
    let done = setup.call(&["publish", "one.json"]).await;
    assert_eq!((done.code, done.out), (Some(0), said(1)), "{}", done.err);
    let arguments = ["publish", "--config", &config, "many.jsonl", "one.json"];
    let done = setup.call(&arguments).await;
    assert_eq!((done.code, done.out), (Some(0), said(301)), "{}", done.err);
    let input = format!("{}\n{}", event("stdin-1", &[]), event("stdin-2", &[]));
    let done = setup.call_with(&["publish", "-"], &input).await;
    assert_eq!((done.code, done.out), (Some(0), said(2)), "{}", done.err);
    let arrivals = receiver.wait_for(304, SOON).await;
    assert!(arrivals[0].text().contains("\"one\""));

    // Half a file is not published.
    let broken = format!("{}\n{{\"type\": 7}}\n", event("half", &[]));
    for (input, words) in [
        (broken.as_str(), "standard input, event 2: not an object"),
        ("{\"type\": ", "standard input, event 1: not JSON"),
        ("", "standard input: there is no event in it"),
    ] {
        let failed = setup.call_with(&["publish", "-"], input).await;
        assert_eq!(failed.code, Some(1));
        assert!(failed.err.contains(words), "{}", failed.err);
        assert_eq!(failed.out, "");
    }
    program.stop().await;
    assert_eq!(receiver.arrivals().len(), 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_queue_takes_is_a_failure() {
    let vhost = Vhost::new("commands");
    let client = vhost.connect().await;
    let setup = Setup::of(&vhost);
    let input = event("stray", &[]).to_string();
    let failed = setup.call_with(&["publish", "-"], &input).await;
    assert_eq!(failed.code, Some(1));
    let words = "no exchange 'domain.events'";
    assert!(failed.err.contains(words), "{}", failed.err);

    client
        .declare_exchange("domain.events", lapin::ExchangeKind::Topic)
        .await;
    client.declare_quorum("statuses").await;
    client.bind("statuses", "domain.events", EVENT_KEY).await;
    let mut other = event("other", &[]);
    other["type"] = "case.file.uploaded".into();
    let input = format!("{input}\n{other}\n");
    let failed = setup.call_with(&["publish", "-"], &input).await;
    assert_eq!(failed.code, Some(1));
    assert_eq!(failed.out, "1 published to 'domain.events'\n");
    let mut lines = failed.err.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("standard input, event 2: "), "{first}");
    assert!(first.contains("NO_ROUTE"), "{first}");
    assert_eq!(lines.next(), Some("1 failed"), "{}", failed.err);
    assert_eq!(client.depth("statuses").await, Some(1));
}

#[tokio::test]
async fn an_absent_broker_is_one_error_and_not_one_for_each_event() {
    let setup = Setup::new(ABSENT);
    let input: String = (0..20)
        .map(|number| event(&number.to_string(), &[]).to_string() + "\n")
        .collect();
    for arguments in [
        &["publish", "-"][..],
        &["topology", "--apply"],
        &["topology", "--prune", "1s"],
    ] {
        let failed = setup.call_with(arguments, &input).await;
        assert_eq!(failed.code, Some(1));
        assert_eq!(failed.out, "");
        assert_eq!(failed.err.lines().count(), 1, "{}", failed.err);
        for words in ["home broker", "127.0.0.1:1", "refused", "broker.uri"] {
            assert!(failed.err.contains(words), "{words} in {}", failed.err);
        }
    }
}
