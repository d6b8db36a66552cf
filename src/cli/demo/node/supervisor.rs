//! Our end of the line to `supervise.sh`, the shell that owns a node's processes.

use std::{
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::NodeError;

const SCRIPT: &str = include_str!("supervise.sh");

/// Beyond the time that a request itself takes.
const ANSWER_GRACE: Duration = Duration::from_secs(15);

/// Whether the node's process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It runs under this process id.
    Up(u32),
    /// It does not run.
    Down,
}

/// A running supervisor. Dropping it closes the line, which is the order to take everything away.
#[derive(Debug)]
pub(super) struct Supervisor {
    shell: Child,
    line: Option<UnixStream>,
}

impl Supervisor {
    /// Starts the shell with nothing but `environment`; no node runs yet. Without `epmd` it starts
    /// none, and the node uses the one that the environment names.
    pub(super) fn spawn(
        server: &Path,
        epmd: Option<&Path>,
        folder: &Path,
        environment: &[(&'static str, String)],
    ) -> Result<Self, NodeError> {
        // A socket rather than a pipe: it is both directions, and the standard library can give
        // its reads a deadline. It closes on exec, so no other child of ours keeps it open.
        let pair =
            UnixStream::pair().and_then(|(ours, theirs)| Ok((ours, theirs.try_clone()?, theirs)));
        let (line, input, output) =
            pair.map_err(|error| NodeError::io("opening a line to the node's supervisor", error))?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "supervise"])
            .args([folder, epmd.unwrap_or(Path::new("")), server])
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(input)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            .stderr(Stdio::null())
            // Not in our process group: an interrupt from the keyboard is ours to handle.
            .process_group(0)
            .current_dir(folder)
            .spawn()
            .map_err(|error| NodeError::io("starting sh, the node's supervisor", error))?;
        Ok(Self {
            shell,
            line: Some(line),
        })
    }

    /// Starts the node's processes, or does nothing if they run.
    pub(super) fn start(&mut self) -> Result<Status, NodeError> {
        self.ask("start", ANSWER_GRACE)
    }

    /// Whether the node's process runs; takes at least 50 ms, so it can be asked in a loop.
    pub(super) fn status(&mut self) -> Result<Status, NodeError> {
        self.ask("status", ANSWER_GRACE)
    }

    /// Ends the node's process with SIGKILL.
    pub(super) fn kill(&mut self) -> Result<Status, NodeError> {
        self.ask("kill", ANSWER_GRACE)
    }

    /// Ends the node's process with SIGTERM, and after `deadline` with SIGKILL.
    pub(super) fn stop(&mut self, deadline: Duration) -> Result<Status, NodeError> {
        let tenths = deadline.as_millis().div_ceil(100);
        self.ask(&format!("stop {tenths}"), deadline + ANSWER_GRACE)
    }

    /// Closes the line and waits until the supervisor has taken everything away and gone; `false`
    /// if it has not by the deadline.
    pub(super) fn dismiss(&mut self, deadline: Duration) -> bool {
        self.line = None;
        let until = Instant::now() + deadline;
        loop {
            match self.shell.try_wait() {
                Ok(Some(_)) => return true,
                Err(_) => return false,
                Ok(None) if Instant::now() >= until => return false,
                Ok(None) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn ask(&mut self, request: &str, deadline: Duration) -> Result<Status, NodeError> {
        let doing = || format!("asking the node's supervisor to {request}");
        let answer = self
            .exchange(request, deadline)
            .map_err(|error| NodeError::io(doing(), error))?;
        let mut words = answer.splitn(2, ' ');
        match (words.next(), words.next()) {
            (Some("up"), Some(pid)) if pid.parse::<u32>().is_ok() => {
                Ok(pid.parse().map_or(Status::Down, Status::Up))
            }
            (Some("down"), None) => Ok(Status::Down),
            _ => Err(NodeError::io(doing(), io::Error::other(answer))),
        }
    }

    /// One request, one answer. After a failure the line is out of step, so it is given up.
    fn exchange(&mut self, request: &str, deadline: Duration) -> io::Result<String> {
        let mut line = self.line.take().ok_or(io::ErrorKind::NotConnected)?;
        line.set_write_timeout(Some(deadline))?;
        line.write_all(format!("{request}\n").as_bytes())?;
        let until = Instant::now() + deadline;
        let mut answer = Vec::new();
        let mut byte = [0];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            line.set_read_timeout(Some(left))?;
            match line.read(&mut byte)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ if byte == *b"\n" => break,
                _ => answer.extend(byte),
            }
        }
        self.line = Some(line);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
