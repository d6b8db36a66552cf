//! Dead letters in the store: put there once each, listed, counted, removed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::{
    Store, StoreError,
    database::Sql,
    filter::{Cursor, Filter},
};

/// The most dead letters of one page.
const MOST: usize = 1_000;
/// How many a page usually has.
const PAGE: usize = 50;
/// How many other dead letters of its webhook are shown with one.
const RELATED: usize = 100;
/// How many are removed at a time.
const AT_ONCE: u64 = 1_000;

/// Which queue a dead letter came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A delivery that failed for good.
    Dead,
    /// A domain event that cannot be used.
    Rejected,
    /// What no queue took.
    Lost,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Dead, Self::Rejected, Self::Lost];

    /// The word for it, which is also the last part of its queue's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
        }
    }

    /// The kind with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A dead letter without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id in the store.
    pub id: i64,
    /// Which queue it came from.
    pub kind: Kind,
    /// The id that every attempt carried; absent for what is no delivery.
    pub webhook_id: Option<String>,
    /// 0, and one more at each replay.
    pub replay: i64,
    /// To whom it was addressed.
    pub subscriber: Option<String>,
    /// The webhook type.
    pub webhook: Option<String>,
    /// The case.
    pub case: Option<String>,
    /// Why it failed in the end: a delivery's or a rejection's reason, or `broker`.
    pub reason: String,
    /// One line about that for a person.
    pub detail: String,
    /// The attempt that it ended on; absent where none was made.
    pub attempts: Option<i64>,
    /// Why the first attempt failed, if the second is what `reason` tells.
    pub first_reason: Option<String>,
    /// One line about that.
    pub first_detail: Option<String>,
    /// When the domain event happened.
    pub event_time: Option<Timestamp>,
    /// When it reached the bridge.
    pub received_at: Option<Timestamp>,
    /// When it failed for good.
    pub failed_at: Timestamp,
    /// When it was put into the store.
    pub archived_at: Timestamp,
    /// How often the same came here.
    pub count: i64,
    /// The key that it was published with.
    pub routing_key: String,
    /// W3C trace context, if there was one.
    pub traceparent: Option<String>,
    /// How many bytes the payload has.
    pub payload_bytes: i64,
    /// When it was last replayed.
    pub replayed_at: Option<Timestamp>,
    /// By which replay.
    pub replayed_by: Option<i64>,
}

/// A dead letter with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterInFull {
    /// All but the payload.
    pub letter: DeadLetter,
    /// The payload, or the rejected event, byte for byte.
    pub payload: Vec<u8>,
    /// The other dead letters of the same webhook, the earliest first: each replay that failed again
    /// is one.
    pub related: Vec<DeadLetter>,
}

/// What was removed. It is done a part at a time, so there may be some although not all of it could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// How many.
    pub count: u64,
    /// Whether that is all, or why not.
    pub ended: Result<(), StoreError>,
}

/// A part of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the list goes on, if it does.
    pub next: Option<C>,
}

/// The columns of a [`Row`].
pub(super) const COLUMNS: &str = "id, kind, webhook_id, replay, subscriber, webhook, case_id, \
    reason, detail, attempts, first_reason, first_detail, event_time, received_at, failed_at, \
    archived_at, count, routing_key, traceparent, CAST(length(payload) AS BIGINT) AS payload_bytes, \
    replayed_at, replayed_by";

/// A dead letter as the database has it.
#[derive(Debug, FromRow)]
pub(super) struct Row {
    id: i64,
    kind: String,
    webhook_id: Option<String>,
    replay: i64,
    subscriber: Option<String>,
    webhook: Option<String>,
    case_id: Option<String>,
    reason: String,
    detail: String,
    attempts: Option<i64>,
    first_reason: Option<String>,
    first_detail: Option<String>,
    event_time: Option<i64>,
    received_at: Option<i64>,
    failed_at: i64,
    archived_at: i64,
    count: i64,
    routing_key: String,
    traceparent: Option<String>,
    payload_bytes: i64,
    replayed_at: Option<i64>,
    replayed_by: Option<i64>,
}

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            kind: Kind::from_name(&row.kind).unwrap_or(Kind::Lost),
            webhook_id: row.webhook_id,
            replay: row.replay,
            subscriber: row.subscriber,
            webhook: row.webhook,
            case: row.case_id,
            reason: row.reason,
            detail: row.detail,
            attempts: row.attempts,
            first_reason: row.first_reason,
            first_detail: row.first_detail,
            event_time: row.event_time.map(time),
            received_at: row.received_at.map(time),
            failed_at: time(row.failed_at),
            archived_at: time(row.archived_at),
            count: row.count,
            routing_key: row.routing_key,
            traceparent: row.traceparent,
            payload_bytes: row.payload_bytes,
            replayed_at: row.replayed_at.map(time),
            replayed_by: row.replayed_by,
        }
    }
}

