//! The program as its users run it: the real binary, with a folder of settings and subscribers.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    broker::Vhost,
    eventually::{SOON, eventually},
    planted,
};

/// For a start that has half a hundred queues to declare.
pub const START: Duration = Duration::from_mins(1);

/// A folder of settings and subscribers, and the program with it.
pub struct Setup {
    folder: TempDir,
    settings: Mutex<toml::Table>,
    environment: Mutex<Vec<(String, String)>>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Setup {
    /// Settings for the broker at `uri`: a free admin port, loopback targets allowed, and a retry
    /// after 300 ms.
    pub fn new(uri: &str) -> Self {
        let setup = Self {
            folder: tempfile::tempdir().unwrap(),
            settings: Mutex::default(),
            environment: Mutex::default(),
        };
        fs::create_dir(setup.folder.path().join("subscribers")).unwrap();
        setup.set("broker.uri", uri);
        setup.set("admin.listen", "127.0.0.1:0");
        setup.set("targets.allow_networks", vec!["127.0.0.0/8"]);
        setup.set("delivery.retry_delay", "300ms");
        setup
    }

    /// The settings for a virtual host of the shared node.
    pub fn of(vhost: &Vhost) -> Self {
        Self::new(&vhost.uri())
    }

    /// Sets `section.key`.
    pub fn set(&self, key: &str, value: impl Into<toml::Value>) {
        let (section, key) = key.split_once('.').unwrap();
        let mut settings = self.settings.lock().unwrap();
        let section = settings
            .entry(section)
            .or_insert_with(|| toml::Table::new().into());
        let section = section.as_table_mut().unwrap();
        section.insert(key.to_owned(), value.into());
        fs::write(self.config(), toml::to_string(&*settings).unwrap()).unwrap();
    }

    /// Lets these into the API: name, token and role of each. The tokens are in `<name>.token`.
    pub fn tokens(&self, tokens: &[(&str, &str, &str)]) {
        let table = |(name, token, role): &(&str, &str, &str)| {
            let file = format!("{name}.token");
            fs::write(self.path(&file), format!("{token}\n")).unwrap();
            let pairs = [("name", *name), ("value_file", &file), ("role", role)];
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.into()));
            toml::Value::from(toml::Table::from_iter(pairs))
        };
        self.set("admin.token", tokens.iter().map(table).collect::<Vec<_>>());
    }

    /// Sets a variable in the environment of what is started from now on.
    pub fn set_variable(&self, name: &str, value: &str) {
        let variable = (name.to_owned(), value.to_owned());
        self.environment.lock().unwrap().push(variable);
    }

    /// The settings file.
    pub fn config(&self) -> PathBuf {
        self.path("hookbridge.toml")
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the subscribers' file `<name>.toml`.
    pub fn subscriber(&self, name: &str, text: &str) {
        let file = self.path(&format!("subscribers/{name}.toml"));
        fs::write(file, planted::in_subscriber(text)).unwrap();
    }

    /// Writes the file of a subscriber that gets everything by HTTP; its id is `name`.
    pub fn http_subscriber(&self, name: &str, url: &str) {
        let text = format!(
            "id = \"{name}\"\nscope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{url}\"\n"
        );
        self.subscriber(name, &text);
    }

    /// Removes a subscribers' file.
    pub fn remove_subscriber(&self, name: &str) {
        fs::remove_file(self.path(&format!("subscribers/{name}.toml"))).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOOKBRIDGE") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("HOOKBRIDGE_CONFIG", self.config())
            .envs(self.environment.lock().unwrap().iter().cloned())
            .current_dir(self.folder.path());
        command
    }

    /// Runs a command that ends by itself.
    pub async fn call(&self, arguments: &[&str]) -> Ended {
        self.call_with(arguments, "").await
    }

    /// Runs a command that reads its standard input.
    pub async fn call_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = tokio::process::Command::from(self.command(arguments));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let (_, output) = tokio::join!(
            async move { stdin.write_all(input.as_bytes()).await },
            tokio::time::timeout(START, child.wait_with_output()),
        );
        let output = output
            .unwrap_or_else(|_| panic!("{arguments:?} did not end within {START:?}"))
            .unwrap();
        let text = |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            planted::shows_nothing(&format!("{arguments:?}"), &text);
            text
        };
        Ended {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Starts `hookbridge run`.
    pub fn run(&self) -> Program {
        let mut command = self.command(&["run"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::<Mutex<Vec<Line>>>::default();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for text in lines.map_while(Result::ok) {
                let at = Instant::now();
                written.lock().unwrap().push(Line { at, text });
            }
        });
        Program {
            child,
            log,
            reader: Some(reader),
        }
    }

    /// Starts `hookbridge run` and waits until it is ready.
    pub async fn run_ready(&self) -> Program {
        let program = self.run();
        program.wait_ready().await;
        program
    }
}

