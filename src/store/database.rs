//! SQLite or PostgreSQL: the only place that knows which. The same statements go to both.

use std::{path::Path, time::Duration};

use secrecy::ExposeSecret;
use sqlx::{
    Arguments, AssertSqlSafe, ConnectOptions, Connection, FromRow, PgPool, Postgres, Sqlite,
    SqlitePool,
    migrate::Migrator,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};
use tracing::log::LevelFilter;

use super::StoreError;
use crate::settings::StorePlace;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a connection may take to be had.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process's lock; PostgreSQL gives up on a statement after
/// nearly the time that the store does.
const BUSY: Duration = Duration::from_secs(5);
const STATEMENT_MS: u32 = 9_000;
/// What PostgreSQL calls a statement that it gave up on.
const OUT_OF_TIME: &str = "57014";
/// Connections for those who read, however much; and in PostgreSQL for those who write.
const READERS: u32 = 5;
const WRITERS: u32 = 3;
/// A statement with more values than this is not kept prepared: it is as long as what is put in, so
/// hardly any comes twice, and megabytes each.
const MOST_KEPT: usize = 100;

/// The database, by its pools of connections: who reads much keeps nobody from writing.
pub(super) enum Database {
    /// One connection writes.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
    },
    Postgres {
        write: PgPool,
        read: PgPool,
    },
}

/// A statement with its values: `$1` is the first of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

/// A value of a statement.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Bytes(Option<Vec<u8>>),
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}

impl Sql {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            values: Vec::new(),
        }
    }

    /// Adds the value that the next `$n` stands for.
    pub(super) fn value(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Adds text.
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a value, and its `$n` to the text.
    pub(super) fn bind(&mut self, value: impl Into<Value>) {
        self.values.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
    }

    /// Adds values in parentheses, separated by commas.
    pub(super) fn bind_all<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) {
        self.push("(");
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
        self.push(")");
    }

    /// The same with `?` for `$1`, `$2` and so on, if these come in order. SQLite looks for the name of
    /// each value among all names, which takes a tenth of a second where there are ten thousand; `?`
    /// has none.
    fn nameless(self) -> Self {
        let mut text = String::with_capacity(self.text.len());
        let mut parts = self.text.split('$');
        text.push_str(parts.next().unwrap_or_default());
        for (index, part) in parts.enumerate() {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            if part[..part.len() - rest.len()].parse() != Ok(index + 1) {
                return self;
            }
            text.push('?');
            text.push_str(rest);
        }
        Self { text, ..self }
    }
}

