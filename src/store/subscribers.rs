//! Subscribers in the store: changed one at a time, each change with a version of its own.

use jiff::Timestamp;
use tracing::info;

use super::{
    Opened, Store, StoreError,
    database::{Sql, Transaction, Value},
    definition::{Row, Written},
};
use crate::subscriber::{Subscriber, SubscriberId, Target, loading::Rules};

/// What the hooks of cases have in their ids.
const CASE_HOOK: &str = "case-";
const COLUMNS: &str = "id, enabled, definition, secrets, key_id, version";

/// Which values of a subscriber were given; the others follow the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Given {
    /// `timeout`
    pub timeout: bool,
    /// `max_in_flight`
    pub max_in_flight: bool,
}

/// What must hold for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// It is there, at this version (`If-Match: "<version>"`).
    Version(i64),
    /// It is there (`If-Match: *`).
    Exists,
    /// It is not there (`If-None-Match: *`).
    Absent,
}

impl Condition {
    fn holds_for(self, now: Option<i64>) -> Result<(), StoreError> {
        let holds = match self {
            Self::None => true,
            Self::Version(version) => now == Some(version),
            Self::Exists => now.is_some(),
            Self::Absent => now.is_none(),
        };
        if holds {
            Ok(())
        } else {
            Err(StoreError::Changed { now })
        }
    }
}

/// A change that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// The version that the subscriber has now. No version is ever used twice.
    pub version: i64,
    /// Whether it was not there before.
    pub created: bool,
}

/// A subscriber that was read, or why it cannot be.
pub type ReadSubscriber = Result<Subscriber, StoreError>;

impl Store {
    /// Makes or replaces a subscriber. `by` is the name of the token.
    pub async fn put_subscriber(
        &self,
        subscriber: &Subscriber,
        given: Given,
        condition: Condition,
        by: &str,
    ) -> Result<Saved, StoreError> {
        self.writing(async {
            let opened = self.opened()?;
            let id = subscriber.id.as_str();
            let written = Written::new(subscriber, given, &opened.keys)?;
            let hook_url = hook_url(opened, subscriber);
            let mut transaction = opened.database.begin().await?;
            let version = next_version(&mut transaction).await?;
            let now = version_of(&mut transaction, id).await?;
            condition.holds_for(now)?;
            let upsert = "INSERT INTO subscribers (id, enabled, definition, secrets, key_id, \
                hook_url, version, changed_at, changed_by) \
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                ON CONFLICT (id) DO UPDATE SET enabled = excluded.enabled, \
                definition = excluded.definition, secrets = excluded.secrets, \
                key_id = excluded.key_id, hook_url = excluded.hook_url, \
                version = excluded.version, changed_at = excluded.changed_at, \
                changed_by = excluded.changed_by";
            let sql = Sql::new(upsert)
                .value(id)
                .value(subscriber.enabled)
                .value(written.definition)
                .value(written.secrets)
                .value(opened.keys.id())
                .value(hook_url)
                .value(version)
                .value(Timestamp::now().as_microsecond())
                .value(by);
            transaction.change(sql).await?;
            transaction.commit().await?;
            Ok(Saved {
                version,
                created: now.is_none(),
            })
        })
        .await
    }

    /// Enables or disables a subscriber.
    pub async fn enable_subscriber(
        &self,
        id: &SubscriberId,
        enabled: bool,
        condition: Condition,
        by: &str,
    ) -> Result<Saved, StoreError> {
        self.writing(async {
            let opened = self.opened()?;
            let mut transaction = opened.database.begin().await?;
            let version = next_version(&mut transaction).await?;
            let now = version_of(&mut transaction, id.as_str()).await?;
            condition.holds_for(now)?;
            let sql = Sql::new(
                "UPDATE subscribers SET enabled = $1, version = $2, changed_at = $3, \
                 changed_by = $4 WHERE id = $5",
            )
            .value(enabled)
            .value(version)
            .value(Timestamp::now().as_microsecond())
            .value(by)
            .value(id.as_str());
            if transaction.change(sql).await? == 0 {
                return Err(StoreError::Missing);
            }
            transaction.commit().await?;
            Ok(Saved {
                version,
                created: false,
            })
        })
        .await
    }

    /// Removes a subscriber.
    pub async fn delete_subscriber(
        &self,
        id: &SubscriberId,
        condition: Condition,
    ) -> Result<(), StoreError> {
        self.writing(async {
            let opened = self.opened()?;
            let mut transaction = opened.database.begin().await?;
            next_version(&mut transaction).await?;
            let now = version_of(&mut transaction, id.as_str()).await?;
            condition.holds_for(now)?;
            let sql = Sql::new("DELETE FROM subscribers WHERE id = $1").value(id.as_str());
            if transaction.change(sql).await? == 0 {
                return Err(StoreError::Missing);
            }
            transaction.commit().await
        })
        .await
    }

