//! The wall clock is stepped, of the bridge and of its home broker. The bridge measures by the
//! monotonic clock, so that a step is seen only where it writes down a time. RabbitMQ expires by
//! Erlang's own time, which follows a stepped clock by one second in a hundred: on 3.10.8 retries
//! come when they are due all the same, but that is no promise of ours.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use standardwebhooks::Webhook;
use tokio::task::block_in_place;

use super::{
    cast::{EVERYONE, Who},
    ledger::{Arrival, Ledger},
    process::Process,
    stage::{Options, Stage},
};
use crate::support::http::{self, Receiver};

/// Longer than `delivery.retry_delay`, so that retries end after the step that they began before.
const LEAST: Duration = Duration::from_secs(3);
const MOST: Duration = Duration::from_secs(6);
const HOUR: i64 = 3_600;
/// Where packages put the library for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const SECRET: &str = "whsec_Y2xvY2stc3RlcHBlZC1jbG9jay1zdGVwcGVk";
/// How many seconds apart may be what the bridge wrote and when it arrived.
const CLOSE: i64 = 2;
/// How long an attempt may be on its way, with an endpoint that shares its processor with much else.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// The clock of a program that is started with these [`Self::variables`].
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// None, said aloud, where libfaketime is not installed.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn new(file: PathBuf) -> Option<Self> {
        let roots = ["/usr/lib", "/usr/lib64"].map(Path::new);
        let below = fs::read_dir(roots[0]).into_iter().flatten().flatten();
        let mut places = roots
            .iter()
            .map(|root| root.join(LIBRARY))
            .chain(below.map(|entry| entry.path().join(LIBRARY)));
        let Some(library) = places.find(|place| place.exists()) else {
            eprintln!("skipped: libfaketime is not installed (make faults does so)");
            return None;
        };
        let clock = Self { library, file };
        clock.set(0);
        Some(clock)
    }

    /// Sets it to as many seconds after the real one.
    fn set(&self, offset: i64) {
        // At once, since it is read all the time.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset:+}\n")).unwrap();
        fs::rename(next, &self.file).unwrap();
    }

    fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// The library leaves these behind where a process becomes another one or is killed.
impl Drop for Clock {
    fn drop(&mut self) {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = ["faketime_shm_", "sem.faketime_sem_"]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix));
            if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                // An error means that somebody else was faster.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_clock_that_is_stepped_changes_nothing_but_timestamps() {
    let stage = Stage::new(Options::new("clock-stepped")).await;
    let Some(clock) = Clock::new(stage.setup.path("clock")) else {
        return;
    };
    for (name, value) in clock.variables() {
        stage.setup.set_variable(name, &value);
    }
    let witness = Receiver::start().await;
    let text = format!(
        "id = \"witness\"\nparty = \"{EVERYONE}\"\nevents = [\"*\"]\nsigning_secret = \"{SECRET}\"\n\
         [http]\nurl = {:?}\n",
        witness.url("/")
    );
    stage.setup.subscriber("witness", &text);
    let bridge = stage.begin().await;
    let mut steps = vec![(Instant::now(), 0)];
    for offset in [HOUR, 0, -HOUR, 0, HOUR, -HOUR] {
        stage.carry_on(LEAST, MOST).await;
        let before = latencies(&bridge).await;
        let what = format!("the bridge's clock is set to {offset:+} s");
        let mut fault = stage.fault(what, None).that_repeats_nothing();
        let back = steps.last().is_some_and(|(_, was)| offset < *was);
        clock.set(offset);
        steps.push((Instant::now(), offset));
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
        stage.carry_on(LEAST, MOST).await;
        judge_latencies(&stage, before, latencies(&bridge).await, back);
    }
    judge_witness(&stage, &witness.arrivals(), &steps);
    stage.finish(vec![bridge]).await.must_hold();
}

/// The sum of all latencies and of all durations, in seconds.
async fn latencies(bridge: &Process) -> [f64; 2] {
    let metrics = bridge.program.metrics().await;
    [
        "hookbridge_delivery_latency_seconds_sum",
        "hookbridge_attempt_duration_seconds_sum",
    ]
    .map(|name| {
        let series = metrics
            .iter()
            .filter(|(series, _)| series.starts_with(name));
        series.map(|(_, seconds)| seconds).sum()
    })
}