/// What a row of either database can be read as.
pub(super) trait FromAnyRow:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> FromAnyRow for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// The values as the arguments of one of the databases.
macro_rules! arguments {
    ($values:expr, $arguments:ty) => {{
        let mut arguments = <$arguments>::default();
        for value in $values {
            match value {
                Value::Text(text) => arguments.add(text),
                Value::Number(number) => arguments.add(number),
                Value::Bytes(bytes) => arguments.add(bytes),
                Value::Flag(flag) => arguments.add(flag),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        arguments
    }};
}

/// The rows that a statement gives.
macro_rules! rows {
    ($database:ty, $arguments:ty, $sql:expr, $executor:expr) => {{
        let Sql { text, values } = $sql;
        let keep = values.len() <= MOST_KEPT;
        let arguments = arguments!(values, $arguments);
        sqlx::query_as_with::<$database, _, _>(AssertSqlSafe(text), arguments)
            .persistent(keep)
            .fetch_all($executor)
            .await?
    }};
}

/// How many rows a statement changed.
macro_rules! changed {
    ($database:ty, $arguments:ty, $sql:expr, $executor:expr) => {{
        let Sql { text, values } = $sql;
        let keep = values.len() <= MOST_KEPT;
        let arguments = arguments!(values, $arguments);
        sqlx::query_with::<$database, _>(AssertSqlSafe(text), arguments)
            .persistent(keep)
            .execute($executor)
            .await?
            .rows_affected()
    }};
}

impl Database {
    /// Connects, and makes the tables what this version needs.
    pub(super) async fn open(place: &StorePlace) -> Result<Self, StoreError> {
        match place {
            StorePlace::Sqlite(path) => Self::open_sqlite(path).await,
            StorePlace::Postgres(url) => {
                let options: PgConnectOptions = url
                    .expose_secret()
                    .parse()
                    .map_err(|error| failed(&error))?;
                let options = options
                    .application_name("hookbridge")
                    .log_statements(LevelFilter::Off)
                    .log_slow_statements(LevelFilter::Off, Duration::ZERO);
                let first = PgPoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(ACQUIRE);
                let first = first
                    .connect_with(options.clone())
                    .await
                    .map_err(|error| failed(&error))?;
                POSTGRES.run(&first).await.map_err(migrating)?;
                first.close().await;
                let limited = format!("SET statement_timeout = {STATEMENT_MS}");
                let pool = |connections| {
                    let limited = limited.clone();
                    PgPoolOptions::new()
                        .max_connections(connections)
                        .acquire_timeout(ACQUIRE)
                        .after_connect(move |connection, _| {
                            let limited = limited.clone();
                            Box::pin(async move {
                                sqlx::query(AssertSqlSafe(limited))
                                    .execute(connection)
                                    .await?;
                                Ok(())
                            })
                        })
                        .connect_lazy_with(options.clone())
                };
                let (write, read) = (pool(WRITERS), pool(READERS));
                Ok(Self::Postgres { write, read })
            }
        }
    }

    async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        make_private(path).await.map_err(|error| {
            StoreError::Away(format!("cannot make or open {}: {error}", path.display()))
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // What is committed is acknowledged to the broker, and must outlive a power cut.
            .synchronous(SqliteSynchronous::Full)
            // Enough to tell an index that finds a thousand from one that finds ten thousand.
            .pragma("analysis_limit", "20000")
            .busy_timeout(BUSY)
            .log_statements(LevelFilter::Off)
            .log_slow_statements(LevelFilter::Off, Duration::ZERO);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE)
                // On a full disk SQLite rolls back by itself, the library's own rollback fails, and
                // the connection counts as in a transaction for ever: another one is made.
                .before_acquire(|connection, _| {
                    let usable = !connection.is_in_transaction();
                    Box::pin(async move { Ok(usable) })
                })
                .connect_lazy_with(options.clone())
        };
        let (write, read) = (pool(1), pool(READERS));
        SQLITE.run(&write).await.map_err(migrating)?;
        Ok(Self::Sqlite { write, read })
    }

    /// The rows that a statement gives which changes nothing.
    pub(super) async fn rows<T: FromAnyRow>(&self, sql: Sql) -> Result<Vec<T>, StoreError> {
        self.read(sql).await.map_err(|error| failed(&error))
    }

    /// The first of [`Self::rows`].
    pub(super) async fn row<T: FromAnyRow>(&self, sql: Sql) -> Result<Option<T>, StoreError> {
        Ok(self.rows(sql).await?.pop())
    }

    async fn read<T: FromAnyRow>(&self, sql: Sql) -> Result<Vec<T>, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { read, .. } => rows!(Sqlite, SqliteArguments, sql.nameless(), read),
            Self::Postgres { read, .. } => rows!(Postgres, PgArguments, sql, read),
        })
    }

    /// Begins changes that are made together or not at all. Dropped, it is undone.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(match self {
            // A lock that is taken later may find that another process wrote meanwhile.
            Self::Sqlite { write, .. } => Transaction::Sqlite(
                write
                    .begin_with("BEGIN IMMEDIATE")
                    .await
                    .map_err(|error| unwritable(&error))?,
            ),
            Self::Postgres { write, .. } => {
                Transaction::Postgres(write.begin().await.map_err(|error| unwritable(&error))?)
            }
        })
    }

    /// Makes one change; tells how many rows it concerned.
    pub(super) async fn change(&self, sql: Sql) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let changed = transaction.change(sql).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Makes a change that changes nothing: a database that is full can still be read.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let sql = Sql::new("UPDATE revision SET number = number");
        self.change(sql).await.map(drop)
    }

    /// Whether anything in it is encrypted.
    pub(super) async fn has_secrets(&self) -> Result<bool, StoreError> {
        let sql = Sql::new("SELECT id FROM subscribers WHERE secrets <> '' LIMIT 1");
        let found: Option<(String,)> = self.row(sql).await?;
        Ok(found.is_some())
    }

    /// How it would do what a statement asks for.
    pub(super) async fn explain(&self, sql: Sql) -> Result<Vec<String>, StoreError> {
        let prefixed = |prefix: &str| Sql {
            text: format!("{prefix} {}", sql.text),
            values: sql.values.clone(),
        };
        match self {
            Self::Sqlite { .. } => {
                let steps: Vec<(i64, i64, i64, String)> =
                    self.rows(prefixed("EXPLAIN QUERY PLAN")).await?;
                Ok(steps.into_iter().map(|(_, _, _, step)| step).collect())
            }
            Self::Postgres { .. } => {
                let steps: Vec<(String,)> = self.rows(prefixed("EXPLAIN")).await?;
                Ok(steps.into_iter().map(|(step,)| step).collect())
            }
        }
    }

    /// Has the database count what it holds, so that it picks the index that finds the fewest.
    pub(super) async fn analyse(&self) -> Result<(), StoreError> {
        let sql = Sql::new("ANALYZE dead_letters");
        self.change(sql).await.map(drop)
    }
}

