//! Lines that are summed up, on a clock that the test moves.

use std::{cell::RefCell, time::Duration};

use tokio::time::advance;

use super::*;

thread_local! {
    static SAID: RefCell<Vec<(u32, u64)>> = const { RefCell::new(Vec::new()) };
}

/// A summary of numbers by their kind, which writes here.
fn summary() -> Summary<&'static str, u32> {
    Summary::new(|line, unsaid| SAID.with_borrow_mut(|said| said.push((*line, unsaid))))
}

/// The lines said since the last call, each with its count.
fn said() -> Vec<(u32, u64)> {
    SAID.take()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_first_is_said_at_once_and_then_the_latest_with_a_count() {
    let summary = summary();
    for number in 1..=500 {
        summary.note("down", number);
        summary.sweep();
    }
    assert_eq!(said(), [(1, 0)]);
    advance(SECOND * 9).await;
    summary.sweep();
    assert_eq!(said(), [], "no sooner than that");
    advance(SECOND).await;
    summary.sweep();
    assert_eq!(said(), [(500, 498)], "the burst is over, and still told");
    summary.sweep();
    summary.flush();
    assert_eq!(said(), [], "nothing is told twice");
}

#[tokio::test(start_paused = true)]
async fn while_a_fault_lasts_there_is_one_line_in_ten_seconds() {
    let summary = summary();
    for number in 0..600_u32 {
        summary.note("down", number);
        advance(SECOND / 10).await;
        if number % 10 == 9 {
            summary.sweep();
        }
    }
    summary.flush();
    let said = said();
    assert!((6..=8).contains(&said.len()), "{said:?}");
    let counted: u64 = said.iter().map(|(_, unsaid)| unsaid + 1).sum();
    assert_eq!(counted, 600, "{said:?}");
    assert_eq!(said.last().map(|(line, _)| *line), Some(599));
}

#[tokio::test(start_paused = true)]
async fn kinds_are_told_apart_and_forgotten_when_quiet() {
    let summary = summary();
    summary.note("down", 1);
    summary.note("slow", 2);
    summary.note("down", 3);
    assert_eq!(said(), [(1, 0), (2, 0)]);
    advance(EVERY).await;
    summary.sweep();
    assert_eq!(said(), [(3, 0)]);
    assert_eq!(summary.lock().kinds.len(), 1, "'slow' has been quiet");
    advance(EVERY).await;
    summary.sweep();
    assert!(summary.lock().kinds.is_empty());
    summary.note("down", 4);
    assert_eq!(said(), [(4, 0)], "a new burst begins anew");
}

#[tokio::test(start_paused = true)]
async fn at_the_end_everything_is_said_and_so_is_what_comes_after() {
    let summary = summary();
    for number in 1..=5 {
        summary.note("down", number);
    }
    summary.flush();
    assert_eq!(said(), [(1, 0), (5, 3)]);
    summary.note("down", 6);
    assert_eq!(said(), [(6, 0)]);
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_kinds_and_nothing_is_uncounted() {
    let summary = Summary::<u32, u32>::new(|line, unsaid| {
        SAID.with_borrow_mut(|said| said.push((*line, unsaid)));
    });
    for number in 0..10_000 {
        summary.note(number, number);
    }
    assert_eq!(summary.lock().kinds.len(), KINDS + 1);
    summary.flush();
    let said = said();
    assert_eq!(said.len(), KINDS + 2);
    let counted: u64 = said.iter().map(|(_, unsaid)| unsaid + 1).sum();
    assert_eq!(counted, 10_000);
}
