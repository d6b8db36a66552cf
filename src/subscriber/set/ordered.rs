//! Subscribers in the order of their ids, in runs that a changed set shares with the one before.

use std::{cmp::Ordering, sync::Arc};

use super::Subscriber;

/// The most subscribers of a run. A change copies one run, and the list of all runs.
const LONGEST: usize = 512;

#[derive(Debug, Clone, Default)]
pub(super) struct Ordered {
    /// None of them is empty.
    runs: Vec<Arc<Vec<Arc<Subscriber>>>>,
    len: usize,
}

impl Ordered {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Subscriber>> {
        let run = self.runs.get(self.run_for(id))?;
        let position = position(run, id).ok()?;
        run.get(position)
    }

    /// Adds a subscriber whose id is not there.
    pub(super) fn insert(&mut self, subscriber: Arc<Subscriber>) {
        self.len += 1;
        // Behind the last of all, it goes into the last run.
        let at = self.run_for(subscriber.id.as_str());
        let at = at.min(self.runs.len().saturating_sub(1));
        let Some(run) = self.runs.get_mut(at) else {
            self.runs.push(Arc::new(vec![subscriber]));
            return;
        };
        let run = Arc::make_mut(run);
        let (Ok(position) | Err(position)) = position(run, subscriber.id.as_str());
        let at_the_end = position == run.len();
        run.insert(position, subscriber);
        if run.len() > LONGEST {
            // Who comes in order, as all do at a start, leaves full runs behind.
            let keep = if at_the_end { LONGEST } else { LONGEST / 2 };
            let rest = run.split_off(keep);
            self.runs.insert(at + 1, Arc::new(rest));
        }
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Arc<Subscriber>> {
        let at = self.run_for(id);
        let run = self.runs.get_mut(at)?;
        let position = position(run, id).ok()?;
        let removed = Arc::make_mut(run).remove(position);
        if run.is_empty() {
            self.runs.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }

    /// Those behind this id.
    pub(super) fn after(&self, id: &str) -> impl Iterator<Item = &Arc<Subscriber>> {
        let first = self.run_for(id);
        let skip = self
            .runs
            .get(first)
            .map_or(0, |run| run.partition_point(|one| one.id.as_str() <= id));
        let runs = self.runs.get(first..).unwrap_or_default();
        runs.iter().flat_map(|run| run.iter()).skip(skip)
    }

    /// The run that an id is in, if it is in any: the first that does not end before it.
    fn run_for(&self, id: &str) -> usize {
        self.runs
            .partition_point(|run| run.last().is_some_and(|last| last.id.as_str() < id))
    }
}

fn position(run: &[Arc<Subscriber>], id: &str) -> Result<usize, usize> {
    run.binary_search_by(|one| -> Ordering { one.id.as_str().cmp(id) })
}
