//! A process of its own, and what it uses of the machine.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a clean end may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Kept for whoever wants to know why one ended.
fn log_of(name: &str) -> PathBuf {
    let folder = crate::target_folder();
    fs::create_dir_all(&folder).expect("a folder for logs");
    folder.join(format!("{name}.log"))
}

/// What the process of this id uses of the machine; zero of one that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage(pub(crate) u32);

impl Usage {
    /// User and system time so far.
    pub(crate) fn processor_time(self) -> Duration {
        let read = || -> Option<u64> {
            let stat = self.read("stat");
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
            Some(ticks(11)? + ticks(12)?)
        };
        // Linux counts these in hundredths of a second.
        Duration::from_millis(read().unwrap_or_default() * 10)
    }

    /// Resident memory now, in MiB.
    pub(crate) fn memory(self) -> f64 {
        self.status("VmRSS:")
    }

    /// Bytes that it made the system write to disks so far.
    pub(crate) fn written(self) -> f64 {
        number(&self.read("io"), "write_bytes:")
    }

    fn status(self, field: &str) -> f64 {
        number(&self.read("status"), field) / 1024.0
    }

    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default()
    }
}

/// The number after the name of a field.
fn number(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it; what it says goes to a file named after it.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let log = fs::File::create(log_of(name)).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            name: name.to_owned(),
            child,
        }
    }

    /// What it says.
    pub(crate) fn log(&self) -> PathBuf {
        log_of(&self.name)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Panics, with what it said last, if it has ended.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a status") {
            let said = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n");
            panic!("{} ended, {status}:\n{last}", self.name);
        }
    }

    /// What it uses.
    pub(crate) fn usage(&self) -> Usage {
        Usage(self.id())
    }

    /// User and system time so far.
    pub(crate) fn processor_time(&self) -> Duration {
        self.usage().processor_time()
    }

    /// Resident memory now, in MiB.
    pub(crate) fn memory(&self) -> f64 {
        self.usage().memory()
    }

    /// The most resident memory that it ever had, in MiB.
    pub(crate) fn peak_memory(&self) -> f64 {
        self.usage().status("VmHWM:")
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        Command::new("kill")
            .args([&format!("-{signal}"), &self.id().to_string()])
            .status()
            .expect("a signal");
    }

    /// Asks the program that this one runs to end, and waits until both have.
    pub(crate) async fn stop_child(mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        let bridge = children.split_whitespace().find(|child| {
            let name = fs::read_to_string(format!("/proc/{child}/comm"));
            name.is_ok_and(|name| name.trim() == "hookbridge")
        });
        Command::new("kill")
            .args(["-TERM", bridge.expect("the bridge below it")])
            .status()
            .expect("a signal");
        while self.child.try_wait().expect("a status").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks it to end, waits until it has, and kills it after 40 seconds.
    pub(crate) async fn stop(mut self) -> Option<ExitStatus> {
        self.signal("TERM");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
