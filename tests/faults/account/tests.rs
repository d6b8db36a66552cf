//! The account must see what it is there to see.

use super::*;
use crate::{
    faults::{cast::entitled, ledger::Ledger},
    support::line::webhook_id,
};

const TERMS: Terms = Terms {
    seed: 0,
    retry_delay: Duration::from_secs(2),
    timeout: Duration::from_secs(1),
    late: Duration::from_secs(3),
    slow: Vec::new(),
    hurt: Vec::new(),
    queues_deleted: false,
    lag: Duration::ZERO,
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
fn what_is_in_lost_is_wrong_unless_a_queue_was_deleted() {
    let (ledger, _) = book();
    ledger.lost(&id(Who::HomeWell));
    assert_eq!(account(&ledger, &[]).misled, 1);
    let terms = Terms {
        hurt: vec![Who::HttpMoody],
        queues_deleted: true,
        ..TERMS
    };
    let account = Account::of(&ledger.book(), &terms, &[]);
    assert!(account.wrong.is_empty(), "{account:#?}");
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
fn a_move_within_a_slow_lane_may_be_made_twice_at_each_interruption() {
    let (ledger, now) = book();
    let after = |seconds| now + Duration::from_secs(seconds);
    let push = |attempt, at| {
        let mut book = ledger.book();
        let pair = book.pairs.get_mut(&id(Who::HttpMoody)).unwrap();
        pair.arrivals.push(Arrival { attempt, at });
    };
    let windows = [11, 14].map(|at| Window {
        from: after(at),
        to: after(at),
        repeats: true,
        only_hurt: false,
    });
    let terms = Terms {
        hurt: vec![Who::HttpMoody],
        slow: vec![(Who::HttpMoody, after(5), after(30))],
        ..TERMS
    };
    let unexplained = |terms: &Terms| Account::of(&ledger.book(), terms, &windows).unexplained;
    push(1, now);
    // Two interruptions make four of one.
    (0..4).for_each(|_| push(2, after(20)));
    assert_eq!(unexplained(&terms), 0);
    let quick = Terms {
        slow: Vec::new(),
        ..terms.clone()
    };
    assert_eq!(unexplained(&quick), 3);
    push(2, after(20));
    assert_eq!(unexplained(&terms), 1);
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
fn a_retry_may_be_late_for_as_long_after_a_fault_as_the_brokers_clocks_lag() {
    let (ledger, before) = book();
    let now = before + Duration::from_secs(10);
    for (attempt, at) in [(1, now), (2, now + Duration::from_secs(30))] {
        let mut book = ledger.book();
        let pair = book.pairs.get_mut(&id(Who::HttpMoody)).unwrap();
        pair.arrivals.push(Arrival { attempt, at });
    }
    let window = Window {
        from: before,
        to: before,
        repeats: true,
        only_hurt: false,
    };
    for (lag, late) in [(9, 1), (11, 0)] {
        let terms = Terms {
            hurt: vec![Who::HttpMoody],
            lag: Duration::from_secs(lag),
            ..TERMS
        };
        assert_eq!(Account::of(&ledger.book(), &terms, &[window]).late, late);
    }
}

#[test]
fn a_retry_may_wait_its_turn_while_its_own_subscriber_is_slow() {
    let (ledger, now) = book();
    let late = now + Duration::from_secs(30);
    for (attempt, at) in [(1, now), (2, late)] {
        let mut book = ledger.book();
        let pair = book.pairs.get_mut(&id(Who::HttpMoody)).unwrap();
        pair.arrivals.push(Arrival { attempt, at });
    }
    let with = |who, from: Instant| {
        let terms = Terms {
            slow: vec![(who, from, from + Duration::from_secs(10))],
            hurt: vec![Who::HttpMoody],
            ..TERMS
        };
        Account::of(&ledger.book(), &terms, &[]).late
    };
    assert_eq!(with(Who::HttpMoody, now), 0);
    assert_eq!(with(Who::HttpWell, now), 1);
    assert_eq!(with(Who::HttpMoody, late + Duration::from_secs(1)), 1);
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
