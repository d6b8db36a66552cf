//! Replays in the store: what is to be replayed, how far it is, and which bridge does it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::{
    Store, StoreError,
    database::Sql,
    dead_letters::{self, DeadLetter, time},
    filter::{Cursor, Filter},
};

/// How many subscribers are named whose dead letters are skipped.
const MOST_NAMED: usize = 100;
/// How long a bridge has a replay for itself without a sign of life, and how often it gives one.
const LEASE: Duration = Duration::from_secs(30);
pub(crate) const RENEWAL: Duration = Duration::from_secs(10);
/// Of one batch, how many dead letters, and how many bytes unless one is larger.
const BATCH: u32 = 200;
const BATCH_BYTES: i64 = 8 * 1024 * 1024;
const COLUMNS: &str = "id, filter, state, rate, began_by, began_at, ended_at, last_id, total, \
    replayed, skipped, trouble, at_failed, at_id";

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn, or is under way.
    Running,
    /// Everything was looked at.
    Done,
    /// Somebody stopped it.
    Stopped,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// Dead letters that a replay does not publish, by why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Skipped {
    /// Nobody has the subscriber's id any more.
    pub gone: u64,
    /// The subscriber is disabled.
    pub disabled: u64,
    /// What is no delivery, and no domain event either.
    pub unusable: u64,
    /// How many of the gone and the disabled by subscriber; at most 100 subscribers are named.
    pub subscribers: BTreeMap<String, u64>,
}

impl Skipped {
    /// Counts dead letters of a subscriber that is gone, or disabled.
    pub(crate) fn add(&mut self, subscriber: &str, gone: bool, count: u64) {
        *(if gone {
            &mut self.gone
        } else {
            &mut self.disabled
        }) += count;
        if let Some(named) = self.subscribers.get_mut(subscriber) {
            *named += count;
        } else if self.subscribers.len() < MOST_NAMED {
            self.subscribers.insert(subscriber.to_owned(), count);
        }
    }
}

/// A replay of many dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Its id.
    pub id: i64,
    /// What is replayed: of what this lets through, that which was in the store when the replay
    /// began and is not replayed yet.
    pub filter: Filter,
    /// How it stands.
    pub state: State,
    /// Who began it.
    pub by: String,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How many dead letters were meant when it began.
    pub total: u64,
    /// How many are published and confirmed.
    pub replayed: u64,
    /// How many are not published.
    pub skipped: Skipped,
    /// At most so many in a second.
    pub rate: u32,
    /// Why it does not go on just now, if it does not.
    pub trouble: Option<String>,
    /// The id of the last dead letter that is part of it.
    last_id: i64,
    /// Up to where it has looked.
    at: Cursor,
}

impl Replay {
    /// Up to where it has looked.
    pub(crate) fn position(&self) -> Cursor {
        self.at
    }
}

/// What a replay would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count {
    /// How many dead letters would be looked at.
    pub total: u64,
    /// How many of them would not be published.
    pub skipped: Skipped,
}

/// Dead letters that are replayed together, and where the replay then is.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) letters: Vec<(DeadLetter, Vec<u8>)>,
    pub(crate) at: Cursor,
}

/// A dead letter as a replay found it: `count` grows whenever the same fails once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: i64,
    pub(crate) count: i64,
}

impl From<&DeadLetter> for Seen {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            id: letter.id,
            count: letter.count,
        }
    }
}

/// How far a replay has come with a batch.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What was published and confirmed.
    pub(crate) replayed: Vec<Seen>,
    pub(crate) skipped: Skipped,
    pub(crate) at: Cursor,
}

#[derive(Debug, FromRow)]
struct Row {
    id: i64,
    filter: String,
    state: String,
    rate: i64,
    began_by: String,
    began_at: i64,
    ended_at: Option<i64>,
    last_id: i64,
    total: i64,
    replayed: i64,
    skipped: String,
    trouble: Option<String>,
    at_failed: i64,
    at_id: i64,
}

