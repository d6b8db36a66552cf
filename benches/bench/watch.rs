//! How fast deliveries are made: whoever makes them finds the events waiting, and is measured between
//! a tenth and nine tenths of them, so that neither a start nor an end counts.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    bridge::Bridge,
    ground::Ground,
    load::{Heap, SOURCE, heap_of},
    process::Process,
    receiver::Arrivals,
};

/// Whoever takes longer is broken.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often arrivals are counted.
const LOOK: Duration = Duration::from_millis(5);

/// What one round measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Round {
    /// Deliveries a second.
    pub(crate) per_second: f64,
    /// Processor time of the side's own process for each delivery, in microseconds.
    pub(crate) micros_each: f64,
    /// The most memory that it had, in MiB.
    pub(crate) memory: f64,
}

/// Where what has been done is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count<'a> {
    /// What the receiver took.
    Arrivals(&'a Arrivals),
    /// What lies in these queues.
    Filled(&'a [String]),
    /// What the process itself says, in the last line of its log.
    Told(&'a Path),
}

impl Count<'_> {
    async fn read(self, ground: &Ground) -> u64 {
        match self {
            Self::Arrivals(arrivals) => arrivals.count(),
            Self::Filled(queues) => ground.ready(queues).await,
            Self::Told(log) => {
                let said = fs::read_to_string(log).unwrap_or_default();
                // What comes after the last end of a line may be half a number.
                let mut lines = said.rsplit('\n').skip(1);
                lines
                    .next()
                    .and_then(|line| line.parse().ok())
                    .unwrap_or_default()
            }
        }
    }
}

/// Watches until `deliveries` are done, by these processes.
pub(crate) async fn watch(
    ground: &Ground,
    processes: &mut [&mut Process],
    count: Count<'_>,
    deliveries: u64,
) -> Round {
    let (low, high) = (deliveries / 10, deliveries * 9 / 10);
    let began = Instant::now();
    let (mut at_low, mut at_high) = (None, None);
    loop {
        let done = count.read(ground).await;
        let mark = || Mark {
            at: Instant::now(),
            done,
            used: processes
                .iter()
                .map(|process| process.processor_time())
                .sum(),
        };
        if done >= low && at_low.is_none() {
            at_low = Some(mark());
        } else if done >= high && at_high.is_none() {
            at_high = Some(mark());
        }
        if done >= deliveries {
            break;
        }
        for process in &mut *processes {
            process.must_run();
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{done} of {deliveries} were done in {PATIENCE:?}"
        );
        tokio::time::sleep(LOOK).await;
    }
    let (Some(low), Some(high)) = (at_low, at_high) else {
        panic!("{deliveries} were done faster than anybody could look");
    };
    let count = (high.done - low.done) as f64;
    Round {
        per_second: count / high.at.duration_since(low.at).as_secs_f64(),
        micros_each: (high.used.saturating_sub(low.used)).as_secs_f64() * 1e6 / count,
        memory: processes
            .iter()
            .map(|process| process.peak_memory())
            .fold(0.0, f64::max),
    }
}

/// How far it was, and when.
struct Mark {
    at: Instant,
    done: u64,
    used: Duration,
}

/// Lets running bridges begin at the same moment, with all events there, and watches until each event
/// has been delivered `fan` times.
pub(crate) async fn begin_together(
    ground: &Ground,
    bridges: &mut [Bridge],
    events: Heap,
    fan: u64,
    count: Count<'_>,
) -> Round {
    for bridge in &*bridges {
        bridge.process.signal("STOP");
    }
    heap_of(ground, SOURCE, "everyone", events).await;
    for bridge in &*bridges {
        bridge.process.signal("CONT");
    }
    let mut processes: Vec<_> = bridges
        .iter_mut()
        .map(|bridge| &mut bridge.process)
        .collect();
    watch(ground, &mut processes, count, events.count * fan).await
}
