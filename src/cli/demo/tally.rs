//! What must happen in the demo, what did, and whether the two agree.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Duration;

use super::{
    arrival::{Arrival, Verdict},
    cast::CAST,
};
use crate::{telemetry::metrics::Transport, webhook::examples::EXAMPLES};

/// An attempt that must be seen: the index of the example, the subscriber, and which attempt.
type Attempt = (usize, &'static str, u8);

/// An attempt as a subscriber saw it.
#[derive(Debug)]
pub(super) struct Seen {
    transport: Transport,
    attempt: u8,
    taken: bool,
    /// The time since the event was published.
    pub(super) took: Duration,
    /// The `webhook-id` header.
    pub(super) webhook_id: String,
    /// What an endpoint answered.
    pub(super) status: Option<u16>,
}

/// Keeps count.
#[derive(Debug)]
pub(super) struct Tally {
    attempts: BTreeMap<Attempt, Option<Seen>>,
    /// Domain events that the broker confirmed.
    pub(super) published: u64,
    /// What nobody should have seen.
    pub(super) wrong: Vec<String>,
}

/// A count: what it must be, what the demo saw, and what the bridge tells of it.
pub(super) struct Count {
    pub(super) what: &'static str,
    pub(super) expected: u64,
    pub(super) seen: u64,
    pub(super) told: Option<u64>,
}

impl Count {
    /// Whether all agree.
    pub(super) fn right(&self) -> bool {
        self.seen == self.expected && self.told.is_none_or(|told| told == self.expected)
    }
}

impl Tally {
    /// Nothing has happened yet.
    pub(super) fn new() -> Self {
        let attempts = CAST.iter().flat_map(|member| {
            let deliveries = member.gets.iter().map(|number| number - 1);
            deliveries.flat_map(move |example| {
                (1..=member.attempts()).map(move |attempt| (example, member.id, attempt))
            })
        });
        Self {
            attempts: attempts.map(|attempt| (attempt, None)).collect(),
            published: 0,
            wrong: Vec::new(),
        }
    }

    /// Takes an arrival down. `took` is the time since its event was published.
    pub(super) fn take(&mut self, arrival: &Arrival, verdict: &Verdict, took: Duration) {
        let member = arrival.member;
        let kind = arrival.header("webhook-type");
        let attempt = arrival.attempt();
        let what = format!("{kind} at {}, attempt {attempt}", member.id);
        for wrong in &verdict.wrong {
            self.wrong.push(format!("{what}: {wrong}"));
        }
        let Some(example) = verdict.example else {
            return;
        };
        let seen = Seen {
            transport: member.target.transport(),
            attempt,
            taken: arrival.taken(),
            took,
            webhook_id: arrival.header("webhook-id").to_owned(),
            status: arrival.status,
        };
        match self
            .attempts
            .insert((example, member.id, attempt), Some(seen))
        {
            Some(None) => {}
            Some(Some(_)) => self.wrong.push(format!("{what}: came twice")),
            None => self.wrong.push(format!("{what}: must not have come")),
        }
    }

    /// What was seen of an attempt.
    pub(super) fn seen(&self, example: usize, member: &str, attempt: u8) -> Option<&Seen> {
        let found = |key: &&Attempt| **key == (example, member, attempt);
        let key = self.attempts.keys().find(found)?;
        self.attempts.get(key)?.as_ref()
    }

    /// Whether an attempt that must be seen has not been: one of those that `which` picks by the
    /// index of the example and the number of the attempt.
    pub(super) fn awaits(&self, which: impl Fn(usize, u8) -> bool) -> bool {
        let mut attempts = self.attempts.iter();
        attempts.any(|((example, _, attempt), seen)| seen.is_none() && which(*example, *attempt))
    }

    /// The attempts that have not been seen yet, for a person.
    pub(super) fn missing(&self) -> Vec<String> {
        let missing = self.attempts.iter().filter(|(_, seen)| seen.is_none());
        let words = |(example, member, attempt): Attempt| {
            let kind = EXAMPLES[example].event_type.webhook();
            format!("{kind} at {member}, attempt {attempt}")
        };
        missing.map(|(attempt, _)| words(*attempt)).collect()
    }

    /// The final counts. `queues` are the messages in each group of the bridge's queues.
    pub(super) fn counts(&self, queues: &[(&'static str, u64)], metrics: &str) -> Vec<Count> {
        let seen = |wanted: &dyn Fn(&Seen) -> bool| {
            self.attempts
                .values()
                .flatten()
                .filter(|seen| wanted(seen))
                .count() as u64
        };
        let of = |wanted: &dyn Fn(&&str) -> bool| {
            let groups: HashMap<_, _> = queues.iter().copied().collect();
            groups
                .iter()
                .filter(|(name, _)| wanted(name))
                .map(|(_, count)| count)
                .sum()
        };
        let told = |name: &str, labels: &[&str]| Some(sum(metrics, name, labels));
        let expected = |transport: Transport| -> u64 {
            let members = CAST.iter().filter(|member| member.takes());
            let members = members.filter(|member| member.target.transport() == transport);
            members.map(|member| member.gets.len() as u64).sum()
        };
        let delivered = |what, transport: Transport| Count {
            what,
            expected: expected(transport),
            seen: seen(&|seen| seen.taken && seen.transport == transport),
            told: told(
                "hookbridge_deliveries_total",
                &[
                    &format!("transport=\"{}\"", transport.as_str()),
                    "outcome=\"delivered\"",
                ],
            ),
        };
        let retried = CAST.iter().filter(|member| member.attempts() == 2);
        let dead = CAST.iter().filter(|member| !member.takes());
        vec![
            Count {
                what: "events published",
                expected: EXAMPLES.len() as u64,
                seen: self.published,
                told: told("hookbridge_events_total", &["result=\"accepted\""]),
            },
            delivered("delivered over HTTP", Transport::Http),
            delivered("delivered over AMQP", Transport::Amqp),
            Count {
                what: "retried",
                expected: retried.map(|member| member.gets.len() as u64).sum(),
                seen: seen(&|seen| seen.attempt == 2),
                told: told("hookbridge_attempts_total", &["attempt=\"2\""]),
            },
            Count {
                what: "dead",
                expected: dead.map(|member| member.gets.len() as u64).sum(),
                seen: of(&|name| *name == "dead"),
                told: told("hookbridge_deliveries_total", &["outcome=\"dead\""]),
            },
            Count {
                what: "rejected",
                expected: 0,
                seen: of(&|name| *name == "rejected"),
                told: told("hookbridge_events_total", &["result=\"rejected\""]),
            },
            Count {
                what: "lost",
                expected: 0,
                seen: of(&|name| *name == "lost"),
                told: None,
            },
            Count {
                what: "still on their way",
                expected: 0,
                seen: of(&|name| !["dead", "rejected", "lost"].contains(name)),
                told: told("hookbridge_in_flight", &[]),
            },
        ]
    }
}

/// The sum of the metric's values that have all of these labels.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix('{')?;
        let (set, value) = rest.split_once('}')?;
        let all = labels
            .iter()
            .all(|label| set.split(',').any(|one| one == *label));
        if all {
            value.trim().parse::<u64>().ok()
        } else {
            None
        }
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_the_labels_that_are_not_named() {
        let metrics = "# HELP a_total x\na_total{t=\"http\",o=\"dead\"} 2\n\
                       a_total{t=\"amqp\",o=\"dead\"} 3\na_total{t=\"amqp\",o=\"delivered\"} 5\n\
                       a_total_more{t=\"http\"} 7\n";
        assert_eq!(sum(metrics, "a_total", &["o=\"dead\""]), 5);
        assert_eq!(sum(metrics, "a_total", &["t=\"amqp\"", "o=\"dead\""]), 3);
        assert_eq!(sum(metrics, "a_total", &[]), 10);
    }

    #[test]
    fn what_came_twice_or_to_the_wrong_one_is_told() {
        let mut tally = Tally::new();
        let message = |member: usize| Arrival {
            member: &CAST[member],
            at: tokio::time::Instant::now(),
            headers: [("webhook-attempt", "1"), ("webhook-type", "NewMessage")]
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .into_iter()
                .collect(),
            body: "{}".into(),
            status: None,
        };
        let verdict = || Verdict {
            example: Some(2),
            signed: true,
            wrong: Vec::new(),
        };
        tally.take(&message(0), &verdict(), Duration::ZERO);
        assert_eq!(tally.wrong, Vec::<String>::new());
        tally.take(&message(0), &verdict(), Duration::ZERO);
        tally.take(&message(1), &verdict(), Duration::ZERO);
        assert_eq!(
            tally.wrong,
            [
                "NewMessage at northwind-hub, attempt 1: came twice",
                "NewMessage at fixit-repairs, attempt 1: must not have come"
            ]
        );
        assert!(
            tally
                .missing()
                .contains(&"StatusUpdate at broken-portal, attempt 2".to_owned())
        );
        let counts = tally.counts(&[("dead", 1), ("lost", 1)], "");
        let right = |what: &str| {
            counts
                .iter()
                .find(|count| count.what == what)
                .unwrap()
                .right()
        };
        assert!(!right("lost") && !right("dead") && !right("delivered over HTTP"));
    }

    #[test]
    fn every_example_is_for_somebody() {
        for number in 1..=EXAMPLES.len() {
            assert!(
                CAST.iter().any(|member| member.gets.contains(&number)),
                "{number}"
            );
        }
    }
}
