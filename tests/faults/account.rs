//! What a run comes to: every pair looked at, every repeat explained or not.

use std::time::{Duration, Instant};

use super::{
    cast::{Fate, Who},
    ledger::{Arrival, Book, Pair, State},
};

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
    /// Those whom a fault hurts besides their own plan: they may get less than their fate.
    pub hurt: Vec<Who>,
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
    /// How late the retries came that a fault held up, where that was longer than a retry may take.
    pub held_up: Vec<Duration>,
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
    /// been made twice.
    fn judge_repeats(&mut self, pair: &Pair, sent: Instant, terms: &Terms, windows: &[Window]) {
        let windows: Vec<_> = windows.iter().filter(|window| window.repeats).collect();
        let moved = of(pair, 1).any(|first| {
            let in_flight = |window: &&Window| terms.unsettled(first.at, first, window);
            windows.iter().any(in_flight)
        });
        let mut copies = 0;
        for attempt in [1, 2] {
            let times: Vec<_> = of(pair, attempt).collect();
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
            .any(|window| last.at <= window.to && second.at >= window.from);
        if waited <= terms.retry_delay + terms.timeout + LATE {
            return;
        }
        if disturbed {
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
            repeats: true,
            only_hurt: false,
        };
        assert_eq!(account(&ledger, &[too_late]).unexplained, 1);
        let meanwhile = Window {
            from: now,
            to: later,
            repeats: true,
            only_hurt: false,
        };
        let explained = account(&ledger, &[meanwhile]);
        assert_eq!((explained.unexplained, explained.repeats), (0, 1));
        let only_late = Window {
            repeats: false,
            ..meanwhile
        };
        assert_eq!(account(&ledger, &[only_late]).unexplained, 1);
        let elsewhere = Window {
            only_hurt: true,
            ..meanwhile
        };
        assert_eq!(account(&ledger, &[elsewhere]).unexplained, 1);
    }

    #[test]
    fn a_copy_may_wait_in_its_lane_until_after_the_interruption_that_made_it() {
        let (ledger, _) = book();
        ledger.arrived(&id(Who::HttpWell), 1, true);
        let sent = ledger.book().events[1].sent;
        let until = |to| Window {
            from: to,
            to,
            repeats: true,
            only_hurt: false,
        };
        assert_eq!(account(&ledger, &[until(sent)]).unexplained, 0);
        let before = sent.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(account(&ledger, &[until(before)]).unexplained, 1);
    }

    #[test]
    fn a_second_copy_of_a_delivery_explains_retries_of_its_own_and_no_more() {
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
            repeats: true,
            only_hurt: false,
        };
        let two = account(&ledger, &[window]);
        assert_eq!((two.repeats, two.unexplained), (2, 0));
        // Each of the two may have been moved twice.
        (0..3).for_each(|_| push(2, later));
        let five = account(&ledger, &[window]);
        assert_eq!((five.repeats, five.unexplained), (4, 1));
    }

    #[test]
    fn each_of_two_copies_may_be_cut_off_once_by_one_interruption() {
        let (ledger, now) = book();
        let after = |seconds| now + Duration::from_secs(seconds);
        let push = |attempt, at| {
            let mut book = ledger.book();
            let pair = book.pairs.get_mut(&id(Who::HttpMoody)).unwrap();
            pair.arrivals.push(Arrival { attempt, at });
        };
        let windows = [(now, now), (after(11), after(12))].map(|(from, to)| Window {
            from,
            to,
            repeats: true,
            only_hurt: false,
        });
        for (attempt, at) in [(1, 0), (1, 0), (2, 10), (2, 10), (2, 13), (2, 13)] {
            push(attempt, after(at));
        }
        assert_eq!(account(&ledger, &windows).unexplained, 0);
        // And each may have been moved twice, but no more.
        (0..2).for_each(|_| push(2, after(13)));
        assert_eq!(account(&ledger, &windows).unexplained, 0);
        push(2, after(13));
        assert_eq!(account(&ledger, &windows).unexplained, 1);
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
            repeats: true,
            only_hurt: false,
        };
        let held_up = account(&ledger, &[window]);
        assert_eq!((held_up.late, held_up.held_up.len()), (0, 1));
    }

    #[test]
    fn a_retry_may_overtake_only_what_the_line_of_a_subscriber_that_is_hurt_holds_back() {
        let (ledger, now) = book();
        for attempt in [1, 2] {
            ledger.arrived(&id(Who::HttpMoody), attempt, true);
        }
        let window = |from| Window {
            from,
            to: from + Duration::from_mins(1),
            repeats: false,
            only_hurt: false,
        };
        let early = |window| account(&ledger, &[window]).early;
        assert_eq!(early(window(now + Duration::from_mins(1))), 1);
        assert_eq!(early(window(now)), 0);
        let nobody_hurt = Account::of(&ledger.book(), &TERMS, &[window(now)]);
        assert_eq!(nobody_hurt.early, 1);
    }

    #[test]
    fn what_nobody_was_to_get_is_a_stranger() {
        let (ledger, _) = book();
        ledger.arrived(&webhook_id("/tests", "1", "home-missing"), 1, true);
        assert_eq!(account(&ledger, &[]).strangers, 1);
    }
}