impl Row {
    fn read(self) -> Result<Replay, StoreError> {
        let wrong = |error: serde_json::Error| {
            StoreError::Unreadable(format!("the replay {}: {error}", self.id))
        };
        Ok(Replay {
            filter: serde_json::from_str(&self.filter).map_err(wrong)?,
            skipped: serde_json::from_str(&self.skipped).map_err(wrong)?,
            id: self.id,
            state: match self.state.as_str() {
                "running" => State::Running,
                "stopped" => State::Stopped,
                _ => State::Done,
            },
            by: self.began_by,
            began_at: time(self.began_at),
            ended_at: self.ended_at.map(time),
            total: u64::try_from(self.total).unwrap_or(0),
            replayed: u64::try_from(self.replayed).unwrap_or(0),
            rate: u32::try_from(self.rate).unwrap_or(1),
            trouble: self.trouble,
            last_id: self.last_id,
            at: Cursor {
                failed_at: self.at_failed,
                id: self.at_id,
            },
        })
    }
}

impl Store {
    /// Notes a replay that is to be done.
    pub(crate) async fn begin_replay(
        &self,
        filter: &Filter,
        rate: u32,
        by: &str,
    ) -> Result<Replay, StoreError> {
        let now = Timestamp::now();
        let mut counting = Sql::new("SELECT count(*) FROM dead_letters");
        open_ones(filter, now, &mut counting);
        let total = self.count(counting).await?;
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        let text = format!(
            "INSERT INTO replays (filter, state, rate, began_by, began_at, last_id, total, replayed, \
             skipped, at_failed, at_id, owned_until) VALUES ($1, 'running', $2, $3, $4, \
             (SELECT COALESCE(MAX(id), 0) FROM dead_letters), $5, 0, $6, $7, 0, 0) RETURNING {COLUMNS}"
        );
        let sql = Sql::new(text)
            .value(json(filter)?)
            .value(i64::from(rate))
            .value(by)
            .value(now.as_microsecond())
            .value(total)
            .value(json(&Skipped::default())?)
            .value(i64::MIN);
        let row: Option<Row> = self
            .writing(async {
                let open = self.opened()?;
                let mut transaction = open.database.begin().await?;
                let row = transaction.row(sql).await?;
                transaction.commit().await?;
                Ok(row)
            })
            .await?;
        row.ok_or(StoreError::Missing)?.read()
    }

    /// How many dead letters of each kind and subscriber a replay would look at.
    pub(crate) async fn count_replay(
        &self,
        filter: &Filter,
    ) -> Result<Vec<(String, Option<String>, i64)>, StoreError> {
        let mut sql = Sql::new("SELECT kind, subscriber, count(*) FROM dead_letters");
        open_ones(filter, Timestamp::now(), &mut sql);
        sql.push(" GROUP BY kind, subscriber");
        self.browsing(async { self.opened()?.database.rows(sql).await })
            .await
    }