/// A line of the log, and when it came.
#[derive(Debug, Clone)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

/// A running bridge. Dropping it kills it.
pub struct Program {
    child: Child,
    log: Arc<Mutex<Vec<Line>>>,
    reader: Option<JoinHandle<()>>,
}

impl Program {
    /// The log so far.
    pub fn log(&self) -> Vec<Line> {
        self.log.lock().unwrap().clone()
    }

    /// The log so far, as one text.
    pub fn log_text(&self) -> String {
        let lines: Vec<_> = self.log().into_iter().map(|line| line.text).collect();
        lines.join("\n")
    }

    /// How many lines of the log hold this.
    pub fn said(&self, words: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.text.contains(words)).count()
    }

    /// Waits until a line of the log holds this, and returns the first.
    pub async fn wait_said(&self, words: &str, deadline: Duration) -> Line {
        let what = format!("'{words}' in the log");
        let ask = async || self.log().into_iter().find(|l| l.text.contains(words));
        self.watch(&what, deadline, ask).await
    }

    /// Waits like [`eventually`]; shows the log if it gives up.
    pub async fn watch<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut ask: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let until = Instant::now() + deadline;
        let answer = eventually(what, deadline + SOON, async || match ask().await {
            Some(answer) => Some(Some(answer)),
            None => (Instant::now() > until).then_some(None),
        });
        let answer = answer.await;
        answer.unwrap_or_else(|| panic!("not within {deadline:?}: {what}\n{}", self.log_text()))
    }

    /// The address of the admin listener, which the log tells.
    pub async fn admin(&self) -> String {
        let line = self.wait_said("probes and metrics are served", SOON).await;
        let (_, rest) = line.text.split_once("127.0.0.1:").unwrap();
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        format!("127.0.0.1:{port}")
    }

    /// Asks the admin listener: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let address = self.admin().await;
        let ask = async {
            let mut line = TcpStream::connect(&address).await?;
            let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
            line.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            line.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(SOON, ask).await.expect("in time");
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log_text()));
        planted::shows_nothing(path, &answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Waits until `/readyz` is content.
    pub async fn wait_ready(&self) {
        let ready = async || (self.get("/readyz").await.0 == 200).then_some(());
        self.watch("the bridge is ready", START, ready).await;
    }

    /// Waits until `/readyz` gives a reason that holds this.
    pub async fn wait_unready(&self, reason: &str, deadline: Duration) {
        let unready = async || {
            let (status, body) = self.get("/readyz").await;
            (status == 503 && body.contains(reason)).then_some(())
        };
        self.watch(&format!("'{reason}' in /readyz"), deadline, unready)
            .await;
    }

    /// Every series of `/metrics`, by name and labels.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// Waits until a series has this value.
    pub async fn wait_metric(&self, series: &str, value: f64) {
        let reached = async || {
            let now = self.metrics().await.get(series).copied().unwrap_or(0.0);
            ((now - value).abs() < 1e-9).then_some(())
        };
        self.watch(&format!("{series} = {value}"), SOON, reached)
            .await;
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "kill -{name}");
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process has ended, and returns its exit code. The log is whole then.
    pub async fn wait_exit(&mut self, deadline: Duration) -> Option<i32> {
        let until = Instant::now() + deadline;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let log = self.log_text();
            assert!(Instant::now() < until, "no exit within {deadline:?}\n{log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.code()
    }

    /// Asks for a stop, and expects a clean one.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let code = self.wait_exit(SOON).await;
        assert_eq!(code, Some(0), "{}", self.log_text());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            planted::shows_nothing("the log", &self.log_text());
        }
    }
}

/// A status update of a case of this id, with its parties.
pub fn event(id: &str, parties: &[&str]) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/tests", "type": "case.status.updated",
        "time": "2026-01-22T11:29:38.258Z",
        "data": {
            "case": {"id": id, "parties": parties},
            "status": {
                "key": "final", "name": "Done", "createdAt": "2026-01-22T11:29:38.258Z",
                "updatedAt": "2026-01-22T11:29:38.258Z",
            },
        },
    })
}

/// The body of [`event`] for nobody in particular.
pub fn event_body(id: &str) -> Vec<u8> {
    event(id, &["fixit"]).to_string().into_bytes()
}

/// The routing key of [`event`].
pub const EVENT_KEY: &str = "case.status.updated";
