//! How the bridges come back after a fault: when, and what they say meanwhile.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Fault, Recovery, Stage, Window};
use crate::{
    faults::{
        cast::Who,
        process::{Process, Sample},
    },
    support::{eventually::eventually, program::Line},
};

/// How long the bridge is waited for, so that the run tells the figure.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// How long an event may take to one whom the fault does not concern.
const UNDISTURBED: Duration = Duration::from_secs(4);
/// What subscribers that fail by plan, and strays, write there, one line for each.
const BY_PLAN: [&str; 2] = ["attempt failed", "a message in a lane"];

impl Stage {
    /// The fault is cleared, now if not before: waits until these bridges are ready, and events that
    /// are published from then on reach every subscriber that is well; notes how long that takes.
    pub async fn recovered(&self, fault: Fault, bridges: &[&Process]) -> Duration {
        self.recovered_for(fault, bridges, &Who::WELL).await
    }

    /// The same, where only these subscribers can be reached.
    pub async fn recovered_for(
        &self,
        fault: Fault,
        bridges: &[&Process],
        reached: &[Who],
    ) -> Duration {
        let cleared = fault.cleared.unwrap_or_else(Instant::now);
        self.flows(cleared, reached).await;
        let ready = async || bridges.iter().all(|bridge| bridge.ready()).then_some(());
        eventually("every bridge is ready again", PATIENCE, ready).await;
        let took = cleared.elapsed();
        let mut lines = 0;
        for bridge in bridges {
            let log = bridge.program.log();
            let by_plan = |line: &Line| BY_PLAN.iter().any(|words| line.text.contains(words));
            let told = |line: &&Line| line.at >= fault.from && !by_plan(line);
            lines += log.iter().filter(told).count();
            self.judge_truth(&fault, &bridge.samples());
        }
        self.over(&fault);
        println!("{}: back after {took:.1?}", fault.what);
        // What is summed up is said again every few seconds.
        let minutes = usize::try_from(fault.from.elapsed().as_secs() / 60).unwrap();
        if lines > fault.lines * (1 + minutes) {
            self.wrong(format!("{}: {lines} lines of log", fault.what));
        }
        if took > self.at_most(fault.within) {
            self.wrong(format!("{}: back after {took:?}", fault.what));
        }
        self.recoveries.borrow_mut().push(Recovery { took, lines });
        took
    }

    /// A fault that is made, lasts for a time between these two, and is undone.
    pub async fn lasting(
        &self,
        mut fault: Fault,
        [least, most]: [Duration; 2],
        bridge: &Process,
        make: impl AsyncFnOnce(),
        undo: impl AsyncFnOnce(),
    ) {
        make().await;
        self.carry_on(least, most).await;
        fault.clearing();
        undo().await;
        fault.cleared();
        self.recovered(fault, &[bridge]).await;
    }

    /// Sees that what is published now reaches these as if nothing were wrong.
    pub async fn undisturbed(&self, whom: &[Who]) {
        let since = Instant::now();
        self.flows(since, whom).await;
        let took = since.elapsed();
        if took > UNDISTURBED {
            self.wrong(format!("{whom:?} had to wait {took:?}"));
        }
    }

    /// The fault is over; how long the recovery takes is not what this run is about.
    pub fn over(&self, fault: &Fault) {
        self.windows.borrow_mut().push(Window {
            from: fault.from,
            to: Instant::now(),
            repeats: fault.repeats,
            only_hurt: fault.only_hurt,
        });
    }

    /// Waits until an event published after `since` has reached each of these.
    pub async fn flows(&self, since: Instant, to: &[Who]) {
        let flows = async || self.ledger.waiting(to, since).is_empty().then_some(());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if flows().await.is_some() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let waiting = self.ledger.waiting(to, since);
        let (sent, confirmed) = self.ledger.published_since(since);
        let wrong = format!(
            "nothing new reaches {waiting:?} within {PATIENCE:?}: {sent} events were sent, \
             {confirmed} of them confirmed"
        );
        println!("{wrong}");
        self.wrong(wrong);
    }

    /// Whether `/readyz` said no while the fault was on, or yes while nothing was interrupted.
    fn judge_truth(&self, fault: &Fault, samples: &[Sample]) {
        let away = |sample: &&Sample| sample.status == 503 && sample.asked >= fault.from;
        if fault.unnoticed
            && fault.unready.is_none()
            && let Some(sample) = samples.iter().find(away)
        {
            self.wrong(format!("{}: /readyz said no: {}", fault.what, sample.words));
        }
        let (Some(grace), Some(clearing)) = (fault.unready, fault.clearing) else {
            return;
        };
        let grace = self.at_most(grace);
        let lie = samples.iter().find(|sample| {
            sample.status == 200 && sample.asked > fault.in_force + grace && sample.asked < clearing
        });
        if let Some(lie) = lie {
            let after = lie.asked - fault.in_force;
            let wrong = format!("{}: /readyz said yes {after:?} into it", fault.what);
            self.wrong.borrow_mut().push(wrong);
        }
    }
}
