//! What the service manager that started the bridge is told, in systemd's protocol: ready, reading
//! the subscribers again, stopping, and at intervals that the runtime still lives. Without such a
//! manager all of this does nothing.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often it is looked whether there is something to tell.
const LOOK: Duration = Duration::from_millis(250);
/// How many signs of life fit into the time after which the manager takes the bridge for dead.
const BEATS: u32 = 3;

/// What the manager was told of this bridge.
#[derive(Debug, Default)]
pub struct Systemd {
    ready: AtomicBool,
    unheard: AtomicBool,
}

impl Systemd {
    /// Tells what `reasons` gives until `end`: ready as soon as there is none for the first time,
    /// and in words whenever they change. Signs of life come from here, so from a task of the
    /// runtime that all the bridge's work is done on: where that hangs, they stop.
    pub async fn keep_telling(&self, reasons: impl Fn() -> Vec<String>, end: CancellationToken) {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        let beat = sd_notify::watchdog_enabled().map(|dead| dead / BEATS);
        let look = beat.map_or(LOOK, |beat| beat.min(LOOK));
        let mut last: Option<Instant> = None;
        let mut said = None;
        loop {
            let reasons = reasons();
            if reasons.is_empty() && !self.ready.swap(true, Ordering::Relaxed) {
                self.tell(&[NotifyState::Ready]);
            }
            let status = status(&reasons);
            if said.as_ref() != Some(&status) {
                self.tell(&[NotifyState::Status(&status)]);
                said = Some(status);
            }
            if beat.is_some_and(|beat| last.is_none_or(|last| last.elapsed() >= beat)) {
                self.tell(&[NotifyState::Watchdog]);
                last = Some(Instant::now());
            }
            if timeout(look, end.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// The subscribers are being read again.
    pub fn reloading(&self) {
        // Whoever was not ready before would be by the end of it.
        if self.ready.load(Ordering::Relaxed) {
            match NotifyState::monotonic_usec_now() {
                Ok(now) => self.tell(&[NotifyState::Reloading, now]),
                Err(error) => warn!("no clock to tell the service manager of: {error}"),
            }
        }
    }

    /// They were read, or stay as they were.
    pub fn reloaded(&self) {
        if self.ready.load(Ordering::Relaxed) {
            self.tell(&[NotifyState::Ready]);
        }
    }

    /// The bridge finishes what is in flight, and ends.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(what)
            && !self.unheard.swap(true, Ordering::Relaxed)
        {
            warn!("the service manager cannot be told of the bridge's state: {error}");
        }
    }
}

/// One line, as a status must be. Without a broker half a hundred consumers are missing at once.
fn status(reasons: &[String]) -> String {
    let line = match reasons {
        [] => "ready".to_owned(),
        [reason] => format!("not ready: {reason}"),
        [first, rest @ ..] => format!("not ready: {first}; and {} more", rest.len()),
    };
    line.replace(char::is_control, " ")
}
