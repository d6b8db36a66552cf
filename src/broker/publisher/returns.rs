//! Which of the publishes in flight on one channel arrived. Pure.
//!
//! The client library hands a returned message to whichever confirm completes next, not to the
//! confirm of the message that came back. Each confirm takes at most one return from a first-in
//! first-out list, and the broker sends a return before its own confirm. Two things follow:
//!
//! - a confirm that completes **without** a return proves that the list was empty then: every
//!   return that precedes it, its own included, has been handed to a confirm that completed before;
//! - a confirm that completes **with** a return proves nothing about its own message: that one's
//!   return may still be in the list. It is decided once a later confirm comes without a return,
//!   or once no confirm is outstanding.
//!
//! "Completed before" is made visible by rounds: a caller reports every confirm that is complete,
//! and only then asks for decisions.

use std::collections::VecDeque;

/// How the broker answered one publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Taken and routed.
    Confirmed,
    /// Refused.
    Nacked,
    /// No queue took it: the broker's words.
    Returned(String),
}

#[derive(Debug)]
struct Entry<T> {
    message_id: String,
    /// Gone once it is given up; the confirm may come all the same.
    context: Option<T>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    /// Acked by a confirm that carried another message's return, in this round.
    Shadowed(u64),
    /// Acked by a confirm without a return.
    Clean,
    Nacked,
    Returned(String),
    Decided,
}

/// The publishes in flight on one channel, in the order of publishing.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    entries: VecDeque<Option<Entry<T>>>,
    /// The sequence number of the first entry.
    base: u64,
    /// How many confirms are outstanding.
    outstanding: usize,
    round: u64,
    /// The last round in which a confirm came without a return.
    clean_round: Option<u64>,
    /// Sequence numbers that this round's reports may decide.
    touched: Vec<u64>,
    /// Acked in the shadow of another message's return, not yet decided.
    shadowed: Vec<u64>,
}