/// Changes that are made together or not at all.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    /// The rows that a statement gives.
    pub(super) async fn rows<T: FromAnyRow>(&mut self, sql: Sql) -> Result<Vec<T>, StoreError> {
        self.fetch(sql).await.map_err(|error| failed(&error))
    }

    /// The first of [`Self::rows`].
    pub(super) async fn row<T: FromAnyRow>(&mut self, sql: Sql) -> Result<Option<T>, StoreError> {
        Ok(self.rows(sql).await?.pop())
    }

    async fn fetch<T: FromAnyRow>(&mut self, sql: Sql) -> Result<Vec<T>, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(open) => rows!(Sqlite, SqliteArguments, sql.nameless(), &mut **open),
            Self::Postgres(open) => rows!(Postgres, PgArguments, sql, &mut **open),
        })
    }

    /// Makes a change; tells how many rows it concerned. One that gives two cases' hooks the same URL
    /// is [`StoreError::UrlTaken`]: nothing else that must be unique can be given twice.
    pub(super) async fn change(&mut self, sql: Sql) -> Result<u64, StoreError> {
        self.execute(sql).await.map_err(|error| failed(&error))
    }

    async fn execute(&mut self, sql: Sql) -> Result<u64, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(open) => changed!(Sqlite, SqliteArguments, sql.nameless(), &mut **open),
            Self::Postgres(open) => changed!(Postgres, PgArguments, sql, &mut **open),
        })
    }

    /// Makes the changes last.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(open) => open.commit().await,
            Self::Postgres(open) => open.commit().await,
        }
        .map_err(|error| failed(&error))
    }
}

/// Makes the file for its owner alone, if there is none: payloads are nobody else's business.
/// SQLite gives the files beside it the same permissions.
async fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path).await.map(drop)
}

/// Why no change can begin. Readers take no connection from writers, so where none can be had, the
/// database is at fault.
fn unwritable(error: &sqlx::Error) -> StoreError {
    failed(error).or_away()
}

fn failed(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(database) if database.is_unique_violation() => StoreError::UrlTaken,
        sqlx::Error::Database(database) if database.code().as_deref() == Some(OUT_OF_TIME) => {
            StoreError::Busy("it was not done in time".to_owned())
        }
        sqlx::Error::PoolTimedOut => {
            StoreError::Busy("no connection to it could be had in time".to_owned())
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            StoreError::Unreadable(error.to_string())
        }
        _ => StoreError::Away(error.to_string()),
    }
}

fn migrating(error: sqlx::migrate::MigrateError) -> StoreError {
    use sqlx::migrate::MigrateError;
    match error {
        MigrateError::VersionMissing(version) => StoreError::Unreadable(format!(
            "a newer hookbridge has changed its tables (migration {version}): use that one"
        )),
        MigrateError::Execute(error) => failed(&error),
        error => StoreError::Away(format!("its tables cannot be brought up to date: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_order_need_no_names() {
        let nameless = |text: &str| Sql::new(text).nameless().text;
        assert_eq!(nameless("SELECT 1"), "SELECT 1");
        assert_eq!(
            nameless("a = $1 AND b IN ($2, $3) LIMIT $4"),
            "a = ? AND b IN (?, ?) LIMIT ?"
        );
        for other in ["a = $2 AND b = $1", "a = $1 OR b = $1", "a = $", "a = $$1"] {
            assert_eq!(nameless(other), other);
        }
    }
}
