//! Which dead letters are meant, and where a list goes on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{database::Sql, dead_letters::Kind};

/// Which dead letters are meant: those for which everything given holds. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Only these; at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<i64>,
    /// Which queue they came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// To whom they were addressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<String>,
    /// The webhook type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Why they failed in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Failed then or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Failed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds its conditions to a statement on `dead_letters`; tells whether there are any.
    pub(super) fn push_where(&self, sql: &mut Sql) -> bool {
        let mut begun = false;
        let mut and = |sql: &mut Sql, condition: &str| {
            sql.push(if begun { " AND " } else { " WHERE " });
            sql.push(condition);
            begun = true;
        };
        if !self.ids.is_empty() {
            and(sql, "id IN ");
            sql.bind_all(self.ids.iter().copied());
        }
        if let Some(kind) = self.kind {
            and(sql, "kind = ");
            sql.bind(kind.as_str());
        }
        let texts = [
            ("subscriber = ", &self.subscriber),
            ("webhook = ", &self.webhook),
            ("reason = ", &self.reason),
        ];
        for (condition, text) in texts {
            if let Some(text) = text {
                and(sql, condition);
                // PostgreSQL takes no such text, and no dead letter has one.
                sql.bind(text.replace('\0', "\u{fffd}"));
            }
        }
        for (condition, time) in [("failed_at >= ", self.since), ("failed_at < ", self.until)] {
            if let Some(time) = time {
                and(sql, condition);
                sql.bind(time.as_microsecond());
            }
        }
        begun
    }
}

/// Where a list of dead letters goes on: after this one. Lists go from the latest failure back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Microseconds since 1970 at which it failed.
    pub failed_at: i64,
    /// Its id.
    pub id: i64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.failed_at, self.id)
    }
}

impl std::str::FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (failed_at, id) = text.rsplit_once('-').ok_or(NotACursor)?;
        Ok(Self {
            failed_at: failed_at.parse().map_err(|_| NotACursor)?,
            id: id.parse().map_err(|_| NotACursor)?,
        })
    }
}

/// A text that no list gave as its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor that a list has given")]
pub struct NotACursor;
