//! Puts dead letters into the store, many at a time and each once: what makes two of them the same
//! is a text of its own.
//!
//! A delivery is known by its webhook id and how often it was replayed; anything else by a hash of
//! its kind, message id and body. The same again, because a bridge crashed between the insert and the
//! acknowledgement, changes nothing: the broker says that it has delivered it before, and it failed no
//! later than what is there. Any other that failed at another time is the same once more: it is
//! counted, and open again if it was replayed.

use std::collections::HashMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    Store, StoreError,
    database::{Sql, Value},
    dead_letters::Kind,
};

/// Values of one row, and rows of one statement: SQLite takes 32,766 values.
const COLUMNS: &str = "same, kind, webhook_id, replay, subscriber, webhook, case_id, reason, detail, \
    attempts, first_reason, first_detail, event_time, received_at, failed_at, archived_at, count, \
    routing_key, traceparent, payload";
const ROWS: usize = 500;
/// What the payloads of one statement may weigh.
const BYTES: usize = 8 * 1024 * 1024;
const AGAIN: &str = " ON CONFLICT (same) DO UPDATE SET count = dead_letters.count + excluded.count, \
    kind = excluded.kind, reason = excluded.reason, detail = excluded.detail, \
    attempts = excluded.attempts, first_reason = excluded.first_reason, \
    first_detail = excluded.first_detail, archived_at = excluded.archived_at, \
    routing_key = excluded.routing_key, replayed_at = NULL, replayed_by = NULL, \
    failed_at = CASE WHEN excluded.failed_at > dead_letters.failed_at \
    THEN excluded.failed_at ELSE dead_letters.failed_at END WHERE excluded.failed_at ";
/// What is the same once more, among letters that may have been put in before,
const LATER: &str = "> dead_letters.failed_at";
/// and among those that cannot: they come in any order, from several batches of several bridges.
const OTHER: &str = "<> dead_letters.failed_at";

/// A dead letter that is to be put into the store.
#[derive(Debug, Clone)]
pub struct NewDeadLetter {
    /// Which queue it comes from.
    pub kind: Kind,
    /// The AMQP `message_id`, or nothing.
    pub message_id: String,
    /// The webhook id, if it is a delivery.
    pub webhook_id: Option<String>,
    /// How often it was replayed.
    pub replay: i64,
    /// To whom it was addressed.
    pub subscriber: Option<String>,
    /// The webhook type.
    pub webhook: Option<String>,
    /// The case.
    pub case: Option<String>,
    /// Why it failed in the end.
    pub reason: String,
    /// One line about that.
    pub detail: String,
    /// The attempt that it ended on.
    pub attempts: Option<i64>,
    /// Why the first attempt failed, if another followed.
    pub first_reason: Option<String>,
    /// One line about that.
    pub first_detail: Option<String>,
    /// When the domain event happened.
    pub event_time: Option<Timestamp>,
    /// When it reached the bridge.
    pub received_at: Option<Timestamp>,
    /// When it failed for good.
    pub failed_at: Timestamp,
    /// The key that it was published with.
    pub routing_key: String,
    /// Whether the broker has delivered it before: then it may be in the store already.
    pub redelivered: bool,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The payload, or the rejected event.
    pub payload: Vec<u8>,
}

impl NewDeadLetter {
    fn same(&self) -> String {
        if let Some(webhook_id) = &self.webhook_id {
            return format!("{webhook_id}:{}", self.replay);
        }
        let mut hash = Sha256::new();
        for part in [self.kind.as_str().as_bytes(), self.message_id.as_bytes()] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(&self.payload);
        super::hex(&hash.finalize())
    }

    fn values(self, same: String, count: i64, now: Timestamp) -> [Value; 20] {
        let time = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond).into();
        // An index of PostgreSQL takes no more than 2,704 bytes.
        let name = |name: Option<String>| name.map(|name| clean(name, 255)).into();
        [
            same.into(),
            self.kind.as_str().into(),
            name(self.webhook_id),
            self.replay.into(),
            name(self.subscriber),
            name(self.webhook),
            name(self.case),
            clean(self.reason, 64).into(),
            clean(self.detail, 2_000).into(),
            self.attempts.into(),
            name(self.first_reason),
            self.first_detail.map(|text| clean(text, 2_000)).into(),
            time(self.event_time),
            time(self.received_at),
            self.failed_at.as_microsecond().into(),
            now.as_microsecond().into(),
            count.into(),
            clean(self.routing_key, 255).into(),
            name(self.traceparent),
            self.payload.into(),
        ]
    }
}

impl Store {
    /// Puts dead letters into the store, all of them or none. They are safe when this returns.
    pub async fn archive(&self, letters: Vec<NewDeadLetter>) -> Result<(), StoreError> {
        let statements = statements(letters, Timestamp::now());
        self.writing(async {
            let open = self.opened()?;
            let mut transaction = open.database.begin().await?;
            for statement in statements {
                transaction.change(statement).await?;
            }
            transaction.commit().await
        })
        .await
    }
}

/// The statements that put these in, in the order of what makes them the same: two bridges that
/// hold each other's rows would wait for ever.
fn statements(letters: Vec<NewDeadLetter>, now: Timestamp) -> Vec<Sql> {
    // One that was not acknowledged comes with others that were not.
    let once_more = if letters.iter().any(|letter| letter.redelivered) {
        LATER
    } else {
        OTHER
    };
    let finish = |sql: &mut Sql| {
        sql.push(AGAIN);
        sql.push(once_more);
        std::mem::take(sql)
    };
    // No statement may have the same row twice.
    let mut once: HashMap<String, (NewDeadLetter, i64)> = HashMap::with_capacity(letters.len());
    for letter in letters {
        let same = letter.same();
        match once.get_mut(&same) {
            None => {
                once.insert(same, (letter, 1));
            }
            Some((known, count)) => {
                if letter.failed_at != known.failed_at {
                    *count += 1;
                }
                if letter.failed_at > known.failed_at {
                    *known = letter;
                }
            }
        }
    }
    let mut rows: Vec<_> = once.into_iter().collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let mut statements = Vec::new();
    let (mut sql, mut count, mut bytes) = (Sql::default(), 0, 0);
    for (same, (letter, times)) in rows {
        let weight = letter.payload.len();
        if count == ROWS || count > 0 && bytes + weight > BYTES {
            statements.push(finish(&mut sql));
            (count, bytes) = (0, 0);
        }
        if count == 0 {
            sql.push(&format!("INSERT INTO dead_letters ({COLUMNS}) VALUES "));
        } else {
            sql.push(", ");
        }
        sql.bind_all(letter.values(same, times, now));
        count += 1;
        bytes += weight;
    }
    if count > 0 {
        statements.push(finish(&mut sql));
    }
    statements
}

/// The text without the one character that PostgreSQL does not take, and no longer than this: what
/// the store refuses would be offered to it for ever.
fn clean(text: String, longest: usize) -> String {
    let mut text = if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    };
    if text.len() > longest {
        let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}
