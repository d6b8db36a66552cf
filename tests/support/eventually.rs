//! Waiting for a condition instead of sleeping and hoping.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Long enough for anything that works, on a loaded machine too.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks until there is an answer, and returns it. Panics with `what` after `deadline`, even if a
/// question is never answered.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    let answer = timeout_at(until, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    });
    let answer = answer.await;
    answer.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}"))
}
