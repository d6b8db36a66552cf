//! What a run comes to: every pair looked at, every repeat explained or not.

use std::time::{Duration, Instant};

use super::{
    cast::{Fate, Who},
    ledger::{Arrival, Book, Pair, State},
};

mod tests;

/// A time within which something was interrupted.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Instant,
    /// When the bridge worked again.
    pub to: Instant,
    /// Whether attempts that were in flight may be repeated.
    pub repeats: bool,
    /// Whether it touched only those that the run hurts: nobody else's repeats are explained by it.
    pub only_hurt: bool,
}

/// What the run was made with.
#[derive(Debug, Clone)]
pub struct Terms {
    pub seed: u64,
    pub retry_delay: Duration,
    pub timeout: Duration,
    /// What a retry may be late by without a fault.
    pub late: Duration,
    /// When a bridge said of a subscriber that it is slow: its deliveries wait their turn then.
    pub slow: Vec<(Who, Instant, Instant)>,
    /// Those whom a fault hurts besides their own plan: they may get less than their fate.
    pub hurt: Vec<Who>,
    /// Whether a fault deleted a queue: nothing else may bring anything into `lost`.
    pub queues_deleted: bool,
    /// How long after a fault first attempts may still fail whose retries come late: the broker has
    /// clocks of its own. How late, the run prints.
    pub lag: Duration,
}

impl Terms {
    /// Whether an attempt may have been unsettled while something was interrupted.
    fn in_flight(&self, arrival: &Arrival, windows: &[Window]) -> bool {
        windows
            .iter()
            .any(|window| self.unsettled(arrival.at, arrival, window))
    }

    /// The same for one window, of an attempt that was on its way from `begun` on.
    fn unsettled(&self, begun: Instant, arrival: &Arrival, window: &Window) -> bool {
        window.repeats && begun <= window.to && arrival.at + self.timeout + UNSETTLED >= window.from
    }

    /// Whether the deliveries of a subscriber waited their turn in a slow lane at that time.
    fn slow_during(&self, who: Who, window: &Window) -> bool {
        let slow = |(slow, from, to): &(Who, Instant, Instant)| {
            *slow == who && *from <= window.to && *to >= window.from
        };
        self.slow.iter().any(slow)
    }
}

/// A clock that counts milliseconds, and a broker that does, may differ by this.
const ROUNDING: Duration = Duration::from_millis(20);
/// How long before an interruption an attempt may have arrived and still be in flight, beyond its
/// timeout.
const UNSETTLED: Duration = Duration::from_secs(2);

/// The sums, and what is wrong, in words.
#[derive(Debug, Default)]
pub struct Account {
    pub events: usize,
    /// Events of which the publisher does not know whether the broker took them, and which it did.
    pub uncertain: usize,
    pub pairs: usize,
    pub delivered: usize,
    pub dead: usize,
    /// In the queue `lost`.
    pub astray: usize,
    /// Nowhere at all.
    pub missing: usize,
    /// Attempts that came again, while an interruption was on.
    pub repeats: usize,
    /// Attempts that came again, and nothing explains it.
    pub unexplained: usize,
    pub early: usize,
    pub late: usize,
    /// How late the retries came that a fault or their slow subscriber held up, where that was longer
    /// than a retry may take.
    pub held_up: Vec<Duration>,
    /// Delivered, dead or lost otherwise than the plan of the run says.
    pub misled: usize,
    /// Dead letters of one delivery beyond the first.
    pub dead_twice: usize,
    pub strangers: usize,
    pub wrong: Vec<String>,
}

impl Account {
    pub fn of(book: &Book, terms: &Terms, windows: &[Window]) -> Self {
        let mut account = Self {
            events: count(book, State::Confirmed),
            uncertain: count(book, State::Uncertain) + count(book, State::Sent),
            strangers: book.strangers.len(),
            wrong: book.strangers.clone(),
            ..Self::default()
        };
        for pair in book.owed() {
            let sent = book.events[pair.event].sent;
            account.add(pair, sent, terms, windows);
        }
        account
    }

    fn add(&mut self, pair: &Pair, sent: Instant, terms: &Terms, windows: &[Window]) {
        self.pairs += 1;
        self.delivered += usize::from(pair.delivered);
        self.dead += usize::from(!pair.dead.is_empty());
        self.dead_twice += pair.dead.len().saturating_sub(1);
        self.astray += pair.lost;
        if !pair.accounted() {
            self.missing += 1;
            self.blame(pair, "is nowhere");
        }
        if pair.lost > 0 && !terms.queues_deleted {
            self.misled += 1;
            self.blame(pair, "is in `lost`, and no queue was deleted");
        }
        let hurt = terms.hurt.contains(&pair.who);
        let windows = windows.iter().filter(|window| hurt || !window.only_hurt);
        let windows: Vec<_> = windows.copied().collect();
        self.judge_fate(pair, terms, &windows);
        self.judge_repeats(pair, sent, terms, &windows);
        self.judge_delay(pair, terms, &windows);
    }

