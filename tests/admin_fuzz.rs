//! The API under schemathesis, which makes up requests from the description: nothing that it sends
//! is answered with a 5xx, or with anything that the description does not say.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use crate::support::{
    api::{OPERATOR, TOKENS},
    bridge::{Place, Setup, in_both},
    broker::Vhost,
    http::Receiver,
};

/// The version that the test was written with.
const PACKAGE: &str = "schemathesis==4.32.5";
const RUN: Duration = Duration::from_mins(10);

/// Where the program is, below `target/`; made there from the package index if it is not. The error
/// says why it cannot be had.
fn schemathesis() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schemathesis");
    let program = folder.join("bin/schemathesis");
    let works = |program: &Path| {
        let asked = Command::new(program).arg("--version").output();
        asked.is_ok_and(|asked| asked.status.success())
    };
    if works(&program) {
        return Ok(program);
    }
    let run = |command: &mut Command| {
        let ended = command.stdin(Stdio::null()).output();
        match ended {
            Ok(ended) if ended.status.success() => Ok(()),
            Ok(ended) => {
                let said = String::from_utf8_lossy(&ended.stderr);
                let last = said.lines().last().unwrap_or("no word").to_owned();
                Err(format!("{command:?}: {last}"))
            }
            Err(error) => Err(format!("{command:?}: {error}")),
        }
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let install = ["install", "--quiet", "--disable-pip-version-check", PACKAGE];
    run(Command::new(folder.join("bin/pip")).args(install))?;
    if works(&program) {
        Ok(program)
    } else {
        Err(format!("{} does not run", program.display()))
    }
}

in_both! {
    made_up_requests_are_answered_as_the_description_says,
}

async fn made_up_requests_are_answered_as_the_description_says(place: Place) {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = tokio::task::spawn_blocking(|| PROGRAM.get_or_init(schemathesis));
    let program = match found.await.unwrap() {
        Ok(program) => program,
        Err(why) => {
            eprintln!("skipped: schemathesis cannot be had: {why}");
            return;
        }
    };
    let vhost = Vhost::new("fuzz");
    let receiver = Receiver::start().await;
    let setup = Setup::new(&vhost).settings(TOKENS).store_in(place).await;
    let bridge = setup.start().await;
    let body = serde_json::json!({
        "scope": "all", "events": ["*"], "http": {"url": receiver.url("/")},
    });
    bridge
        .api()
        .put("/v1/subscribers/one", body)
        .await
        .expect(201);
    // What is made up is the same in both; the second time is for what the database makes of it.
    let examples = match place {
        Place::Sqlite => "25",
        Place::Postgres => "10",
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = tokio::process::Command::new(program);
    command
        .args(["run", "--url"])
        .arg(format!("http://{}", bridge.admin()))
        .arg(format!("http://{}/openapi.json", bridge.admin()))
        .args(["--header", &format!("authorization: Bearer {OPERATOR}")])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_headers_conformance,response_schema_conformance",
        ])
        .args(["--phases", "examples,coverage,fuzzing,stateful"])
        .args(["--max-examples", examples, "--generation-deterministic"])
        .args([
            "--rate-limit",
            "150/s",
            "--continue-on-failure",
            "--no-color",
        ])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(File::create(&log).unwrap())
        .stderr(File::create(folder.path().join("errors")).unwrap())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(RUN, command.status()).await;
    let said = std::fs::read_to_string(&log).unwrap();
    let errors = std::fs::read_to_string(folder.path().join("errors")).unwrap();
    let ended = ended.unwrap_or_else(|_| panic!("no end within {RUN:?}\n{said}"));
    assert!(ended.unwrap().success(), "{said}\n{errors}");
    bridge.stop().await;
}
