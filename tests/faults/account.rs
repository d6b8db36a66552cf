//! What a run comes to: every pair looked at, every repeat explained or not.

use std::time::{Duration, Instant};

use super::{
    cast::{Fate, Who},
    ledger::{Arrival, Book, Pair, State},
};

/// A time within which attempts that were in flight may be repeated.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Instant,
    /// When the bridge worked again.
    pub to: Instant,
    /// Whether it touched only those that the run hurts: nobody else's repeats are explained by it.
    pub only_hurt: bool,
}

/// What the run was made with.
#[derive(Debug, Clone)]
pub struct Terms {
    pub seed: u64,
    pub retry_delay: Duration,
    pub timeout: Duration,
    /// Those whom a fault hurts besides their own plan: they may get less than their fate.
    pub hurt: Vec<Who>,
}

/// A clock that counts milliseconds, and a broker that does, may differ by this.
const ROUNDING: Duration = Duration::from_millis(20);
/// What a retry may be late by without a fault: a wait queue expires at its head, and the lane has
/// others in it.
const LATE: Duration = Duration::from_secs(3);
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
    /// Delivered or dead otherwise than the plan of the run says.
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
            account.add(pair, terms, windows);
        }
        account
    }

    fn add(&mut self, pair: &Pair, terms: &Terms, windows: &[Window]) {
        self.pairs += 1;
        self.delivered += usize::from(pair.delivered);
        self.dead += usize::from(!pair.dead.is_empty());
        self.dead_twice += pair.dead.len().saturating_sub(1);
        self.astray += pair.lost;
        if !pair.accounted() {
            self.missing += 1;
            self.blame(pair, "is nowhere");
        }
        self.judge_fate(pair, terms);
        let hurt = terms.hurt.contains(&pair.who);
        let windows = windows.iter().filter(|window| hurt || !window.only_hurt);
        let windows: Vec<_> = windows.copied().collect();
        self.judge_repeats(pair, terms, &windows);
        self.judge_delay(pair, terms, &windows);
    }

    /// Whether it ended as the plan says, by the attempt that the plan says.
    fn judge_fate(&mut self, pair: &Pair, terms: &Terms) {
        let second = pair.arrivals.iter().any(|arrival| arrival.attempt == 2);
        let as_planned = match pair.who.fate(terms.seed, pair.event) {
            Fate::First => pair.delivered && pair.dead.is_empty() && !second,
            Fate::Second => pair.delivered && pair.dead.is_empty(),
            Fate::Dead => !pair.delivered,
            Fate::Either => true,
        };
        let hurt = terms.hurt.contains(&pair.who) || pair.lost > 0 || !pair.accounted();
        if !as_planned && !hurt {
            self.misled += 1;
            let fate = pair.who.fate(terms.seed, pair.event);
            self.blame(pair, &format!("should be {fate:?}"));
        }
    }

    /// Whether what came more than once was in flight when something was interrupted. An event whose
    /// intake is repeated makes a second copy of a delivery, which has two attempts of its own: so
    /// there may be as many second attempts as there were first ones.
    fn judge_repeats(&mut self, pair: &Pair, terms: &Terms, windows: &[Window]) {
        let of = |attempt| pair.arrivals.iter().filter(move |a| a.attempt == attempt);
        let mut copies = 1;
        for attempt in [1, 2] {
            let mut times = of(attempt);
            let Some(mut before) = times.next() else {
                continue;
            };
            let mut repeats = 0;
            for again in times {
                let in_flight = windows.iter().any(|window| {
                    before.at <= window.to
                        && again.at >= window.from
                        && before.at + terms.timeout + UNSETTLED >= window.from
                });
                let explained = in_flight || pair.who.read_at_the_end() && !windows.is_empty();
                repeats += 1;
                if explained || attempt == 2 && repeats < copies {
                    self.repeats += 1;
                } else {
                    self.unexplained += 1;
                    self.blame(pair, "came again without a reason");
                }
                before = again;
            }
            copies += repeats;
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
        let of = |attempt| pair.arrivals.iter().filter(move |a| a.attempt == attempt);
        let (Some(first), Some(last), Some(second)) = (of(1).next(), of(1).last(), of(2).next())
        else {
            return;
        };
        let waited = second.at.duration_since(first.at);
        // What a broker in trouble does not read yet, or a queue does not give, arrives later than its
        // attempt was made.
        let held = windows
            .iter()
            .any(|window| window.only_hurt && first.at >= window.from);
        if waited + ROUNDING < terms.retry_delay && !held {
            self.early += 1;
            self.blame(pair, &format!("retried after {waited:?}"));
        }
        let waited = second.at.saturating_duration_since(last.at);
        let disturbed = windows
            .iter()
            .any(|window| last.at <= window.to && second.at >= window.from);
        if waited > terms.retry_delay + terms.timeout + LATE && !disturbed {
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

fn count(book: &Book, state: State) -> usize {
    book.events
        .iter()
        .filter(|event| event.state == state)
        .count()
}

/// The account must see what it is there to see.
mod tests {
    use super::*;
    use crate::{
        faults::{cast::entitled, ledger::Ledger},
        support::line::webhook_id,
    };

    const TERMS: Terms = Terms {
        seed: 0,
        retry_delay: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        hurt: Vec::new(),
    };

    /// One event that everybody entitled got, as planned, but for the moody one.
    fn book() -> (Ledger, Instant) {
        let ledger = Ledger::default();
        // Not one that the few get.
        for _ in 0..2 {
            ledger.send();
        }
        ledger.set(0, State::Uncertain);
        ledger.set(1, State::Confirmed);
        for who in entitled(1).filter(|who| *who != Who::HttpMoody) {
            ledger.arrived(&id(who), 1, true);
        }
        ledger.dead(&id(Who::HttpMoody), "http_status".to_owned());
        (ledger, Instant::now())
    }

    fn id(who: Who) -> String {
        webhook_id("/tests", "1", who.id())
    }

    fn account(ledger: &Ledger, windows: &[Window]) -> Account {
        let terms = Terms {
            hurt: vec![Who::HttpMoody],
            ..TERMS
        };
        Account::of(&ledger.book(), &terms, windows)
    }

    #[test]
    fn a_run_in_order_has_nothing_wrong() {
        let (ledger, _) = book();
        let account = account(&ledger, &[]);
        assert!(account.wrong.is_empty(), "{account:#?}");
        assert_eq!((account.pairs, account.delivered, account.dead), (4, 3, 1));
    }

    #[test]
    fn a_pair_that_is_nowhere_is_missing() {
        let (ledger, _) = book();
        ledger
            .book()
            .pairs
            .get_mut(&id(Who::HomeWell))
            .unwrap()
            .delivered = false;
        assert_eq!(account(&ledger, &[]).missing, 1);
    }

    #[test]
    fn what_is_seen_of_an_uncertain_event_makes_all_of_it_owed() {
        let (ledger, _) = book();
        ledger.arrived(&webhook_id("/tests", "0", "http-well"), 1, true);
        assert_eq!(account(&ledger, &[]).missing, Who::ALL.len() - 1);
    }

    #[test]
    fn a_repeat_needs_an_interruption_that_it_was_in_flight_at() {
        let (ledger, now) = book();
        ledger.arrived(&id(Who::HttpWell), 1, true);
        assert_eq!(account(&ledger, &[]).unexplained, 1);
        let later = now + Duration::from_mins(1);
        let too_late = Window {
            from: later,
            to: later,
            only_hurt: false,
        };
        assert_eq!(account(&ledger, &[too_late]).unexplained, 1);
        let meanwhile = Window {
            from: now,
            to: later,
            only_hurt: false,
        };
        let explained = account(&ledger, &[meanwhile]);
        assert_eq!((explained.unexplained, explained.repeats), (0, 1));
        let elsewhere = Window {
            only_hurt: true,
            ..meanwhile
        };
        assert_eq!(account(&ledger, &[elsewhere]).unexplained, 1);
    }

    #[test]
    fn a_second_copy_of_a_delivery_explains_a_second_retry_and_no_third() {
        let (ledger, now) = book();
        let later = now + Duration::from_secs(30);
        let push = |attempt, at| {
            let mut book = ledger.book();
            let pair = book.pairs.get_mut(&id(Who::HttpMoody)).unwrap();
            pair.arrivals.push(Arrival { attempt, at });
        };
        for (attempt, at) in [(1, now), (1, now), (2, later), (2, later)] {
            push(attempt, at);
        }
        let window = Window {
            from: now,
            to: now,
            only_hurt: false,
        };
        let two = account(&ledger, &[window]);
        assert_eq!((two.repeats, two.unexplained), (2, 0));
        push(2, later);
        assert_eq!(account(&ledger, &[window]).unexplained, 1);
    }

    #[test]
    fn a_third_attempt_is_seen() {
        let (ledger, _) = book();
        ledger.arrived(&id(Who::HttpMoody), 3, false);
        assert_eq!(account(&ledger, &[]).unexplained, 1);
    }

    #[test]
    fn a_retry_without_the_delay_and_one_without_a_failure_are_seen() {
        let (ledger, _) = book();
        ledger.arrived(&id(Who::HttpWell), 2, true);
        let account = account(&ledger, &[]);
        assert_eq!((account.early, account.misled), (1, 1));
    }

    #[test]
    fn a_retry_that_is_long_overdue_is_seen_unless_something_was_interrupted() {
        let (ledger, now) = book();
        let late = now + Duration::from_secs(30);
        let push = |attempt, at| {
            let mut book = ledger.book();
            let pair = book.pairs.get_mut(&id(Who::HttpMoody)).unwrap();
            pair.arrivals.push(Arrival { attempt, at });
        };
        push(1, now);
        push(2, late);
        assert_eq!(account(&ledger, &[]).late, 1);
        let window = Window {
            from: now,
            to: late,
            only_hurt: false,
        };
        assert_eq!(account(&ledger, &[window]).late, 0);
    }

    #[test]
    fn what_nobody_was_to_get_is_a_stranger() {
        let (ledger, _) = book();
        ledger.arrived(&webhook_id("/tests", "1", "home-missing"), 1, true);
        assert_eq!(account(&ledger, &[]).strangers, 1);
    }
}