    /// Whether it ended as the plan says, by the attempt that the plan says. Where the broker's answer
    /// to the first attempt or to the move after it was on its way when something was interrupted,
    /// there may be a second attempt that the subscriber sees no reason for.
    fn judge_fate(&mut self, pair: &Pair, terms: &Terms, windows: &[Window]) {
        let fate = pair.who.fate(terms.seed, pair.event);
        let again = fate == Fate::First && of(pair, 2).next().is_some();
        let in_flight = of(pair, 1).any(|first| terms.in_flight(first, windows));
        let as_planned = match fate {
            Fate::First => pair.delivered && pair.dead.is_empty() && (!again || in_flight),
            Fate::Second => pair.delivered && pair.dead.is_empty(),
            Fate::Dead => !pair.delivered,
            Fate::Either => true,
        };
        let hurt = terms.hurt.contains(&pair.who) || pair.lost > 0 || !pair.accounted();
        if !as_planned && !hurt {
            self.misled += 1;
            self.blame(pair, &format!("should be {fate:?}"));
        } else if again && as_planned {
            self.repeats += 1;
        }
    }

    /// Whether what came more than once was in flight when something was interrupted. An event whose
    /// intake is repeated makes a second copy of a delivery, which has two attempts of its own: so
    /// there may be as many second attempts as there were first ones; and both copies may wait in
    /// their lane until after the interruption. And a move to `retry` that was in flight may have
    /// been made twice, and so may one to the end of a slow lane, which is made twice a second.
    fn judge_repeats(&mut self, pair: &Pair, sent: Instant, terms: &Terms, windows: &[Window]) {
        let windows: Vec<_> = windows.iter().filter(|window| window.repeats).collect();
        let moved = of(pair, 1).any(|first| {
            let in_flight = |window: &&Window| terms.unsettled(first.at, first, window);
            windows.iter().any(in_flight)
        });
        let mut copies = 0;
        for attempt in [1, 2] {
            let times: Vec<_> = of(pair, attempt).collect();
            let laps = windows.iter().filter(|window| {
                let waited = |last: &&Arrival| sent <= window.to && last.at >= window.from;
                times.last().is_some_and(waited) && terms.slow_during(pair.who, window)
            });
            let mut by_laps = (1_usize << laps.count().min(16)) - 1;
            let mut repeated = vec![false; times.len()];
            let mut of_copies = match attempt {
                1 => 0,
                _ => (copies + 1) * (1 + usize::from(moved)) - 1,
            };
            for (index, again) in times.iter().enumerate().skip(1) {
                // One that was cut off, and comes again: each at most once.
                let cut_off = (0..index).find(|before| {
                    let arrival = times[*before];
                    let begun = if attempt == 1 { sent } else { arrival.at };
                    let in_flight = |window: &&Window| {
                        again.at >= window.from && terms.unsettled(begun, arrival, window)
                    };
                    !repeated[*before] && windows.iter().any(in_flight)
                });
                if let Some(before) = cut_off {
                    repeated[before] = true;
                    self.repeats += 1;
                } else if pair.who.read_at_the_end() && !windows.is_empty() {
                    self.repeats += 1;
                } else if of_copies > 0 {
                    of_copies -= 1;
                    self.repeats += 1;
                } else if by_laps > 0 {
                    by_laps -= 1;
                    self.repeats += 1;
                } else {
                    self.unexplained += 1;
                    let since = |window: &&Window| again.at.checked_duration_since(window.to);
                    let since = windows.iter().filter_map(since).min();
                    let what = format!("came again without a reason, {since:?} after the last");
                    self.blame(pair, &what);
                }
            }
            copies = times.len().saturating_sub(1);
        }
        if let Some(Arrival { attempt, .. }) = pair.arrivals.iter().find(|a| a.attempt > 2) {
            self.unexplained += 1;
            self.blame(pair, &format!("attempt {attempt}"));
        }
    }

    fn judge_delay(&mut self, pair: &Pair, terms: &Terms, windows: &[Window]) {
        if pair.who.read_at_the_end() {
            return;
        }
        let (Some(first), Some(last), Some(second)) =
            (of(pair, 1).next(), of(pair, 1).last(), of(pair, 2).next())
        else {
            return;
        };
        let waited = second.at.saturating_duration_since(first.at);
        // The line to a subscriber that is hurt, and a broker that is blocked, may hold an attempt
        // back that has failed long since.
        let held_back = terms.hurt.contains(&pair.who)
            && windows
                .iter()
                .any(|window| first.at <= window.to && second.at >= window.from);
        if waited + ROUNDING < terms.retry_delay && !held_back {
            self.early += 1;
            self.blame(pair, &format!("retried after {waited:?}"));
        }
        let waited = second.at.saturating_duration_since(last.at);
        let disturbed = windows
            .iter()
            .any(|window| last.at <= window.to + terms.lag && second.at >= window.from);
        let slow = terms
            .slow
            .iter()
            .any(|(who, from, to)| *who == pair.who && last.at <= *to && second.at >= *from);
        if waited <= terms.retry_delay + terms.timeout + terms.late {
            return;
        }
        if disturbed || slow {
            self.held_up.push(waited);
        } else {
            self.late += 1;
            self.blame(pair, &format!("retried only after {waited:?}"));
        }
    }

    fn blame(&mut self, pair: &Pair, what: &str) {
        self.wrong.push(format!(
            "event {} for {} {what}: {pair:?}",
            pair.event, pair.who
        ));
    }
}

/// The arrivals of one attempt.
fn of(pair: &Pair, attempt: u8) -> impl Iterator<Item = &Arrival> {
    pair.arrivals.iter().filter(move |a| a.attempt == attempt)
}

fn count(book: &Book, state: State) -> usize {
    book.events
        .iter()
        .filter(|event| event.state == state)
        .count()
}
