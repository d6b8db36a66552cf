//! The endpoint of the crash loop, which hangs until everything is over.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::support::http::Arrival;

/// What came to it.
#[derive(Default)]
pub struct Endpoint {
    /// Whether it answers; until then it hangs.
    pub well: AtomicBool,
    /// Requests since the last crash.
    pub held: AtomicUsize,
    /// The attempt of each request and whether it was answered, by webhook id.
    pub requests: Mutex<HashMap<String, Vec<(String, bool)>>>,
}

impl Endpoint {
    pub fn note(&self, arrival: &Arrival, answered: bool) {
        let header = |name| arrival.header(name).unwrap_or_default().to_owned();
        self.held.fetch_add(1, Ordering::Relaxed);
        let mut requests = self.requests.lock().unwrap();
        let of = requests.entry(header("webhook-id")).or_default();
        of.push((header("webhook-attempt"), answered));
    }
}