    /// Up to `limit` subscribers behind the id `after`, in the order of their ids.
    pub async fn subscribers_after(
        &self,
        after: &str,
        limit: usize,
        rules: &Rules,
    ) -> Result<Vec<(String, ReadSubscriber)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let text = format!("SELECT {COLUMNS} FROM subscribers WHERE id > $1 ORDER BY id LIMIT $2");
        self.read(Sql::new(text).value(after).value(limit), rules)
            .await
    }

    /// Those of these subscribers that there are.
    pub(crate) async fn subscribers_with(
        &self,
        ids: &[SubscriberId],
        rules: &Rules,
    ) -> Result<Vec<(String, ReadSubscriber)>, StoreError> {
        let mut sql = Sql::new(format!("SELECT {COLUMNS} FROM subscribers WHERE id IN "));
        sql.bind_all(ids.iter().map(|id| Value::from(id.as_str())));
        self.read(sql, rules).await
    }

    async fn read(
        &self,
        sql: Sql,
        rules: &Rules,
    ) -> Result<Vec<(String, ReadSubscriber)>, StoreError> {
        self.reading(async {
            let opened = self.opened()?;
            let rows: Vec<Row> = opened.database.rows(sql).await?;
            let read = |row: Row| (row.id.clone(), row.read(&opened.keys, rules));
            Ok(rows.into_iter().map(read).collect())
        })
        .await
    }

    /// The ids and versions of up to `limit` subscribers behind the id `after`.
    pub(crate) async fn versions_after(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let text = "SELECT id, version FROM subscribers WHERE id > $1 ORDER BY id LIMIT $2";
        let sql = Sql::new(text).value(after).value(limit);
        self.reading(async { self.opened()?.database.rows(sql).await })
            .await
    }

    /// Encrypts with the first key what is encrypted with another, so that the other can go. Tells
    /// of how many subscribers. What cannot be read is left, and the error says why.
    pub async fn encrypt_anew(&self) -> Result<u64, StoreError> {
        let (mut done, mut failed) = (0, None);
        let mut after = Some(String::new());
        while let Some(id) = after.take() {
            let some = self
                .writing(async { encrypt_some_anew(self.opened()?, &id).await })
                .await?;
            done += some.done;
            failed = failed.or(some.failed);
            after = some.last;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if done > 0 {
            info!(
                subscribers = done,
                "secrets in the store are encrypted with the first key now; the second may be removed"
            );
        }
        Ok(done)
    }
}

/// What became of some subscribers that were to be encrypted anew.
#[derive(Default)]
struct Anew {
    done: u64,
    failed: Option<StoreError>,
    /// The last that was looked at; nothing if there was none.
    last: Option<String>,
}

/// Encrypts some anew behind the id `after`.
async fn encrypt_some_anew(opened: &Opened, after: &str) -> Result<Anew, StoreError> {
    let text = format!(
        "SELECT {COLUMNS} FROM subscribers WHERE key_id <> $1 AND secrets <> '' AND id > $2 \
         ORDER BY id LIMIT 200"
    );
    let sql = Sql::new(text).value(opened.keys.id()).value(after);
    let rows: Vec<Row> = opened.database.rows(sql).await?;
    let last = rows.last().map(|row| row.id.clone());
    if last.is_none() {
        return Ok(Anew::default());
    }
    let (mut done, mut failed) = (0, None);
    let mut transaction = opened.database.begin().await?;
    for row in &rows {
        let (secrets, url) = match row.encrypted_anew(&opened.keys) {
            Ok(anew) => anew,
            Err(error) => {
                failed = failed.or(Some(error));
                continue;
            }
        };
        let hook = url.filter(|_| row.id.starts_with(CASE_HOOK));
        let hook = hook.map(|url| opened.keys.hash(secrecy::ExposeSecret::expose_secret(&url)));
        // Not if it was changed since it was read.
        let sql = Sql::new(
            "UPDATE subscribers SET secrets = $1, key_id = $2, hook_url = $3 \
             WHERE id = $4 AND version = $5",
        )
        .value(secrets)
        .value(opened.keys.id())
        .value(hook)
        .value(row.id.as_str())
        .value(row.version);
        done += transaction.change(sql).await?;
    }
    transaction.commit().await?;
    Ok(Anew { done, failed, last })
}

/// Takes the next version. Whoever changes a subscriber begins with this, and so one after the other.
async fn next_version(transaction: &mut Transaction) -> Result<i64, StoreError> {
    let sql = Sql::new("UPDATE revision SET number = number + 1 RETURNING number");
    let row: Option<(i64,)> = transaction.row(sql).await?;
    row.map(|(number,)| number)
        .ok_or_else(|| StoreError::Unreadable("its table `revision` is empty".to_owned()))
}

async fn version_of(transaction: &mut Transaction, id: &str) -> Result<Option<i64>, StoreError> {
    let sql = Sql::new("SELECT version FROM subscribers WHERE id = $1").value(id);
    let row: Option<(i64,)> = transaction.row(sql).await?;
    Ok(row.map(|(version,)| version))
}

/// For the hook of a case, what no other case's hook may have.
fn hook_url(opened: &Opened, subscriber: &Subscriber) -> Option<Vec<u8>> {
    match &subscriber.target {
        Target::Http(target) if subscriber.id.as_str().starts_with(CASE_HOOK) => {
            Some(opened.keys.hash(target.url.as_str()))
        }
        Target::Http(_) | Target::Amqp(_) => None,
    }
}