impl<T> Ledger<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            base: 0,
            outstanding: 0,
            round: 0,
            clean_round: None,
            touched: Vec::new(),
            shadowed: Vec::new(),
        }
    }

    /// Notes a publish, before it is made, and gives its sequence number.
    pub(super) fn add(&mut self, message_id: String, context: T) -> u64 {
        self.entries.push_back(Some(Entry {
            message_id,
            context: Some(context),
            state: State::Waiting,
        }));
        self.outstanding += 1;
        self.base + self.entries.len() as u64 - 1
    }

    /// Whether no publish is without its answer.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many publishes are between the oldest and the newest without an answer.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Reports that the confirm of `sequence` completed: acked or not, and the id and the reason of
    /// the returned message that it carried.
    pub(super) fn report(&mut self, sequence: u64, acked: bool, returned: Option<(&str, String)>) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let carried = returned.is_some();
        if let Some((id, words)) = returned {
            self.mark_returned(id, &words);
        }
        if !carried {
            self.clean_round = Some(self.round);
        }
        let round = self.round;
        let Some(entry) = self.entry(sequence) else {
            return;
        };
        if !matches!(entry.state, State::Returned(_)) {
            entry.state = match (acked, carried) {
                (false, _) => State::Nacked,
                (true, false) => State::Clean,
                (true, true) => State::Shadowed(round),
            };
        }
        if matches!(entry.state, State::Shadowed(_)) {
            self.shadowed.push(sequence);
        } else {
            self.touched.push(sequence);
        }
    }

    /// Ends the round: every confirm that was complete when the last one was looked at has been
    /// reported. Hands out what is decided now.
    pub(super) fn decide(&mut self, mut out: impl FnMut(T, Answer)) {
        for sequence in std::mem::take(&mut self.touched) {
            let answer = match self
                .entry(sequence)
                .map(|entry| std::mem::replace(&mut entry.state, State::Decided))
            {
                Some(State::Clean) => Answer::Confirmed,
                Some(State::Nacked) => Answer::Nacked,
                Some(State::Returned(words)) => Answer::Returned(words),
                Some(State::Waiting | State::Shadowed(_) | State::Decided) | None => continue,
            };
            self.hand_out(sequence, answer, &mut out);
        }
        if !self.shadowed.is_empty() {
            let quiet = self.outstanding == 0;
            let clean_round = self.clean_round;
            for sequence in std::mem::take(&mut self.shadowed) {
                let Some(entry) = self.entry(sequence) else {
                    continue;
                };
                let answer = match &entry.state {
                    State::Returned(words) => Answer::Returned(words.clone()),
                    State::Shadowed(round) if quiet || clean_round.is_some_and(|c| c > *round) => {
                        Answer::Confirmed
                    }
                    State::Shadowed(_) => {
                        self.shadowed.push(sequence);
                        continue;
                    }
                    _ => continue,
                };
                self.hand_out(sequence, answer, &mut out);
            }
        }
        self.round += 1;
        while matches!(self.entries.front(), Some(None)) {
            self.entries.pop_front();
            self.base += 1;
        }
    }

    /// Gives up everything that is undecided, oldest first, and forgets it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.base += self.entries.len() as u64;
        self.outstanding = 0;
        self.touched.clear();
        self.shadowed.clear();
        self.entries
            .drain(..)
            .flatten()
            .filter_map(|entry| entry.context)
    }

    /// Gives up what `overdue` says, oldest first. Their confirms may still come, and are then what
    /// tells about the others' returns.
    pub(super) fn give_up(&mut self, mut overdue: impl FnMut(&mut T) -> bool) -> Vec<T> {
        let waiting = self.entries.iter_mut().flatten();
        waiting
            .filter_map(|entry| {
                if entry.context.as_mut().is_some_and(&mut overdue) {
                    entry.context.take()
                } else {
                    None
                }
            })
            .collect()
    }

    fn mark_returned(&mut self, id: &str, words: &str) {
        // The same id twice in flight is the same webhook twice: both are failed, and both repeated.
        for (offset, entry) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = entry
                && entry.message_id == id
            {
                if !matches!(entry.state, State::Waiting | State::Shadowed(_)) {
                    self.touched.push(self.base + offset as u64);
                }
                entry.state = State::Returned(words.to_owned());
            }
        }
    }

    fn hand_out(&mut self, sequence: u64, answer: Answer, out: &mut impl FnMut(T, Answer)) {
        let index = usize::try_from(sequence - self.base).unwrap_or(usize::MAX);
        let entry = self.entries.get_mut(index).and_then(Option::take);
        if let Some(context) = entry.and_then(|entry| entry.context) {
            out(context, answer);
        }
    }

    fn entry(&mut self, sequence: u64) -> Option<&mut Entry<T>> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        self.entries.get_mut(index)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decisions(ledger: &mut Ledger<u32>) -> Vec<(u32, Answer)> {
        let mut decided = Vec::new();
        ledger.decide(|context, answer| decided.push((context, answer)));
        decided
    }

    #[test]
    fn what_was_given_up_still_tells_about_the_others() {
        let mut ledger = Ledger::new();
        let (a, b) = (ledger.add("a".into(), 1), ledger.add("b".into(), 2));
        assert_eq!(ledger.give_up(|context| *context == 1), [1]);
        ledger.report(a, true, Some(("b", "NO_ROUTE".into())));
        assert_eq!(decisions(&mut ledger), []);
        ledger.report(b, true, None);
        assert_eq!(
            decisions(&mut ledger),
            [(2, Answer::Returned("NO_ROUTE".into()))]
        );
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_return_on_another_confirm_fails_the_message_it_belongs_to() {
        let mut ledger = Ledger::new();
        let (a, b) = (ledger.add("a".into(), 1), ledger.add("b".into(), 2));
        ledger.report(a, true, Some(("b", "NO_ROUTE".into())));
        assert_eq!(decisions(&mut ledger), [], "a may have been returned too");
        ledger.report(b, true, None);
        let mut decided = decisions(&mut ledger);
        decided.sort_by_key(|(context, _)| *context);
        assert_eq!(
            decided,
            [
                (1, Answer::Confirmed),
                (2, Answer::Returned("NO_ROUTE".into()))
            ]
        );
        assert!(ledger.is_empty());
    }

    /// One channel as the client library runs it: returns wait in a list, and each confirm takes one.
    fn run(unroutable: &[bool], acks: &[usize], rounds: &[bool]) -> Vec<(u32, Answer)> {
        let mut ledger = Ledger::new();
        let mut waiting = VecDeque::new();
        for (number, _) in unroutable.iter().enumerate() {
            ledger.add(number.to_string(), u32::try_from(number).unwrap());
        }
        let mut decided = Vec::new();
        let mut returned = 0;
        for (step, &ack) in acks.iter().enumerate() {
            // The broker routes in order, so returns up to this message are on the wire before its ack.
            while returned <= ack {
                if unroutable[returned] {
                    waiting.push_back(returned.to_string());
                }
                returned += 1;
            }
            let carried: Option<String> = waiting.pop_front();
            ledger.report(
                ack as u64,
                true,
                carried.as_deref().map(|id| (id, "NO_ROUTE".to_owned())),
            );
            if rounds[step] {
                ledger.decide(|context, answer| decided.push((context, answer)));
            }
        }
        ledger.decide(|context, answer| decided.push((context, answer)));
        assert!(ledger.is_empty(), "{ledger:?}");
        decided
    }

    proptest! {
        #[test]
        fn whatever_the_order_each_message_gets_its_own_answer(
            unroutable in prop::collection::vec(any::<bool>(), 1..40),
            seed in any::<u64>(),
            rounds in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut acks: Vec<usize> = (0..unroutable.len()).collect();
            let mut state = seed | 1;
            for i in (1..acks.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                acks.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
            }
            let mut decided = run(&unroutable, &acks, &rounds);
            decided.sort_by_key(|(context, _)| *context);
            prop_assert_eq!(decided.len(), unroutable.len());
            for (context, answer) in decided {
                let expected = if unroutable[context as usize] {
                    Answer::Returned("NO_ROUTE".into())
                } else {
                    Answer::Confirmed
                };
                prop_assert_eq!(answer, expected, "message {}", context);
            }
        }
    }
}
