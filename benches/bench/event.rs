//! The event that everything is measured with: a status update of exactly 500 bytes, unless another
//! size is asked for, which carries the moment at which it was due to be published.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes of an event.
pub(crate) const BYTES: usize = 500;
/// Encloses the moment, in a field that reaches the subscriber.
const MARK: &[u8] = b"~~";
/// Digits of the moment.
const DIGITS: usize = 18;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds on the clock that every latency here is taken from.
pub(crate) fn now() -> u64 {
    at(Instant::now())
}

/// The same, of another moment.
pub(crate) fn at(moment: Instant) -> u64 {
    nanos(moment.saturating_duration_since(*EPOCH))
}

/// Nanoseconds of a duration.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An event about a case of this party, due at `due`. No two are the same.
pub(crate) fn body(due: u64, party: &str) -> Vec<u8> {
    sized(due, party, BYTES)
}

/// The same of exactly so many bytes, 500 at least.
pub(crate) fn sized(due: u64, party: &str, bytes: usize) -> Vec<u8> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let before = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"evt-{number:010}\",\"source\":\"/order-hub\",\
         \"type\":\"case.status.updated\",\"time\":\"2019-01-22T11:29:38.258Z\",\
         \"data\":{{\"case\":{{\"id\":\"a7afaf9-7c6e-4d0e-b756-16b4afa1382f\",\"parties\":[\"{party}\"]}},\
         \"status\":{{\"key\":\"final\",\"createdAt\":\"2019-01-22T11:29:38.258Z\",\
         \"updatedAt\":\"2019-01-22T11:29:38.258Z\",\"name\":\"~~{due:018}~~"
    );
    let after = b"\"}}}";
    let mut body = Vec::with_capacity(bytes);
    body.extend_from_slice(before.as_bytes());
    body.resize(bytes - after.len(), b'x');
    body.extend_from_slice(after);
    body
}

/// When the event was due that this is a copy or a webhook of.
pub(crate) fn due(body: &[u8]) -> Option<u64> {
    let start = find(body, MARK)? + MARK.len();
    let digits = body.get(start..start + DIGITS)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Where `needle` begins.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
