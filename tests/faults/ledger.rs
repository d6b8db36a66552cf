//! What was published, and what arrived: every pair of an event and a subscriber, by webhook id.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::cast::{Who, entitled};
use crate::support::line::webhook_id;

/// The `source` of the events of [`crate::support::program::event`].
const SOURCE: &str = "/tests";

/// What publishers write where nothing may be copied from.
pub const FORGED: &str = "forged";

/// Whether something that a publisher wrote came through.
pub fn forged(text: &[u8]) -> bool {
    let word = FORGED.as_bytes();
    text.windows(word.len()).any(|window| window == word)
}

/// What the publisher knows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// On its way.
    Sent,
    /// Confirmed: nothing of it may be lost.
    Confirmed,
    /// The connection broke first: it is there, with everything that follows, or it is not.
    Uncertain,
}

#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub sent: Instant,
    pub state: State,
}

/// An attempt, seen from the subscriber.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub attempt: u8,
    pub at: Instant,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct Dead {
    /// `broker` where RabbitMQ moved it by itself.
    pub reason: String,
}

/// What is known of one delivery.
#[derive(Debug, Clone)]
pub struct Pair {
    pub event: usize,
    pub who: Who,
    pub arrivals: Vec<Arrival>,
    /// Whether an attempt was answered with a success.
    pub delivered: bool,
    pub dead: Vec<Dead>,
    /// How often it came into the queue `lost`.
    pub lost: usize,
}

impl Pair {
    /// Whether the promise is kept: it is somewhere.
    pub fn accounted(&self) -> bool {
        self.delivered || !self.dead.is_empty() || self.lost > 0
    }

    /// Whether anything was ever seen of it.
    pub fn seen(&self) -> bool {
        self.accounted() || !self.arrivals.is_empty()
    }
}

/// The book itself.
#[derive(Debug, Default)]
pub struct Book {
    pub events: Vec<Event>,
    pub pairs: HashMap<String, Pair>,
    /// Arrivals and dead letters that belong to no pair: each is a leak.
    pub strangers: Vec<String>,
    /// For each subscriber, when the newest event that it was delivered was sent.
    newest: HashMap<Who, Instant>,
    /// Who takes part besides the regular cast.
    guests: Vec<Who>,
}

impl Book {
    /// Who is entitled to the event of this number.
    fn entitled(&self, event: usize) -> Vec<Who> {
        entitled(event).chain(self.guests.iter().copied()).collect()
    }

    /// The deliveries that must be somewhere: those of events that were confirmed, or of which
    /// anything was seen.
    pub fn owed(&self) -> impl Iterator<Item = &Pair> {
        let mut taken_in = vec![false; self.events.len()];
        for pair in self.pairs.values() {
            let confirmed = self.events[pair.event].state == State::Confirmed;
            taken_in[pair.event] |= confirmed || pair.seen();
        }
        self.pairs.values().filter(move |pair| taken_in[pair.event])
    }
}

/// The book, shared by those who write into it.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Book>);

impl Ledger {
    /// A ledger of the regular cast and these guests.
    pub fn new(guests: Vec<Who>) -> Self {
        let book = Book {
            guests,
            ..Book::default()
        };
        Self(Mutex::new(book))
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    /// The next event, which is about to be sent; its id is its number.
    pub fn send(&self) -> usize {
        let mut book = self.book();
        let event = book.events.len();
        book.events.push(Event {
            sent: Instant::now(),
            state: State::Sent,
        });
        for who in book.entitled(event) {
            let id = webhook_id(SOURCE, &event.to_string(), who.id());
            let pair = Pair {
                event,
                who,
                arrivals: Vec::new(),
                delivered: false,
                dead: Vec::new(),
                lost: 0,
            };
            book.pairs.insert(id, pair);
        }
        event
    }

    pub fn set(&self, event: usize, state: State) {
        self.book().events[event].state = state;
    }

    /// An attempt arrived, and is answered with a success or not.
    pub fn arrived(&self, id: &str, attempt: u8, success: bool) {
        let at = Instant::now();
        let mut book = self.book();
        let Book {
            events,
            pairs,
            strangers,
            newest,
            ..
        } = &mut *book;
        let Some(pair) = pairs.get_mut(id) else {
            strangers.push(format!("{id} arrived"));
            return;
        };
        pair.arrivals.push(Arrival { attempt, at });
        pair.delivered |= success;
        if success {
            let sent = events[pair.event].sent;
            let newest = newest.entry(pair.who).or_insert(sent);
            *newest = sent.max(*newest);
        }
    }

    pub fn dead(&self, id: &str, reason: String) {
        self.note(id, "is dead", |pair| pair.dead.push(Dead { reason }));
    }

    /// It is in the queue `lost`.
    pub fn lost(&self, id: &str) {
        self.note(id, "is lost", |pair| pair.lost += 1);
    }

    /// A whole event is in the queue `lost`, and with it everything that would be made of it.
    pub fn lost_event(&self, body: &[u8]) {
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        let id = event["id"].as_str().unwrap_or("an event without an id");
        let number = id.parse().unwrap_or(usize::MAX);
        let entitled = self.book().entitled(number);
        for who in entitled {
            self.lost(&webhook_id(SOURCE, id, who.id()));
        }
    }

    fn note(&self, id: &str, what: &str, change: impl FnOnce(&mut Pair)) {
        let mut book = self.book();
        match book.pairs.get_mut(id) {
            Some(pair) => change(pair),
            None => book.strangers.push(format!("{id} {what}")),
        }
    }

    /// Something that nobody was to see.
    pub fn stranger(&self, what: String) {
        self.book().strangers.push(what);
    }

    /// How long the deliveries of events sent between these two took to arrive, from the shortest
    /// to the longest.
    pub fn latencies(&self, who: Who, from: Instant, to: Instant) -> Vec<Duration> {
        let book = self.book();
        let of = book.pairs.values().filter(|pair| pair.who == who);
        let mut took: Vec<_> = of
            .filter_map(|pair| {
                let sent = book.events[pair.event].sent;
                let first = pair.arrivals.first()?;
                (from < sent && sent < to).then(|| first.at - sent)
            })
            .collect();
        took.sort_unstable();
        took
    }

    /// The event of a webhook id, for those who answer by a plan.
    pub fn event_of(&self, id: &str) -> Option<usize> {
        self.book().pairs.get(id).map(|pair| pair.event)
    }

    /// Which of these have got nothing that was published after `since`.
    pub fn waiting(&self, of: &[Who], since: Instant) -> Vec<Who> {
        let book = self.book();
        let fresh = |who: &Who| book.newest.get(who).is_some_and(|sent| *sent > since);
        of.iter().copied().filter(|who| !fresh(who)).collect()
    }

    /// How many events were sent after `since`, and how many of them were confirmed.
    pub fn published_since(&self, since: Instant) -> (usize, usize) {
        let book = self.book();
        let sent = book.events.iter().filter(|event| event.sent > since);
        let confirmed = |event: &&Event| event.state == State::Confirmed;
        (sent.clone().count(), sent.filter(confirmed).count())
    }

    /// How many deliveries that are owed are nowhere yet.
    pub fn open(&self) -> usize {
        let book = self.book();
        book.owed().filter(|pair| !pair.accounted()).count()
    }
}