/// A clock set forward makes older what is on its way; set back, it makes nothing older.
fn judge_latencies(stage: &Stage, before: [f64; 2], after: [f64; 2], back: bool) {
    let [latency, duration] = [0, 1].map(|index| after[index] - before[index]);
    let hour = 3_600.0;
    if latency < 0.0 || back && latency >= hour || !(0.0..hour).contains(&duration) {
        stage.wrong(format!("latencies {before:?} became {after:?}"));
    }
}

/// Whether `webhook-timestamp` was the time of the bridge's clock, and is what is signed.
fn judge_witness(stage: &Stage, arrivals: &[http::Arrival], steps: &[(Instant, i64)]) {
    let secret = Webhook::new(SECRET).unwrap();
    let mut looked_at = vec![0; steps.len()];
    let since = steps[0].0;
    for arrival in arrivals.iter().filter(|arrival| arrival.at >= since) {
        let header = |name| arrival.header(name).unwrap_or_default();
        let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
        let signature = secret.sign(header("webhook-id"), timestamp, arrival.body.as_ref());
        if signature.unwrap() != header("webhook-signature") {
            stage.wrong(format!("{timestamp} is not what is signed"));
        }
        let wall = SystemTime::now() - arrival.at.elapsed();
        let wall = wall.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let age = |offset: i64| i64::try_from(wall).unwrap() + offset - timestamp;
        // It may have been on its way when the clock was set.
        let in_force = |index: usize| {
            let next = steps.get(index + 1);
            steps[index].0 <= arrival.at && next.is_none_or(|next| arrival.at < next.0 + ON_ITS_WAY)
        };
        let fits = |index: &usize| {
            let oldest = CLOSE + ON_ITS_WAY.as_secs().cast_signed();
            in_force(*index) && (-CLOSE..=oldest).contains(&age(steps[*index].1))
        };
        match (0..steps.len()).rev().find(fits) {
            Some(step) => looked_at[step] += 1,
            None => stage.wrong(format!("webhook-timestamp {timestamp} at {wall}")),
        }
    }
    if looked_at.contains(&0) {
        stage.wrong("no timestamp to look at after some step".to_owned());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_broker_whose_clock_is_stepped_loses_nothing() {
    let stage = Stage::new(Options::new("broker-clock-stepped")).await;
    let folder = stage.ground.home.folder();
    let Some(clock) = Clock::new(folder.join("clock")) else {
        return;
    };
    let variables = clock.variables();
    let lines = variables.map(|(name, value)| format!("export {name}={value}\n"));
    // The scripts of RabbitMQ read it at each start.
    fs::write(folder.join("rabbitmq-env.conf"), lines.concat()).unwrap();
    block_in_place(|| stage.ground.home.restart().unwrap());
    let bridge = stage.begin().await;
    // What waits when the clock is set back comes once it has caught up: so it ends ahead.
    for hours in [1, 2, 1, 3, 2, 4] {
        stage.carry_on(LEAST, MOST * 2).await;
        let what = format!("the broker's clock is set to {hours} h ahead");
        let mut fault = stage.fault(what, None).that_repeats_nothing();
        clock.set(hours * HOUR);
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    let ledger = Arc::clone(&stage.ledger);
    let mut report = stage.finish(vec![bridge]).await;
    report.delays_promised = false;
    report.notes.push(waits(&ledger));
    report.must_hold();
}

/// How long retries waited, from the shortest to the longest.
fn waits(ledger: &Ledger) -> String {
    let book = ledger.book();
    let moody = book
        .pairs
        .values()
        .filter(|pair| pair.who == Who::HttpMoody);
    let mut waits: Vec<_> = moody
        .filter_map(|pair| match pair.arrivals[..] {
            [Arrival { attempt: 1, at }, second] => Some(second.at - at),
            _ => None,
        })
        .collect();
    waits.sort_unstable();
    let [first, .., last] = waits[..] else {
        return "no retries".to_owned();
    };
    let median = waits[waits.len() / 2];
    format!("retries after {first:.1?} to {last:.1?}, median {median:.1?}")
}
