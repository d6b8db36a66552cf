//! How many requests the API takes: so many a second for each token, and fewer for all that carry
//! none that is known.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::http::{StatusCode, header};
use tokio::time::Instant;

use super::{auth::Caller, problem::Problem};

/// A second, and at once, for each token.
const KNOWN: Rate = Rate {
    a_second: 200.0,
    at_once: 400.0,
};
/// The same for everyone without one together.
const UNKNOWN: Rate = Rate {
    a_second: 20.0,
    at_once: 40.0,
};

#[derive(Debug, Clone, Copy)]
struct Rate {
    a_second: f64,
    at_once: f64,
}

/// Counts requests. There are as many counts as tokens, and one more.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<Option<String>, Left>>);

/// What may still come at once, as it was at that time.
#[derive(Debug)]
struct Left {
    requests: f64,
    since: Instant,
}

impl Rates {
    /// Takes a request of this caller, or says that there are too many.
    pub(super) fn take(&self, caller: Option<&Caller>) -> Result<(), Problem> {
        let (rate, name) = match caller {
            Some(caller) => (KNOWN, Some(caller.name.clone())),
            None => (UNKNOWN, None),
        };
        let now = Instant::now();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = counts.entry(name).or_insert(Left {
            requests: rate.at_once,
            since: now,
        });
        let passed = now.duration_since(left.since).as_secs_f64();
        left.requests = (left.requests + passed * rate.a_second).min(rate.at_once);
        left.since = now;
        if left.requests < 1.0 {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-requests",
                "Too many requests",
                format!(
                    "more than {} requests a second: wait a second",
                    rate.a_second
                ),
            )
            .with_header(header::RETRY_AFTER, "1"));
        }
        left.requests -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::Role;

    #[tokio::test(start_paused = true)]
    async fn each_token_has_its_own_count_and_strangers_share_one() {
        let rates = Rates::default();
        let caller = |name: &str| Caller {
            name: name.to_owned(),
            role: Role::Viewer,
        };
        let taken = |who: Option<&Caller>| (0..1000).filter(|_| rates.take(who).is_ok()).count();
        assert_eq!(taken(Some(&caller("one"))), 400);
        assert_eq!(taken(None), 40);
        assert_eq!(taken(Some(&caller("two"))), 400);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(taken(Some(&caller("one"))), 100);
        assert_eq!(taken(None), 10);
    }
}