    /// The latest replays, the last begun first.
    pub(crate) async fn replays(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Replay>, StoreError> {
        let text = format!("SELECT {COLUMNS} FROM replays WHERE id < $1 ORDER BY id DESC LIMIT $2");
        let sql = Sql::new(text)
            .value(before.unwrap_or(i64::MAX))
            .value(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Vec<Row> = self
            .browsing(async { self.opened()?.database.rows(sql).await })
            .await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// One replay.
    pub(crate) async fn replay(&self, id: i64) -> Result<Replay, StoreError> {
        let sql = Sql::new(format!("SELECT {COLUMNS} FROM replays WHERE id = $1")).value(id);
        let row: Option<Row> = self
            .reading(async { self.opened()?.database.row(sql).await })
            .await?;
        row.ok_or(StoreError::Missing)?.read()
    }

    /// Stops a replay, unless it has ended.
    pub(crate) async fn stop_replay(&self, id: i64) -> Result<(), StoreError> {
        let sql = Sql::new(
            "UPDATE replays SET state = 'stopped', ended_at = $1, trouble = NULL \
             WHERE id = $2 AND state = 'running'",
        )
        .value(Timestamp::now().as_microsecond())
        .value(id);
        self.writing(async { self.opened()?.database.change(sql).await })
            .await?;
        Ok(())
    }

    /// The replay whose turn it is, if no other bridge has it.
    pub(crate) async fn claim_replay(&self, owner: &str) -> Result<Option<Replay>, StoreError> {
        let first = "(SELECT MIN(id) FROM replays WHERE state = 'running')";
        let sql = Sql::new(format!("SELECT {COLUMNS} FROM replays WHERE id = {first}"));
        let waiting: Option<Row> = self
            .reading(async { self.opened()?.database.row(sql).await })
            .await?;
        let Some(waiting) = waiting else {
            return Ok(None);
        };
        let now = Timestamp::now().as_microsecond();
        let sql = Sql::new(
            "UPDATE replays SET owner = $1, owned_until = $2 \
             WHERE id = $3 AND state = 'running' AND (owner = $4 OR owned_until < $5)",
        )
        .value(owner)
        .value(now.saturating_add(lease()))
        .value(waiting.id)
        .value(owner)
        .value(now);
        let mine = self
            .writing(async { self.opened()?.database.change(sql).await })
            .await?;
        if mine == 0 {
            return Ok(None);
        }
        // As it is now that no other bridge goes on with it.
        self.replay(waiting.id).await.map(Some)
    }

    /// What a replay is to publish next; nothing when it has looked at everything.
    pub(crate) async fn replay_batch(&self, replay: &Replay) -> Result<Option<Batch>, StoreError> {
        let limit = replay.rate.clamp(1, BATCH);
        let mut sql =
            Sql::new("SELECT id, failed_at, CAST(length(payload) AS BIGINT) FROM dead_letters");
        open_ones(&replay.filter, replay.began_at, &mut sql);
        sql.push(" AND id <= ");
        sql.bind(replay.last_id);
        sql.push(" AND (failed_at, id) > ");
        sql.bind_all([replay.at.failed_at, replay.at.id]);
        sql.push(" ORDER BY failed_at, id LIMIT ");
        sql.bind(i64::from(limit));
        let found: Vec<(i64, i64, i64)> = self
            .reading(async { self.opened()?.database.rows(sql).await })
            .await?;
        let mut bytes = 0;
        let fitting = found.iter().take_while(|(_, _, length)| {
            let first = bytes == 0;
            bytes += length.max(&1);
            first || bytes <= BATCH_BYTES
        });
        let some: Vec<_> = fitting.collect();
        let Some((id, failed_at, _)) = some.last() else {
            return Ok(None);
        };
        let at = Cursor {
            failed_at: *failed_at,
            id: *id,
        };
        let text = format!(
            "SELECT {}, payload FROM dead_letters WHERE id IN ",
            dead_letters::COLUMNS
        );
        let mut sql = Sql::new(text);
        sql.bind_all(some.iter().map(|(id, _, _)| *id));
        sql.push(" ORDER BY failed_at, id");
        let rows: Vec<FullRow> = self
            .reading(async { self.opened()?.database.rows(sql).await })
            .await?;
        let letters = rows.into_iter().map(|row| (row.letter.into(), row.payload));
        Ok(Some(Batch {
            letters: letters.collect(),
            at,
        }))
    }

    /// Marks what was published, and how far the replay is. What has failed once more meanwhile, and is
    /// in the store already, stays open. Tells whether the replay is to go on: it may be stopped, or
    /// another bridge's by now.
    pub(crate) async fn replay_progress(
        &self,
        replay: &Replay,
        owner: &str,
        progress: &Progress,
    ) -> Result<bool, StoreError> {
        let now = Timestamp::now().as_microsecond();
        let mut skipped = replay.skipped.clone();
        skipped.merge(&progress.skipped);
        let count = i64::try_from(progress.replayed.len()).unwrap_or(i64::MAX);
        let advance = Sql::new(
            "UPDATE replays SET replayed = replayed + $1, skipped = $2, at_failed = $3, at_id = $4, \
             owned_until = $5, trouble = NULL WHERE id = $6 AND owner = $7",
        )
        .value(count)
        .value(json(&skipped)?)
        .value(progress.at.failed_at)
        .value(progress.at.id)
        .value(now.saturating_add(lease()))
        .value(replay.id)
        .value(owner);
        let mut mark =
            Sql::new("UPDATE dead_letters SET replayed_at = $1, replayed_by = $2 WHERE id IN ")
                .value(now)
                .value(replay.id);
        // By the id alone first: SQLite finds no row by a pair without looking at all of them.
        mark.bind_all(progress.replayed.iter().map(|seen| seen.id));
        mark.push(" AND (id, count) IN (VALUES ");
        for (index, seen) in progress.replayed.iter().enumerate() {
            if index > 0 {
                mark.push(", ");
            }
            mark.bind_all([seen.id, seen.count]);
        }
        mark.push(")");
        let state: Option<(String, Option<String>)> = self
            .writing(async {
                let open = self.opened()?;
                let mut transaction = open.database.begin().await?;
                // Also for a replay that is somebody else's by now: it was published.
                if !progress.replayed.is_empty() {
                    transaction.change(mark.clone()).await?;
                }
                transaction.change(advance.clone()).await?;
                let sql = Sql::new("SELECT state, owner FROM replays WHERE id = $1");
                let state = transaction.row(sql.value(replay.id)).await?;
                transaction.commit().await?;
                Ok(state)
            })
            .await?;
        Ok(state.is_some_and(|(state, of)| state == "running" && of.as_deref() == Some(owner)))
    }

    /// Has a replay stay this bridge's, however long a batch takes. With `trouble`, says why it does
    /// not go on just now.
    pub(crate) async fn renew_replay(
        &self,
        replay: &Replay,
        owner: &str,
        trouble: Option<&str>,
    ) -> Result<(), StoreError> {
        let until = Timestamp::now().as_microsecond().saturating_add(lease());
        let sql = Sql::new(
            "UPDATE replays SET trouble = COALESCE($1, trouble), owned_until = $2 \
             WHERE id = $3 AND owner = $4",
        )
        .value(trouble.map(str::to_owned))
        .value(until)
        .value(replay.id)
        .value(owner);
        self.writing(async { self.opened()?.database.change(sql).await })
            .await?;
        Ok(())
    }

    /// A replay has looked at everything.
    pub(crate) async fn replay_done(&self, replay: &Replay, owner: &str) -> Result<(), StoreError> {
        let sql = Sql::new(
            "UPDATE replays SET state = 'done', ended_at = $1, trouble = NULL \
             WHERE id = $2 AND owner = $3 AND state = 'running'",
        )
        .value(Timestamp::now().as_microsecond())
        .value(replay.id)
        .value(owner);
        self.writing(async { self.opened()?.database.change(sql).await })
            .await?;
        Ok(())
    }

    /// Leaves a replay to whoever comes next, because this bridge stops.
    pub(crate) async fn leave_replays(&self, owner: &str) -> Result<(), StoreError> {
        let sql = Sql::new("UPDATE replays SET owner = NULL, owned_until = 0 WHERE owner = $1");
        let sql = sql.value(owner);
        self.writing(async { self.opened()?.database.change(sql).await })
            .await?;
        Ok(())
    }
}

/// A dead letter and its payload.
#[derive(Debug, FromRow)]
struct FullRow {
    #[sqlx(flatten)]
    letter: dead_letters::Row,
    payload: Vec<u8>,
}

impl Skipped {
    fn merge(&mut self, other: &Self) {
        self.gone += other.gone;
        self.disabled += other.disabled;
        self.unusable += other.unusable;
        for (subscriber, count) in &other.subscribers {
            if let Some(named) = self.subscribers.get_mut(subscriber) {
                *named += count;
            } else if self.subscribers.len() < MOST_NAMED {
                self.subscribers.insert(subscriber.clone(), *count);
            }
        }
    }
}

/// What the filter lets through, had failed by then, and is not replayed yet. What fails again while
/// it is replayed does not become part of the same replay.
fn open_ones(filter: &Filter, by: Timestamp, sql: &mut Sql) {
    let begun = filter.push_where(sql);
    sql.push(if begun { " AND " } else { " WHERE " });
    sql.push("replayed_at IS NULL AND failed_at <= ");
    sql.bind(by.as_microsecond());
}

fn lease() -> i64 {
    i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX)
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

#[cfg(test)]
mod tests;