/// Microseconds since 1970 as a time.
pub(super) fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Store {
    /// Dead letters, the latest failure first, at most `limit` (up to 1,000).
    pub async fn dead_letters(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter, Cursor>, StoreError> {
        let limit = limit.clamp(1, MOST);
        let sql = listing(filter, after, limit + 1);
        let rows: Vec<Row> = self
            .browsing(async { self.opened()?.database.rows(sql).await })
            .await?;
        let more = rows.len() > limit;
        let items: Vec<DeadLetter> = rows.into_iter().take(limit).map(DeadLetter::from).collect();
        let next = items.last().filter(|_| more).map(|last| Cursor {
            failed_at: last.failed_at.as_microsecond(),
            id: last.id,
        });
        Ok(Page { items, next })
    }

    /// How the database would look for a page of dead letters, line by line.
    pub async fn explain_dead_letters(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
    ) -> Result<Vec<String>, StoreError> {
        let sql = listing(filter, after, PAGE);
        self.browsing(async { self.opened()?.database.explain(sql).await })
            .await
    }

    /// One dead letter with its payload; [`StoreError::Missing`] if there is none.
    pub async fn dead_letter(&self, id: i64) -> Result<DeadLetterInFull, StoreError> {
        self.browsing(async {
            let open = self.opened()?;
            let text = format!("SELECT {COLUMNS} FROM dead_letters WHERE id = $1");
            let row: Option<Row> = open.database.row(Sql::new(text).value(id)).await?;
            let letter = DeadLetter::from(row.ok_or(StoreError::Missing)?);
            let sql = Sql::new("SELECT payload FROM dead_letters WHERE id = $1").value(id);
            let payload: Option<(Vec<u8>,)> = open.database.row(sql).await?;
            let (payload,) = payload.ok_or(StoreError::Missing)?;
            let related = match letter.webhook_id.clone() {
                None => Vec::new(),
                Some(webhook_id) => {
                    let text = format!(
                        "SELECT {COLUMNS} FROM dead_letters WHERE webhook_id = $1 AND id <> $2 \
                         ORDER BY replay, id LIMIT {RELATED}"
                    );
                    let sql = Sql::new(text).value(webhook_id).value(id);
                    let rows: Vec<Row> = open.database.rows(sql).await?;
                    rows.into_iter().map(DeadLetter::from).collect()
                }
            };
            Ok(DeadLetterInFull {
                letter,
                payload,
                related,
            })
        })
        .await
    }

    /// How many dead letters there are.
    pub async fn count_dead_letters(&self, filter: &Filter) -> Result<u64, StoreError> {
        let mut sql = Sql::new("SELECT count(*) FROM dead_letters");
        filter.push_where(&mut sql);
        self.count(sql).await
    }

    /// How many dead letters are not replayed yet.
    pub async fn open_dead_letters(&self) -> Result<u64, StoreError> {
        let text = "SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL";
        self.count(Sql::new(text)).await
    }

    /// Has the database look at what it holds, so that it finds dead letters by the best index.
    pub async fn analyse(&self) -> Result<(), StoreError> {
        self.writing(async { self.opened()?.database.analyse().await })
            .await
    }

    /// Removes dead letters. An empty filter is [`StoreError::NoFilter`].
    pub async fn delete_dead_letters(&self, filter: &Filter) -> Removed {
        if filter.is_empty() {
            return Removed {
                count: 0,
                ended: Err(StoreError::NoFilter),
            };
        }
        let mut some = Sql::new("SELECT id FROM dead_letters");
        filter.push_where(&mut some);
        self.delete_all(some).await
    }

    /// Removes the dead letters that were put into the store before `before`.
    pub async fn delete_older(&self, before: Timestamp) -> Removed {
        let some = Sql::new("SELECT id FROM dead_letters WHERE archived_at < $1");
        self.delete_all(some.value(before.as_microsecond())).await
    }

    /// Removes the dead letters whose ids a statement gives, so many at a time that others come
    /// between.
    async fn delete_all(&self, ids: Sql) -> Removed {
        let mut count = 0;
        loop {
            let Sql { text, values } = ids.clone();
            let text = format!("DELETE FROM dead_letters WHERE id IN ({text} LIMIT {AT_ONCE})");
            let sql = Sql { text, values };
            let some = self
                .writing(async { self.opened()?.database.change(sql).await })
                .await;
            count += some.as_ref().copied().unwrap_or(0);
            if !some.as_ref().is_ok_and(|some| *some == AT_ONCE) {
                let ended = some.map(drop);
                return Removed { count, ended };
            }
        }
    }

    pub(super) async fn count(&self, sql: Sql) -> Result<u64, StoreError> {
        let row: Option<(i64,)> = self
            .browsing(async { self.opened()?.database.row(sql).await })
            .await?;
        Ok(row.map_or(0, |(count,)| u64::try_from(count).unwrap_or(0)))
    }
}

/// A part of the list of dead letters.
fn listing(filter: &Filter, after: Option<Cursor>, limit: usize) -> Sql {
    let mut sql = Sql::new(format!("SELECT {COLUMNS} FROM dead_letters"));
    let begun = filter.push_where(&mut sql);
    if let Some(after) = after {
        sql.push(if begun { " AND " } else { " WHERE " });
        sql.push("(failed_at, id) < ");
        sql.bind_all([after.failed_at, after.id]);
    }
    sql.push(" ORDER BY failed_at DESC, id DESC LIMIT ");
    sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
    sql
}
