//! What a run says at its end: one line of a table, kept in `target/faults/<version of RabbitMQ>/`
//! for the documentation, and the details where something is wrong.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::account::Account;
use crate::support::program::Line;

/// The heads of the columns, in the order of [`Report::row`].
const COLUMNS: [&str; 13] = [
    "fault",
    "times",
    "events",
    "deliveries",
    "delivered",
    "dead",
    "in `lost`",
    "nowhere",
    "repeats",
    "unexplained",
    "early, late",
    "back after (median, most)",
    "log lines",
];
/// How much of what is wrong is printed.
const SHOWN: usize = 30;

/// One fault that was made and cleared.
#[derive(Debug)]
pub struct Recovery {
    /// From its clearing until everything worked again.
    pub took: Duration,
    /// What the bridges' logs said of it.
    pub lines: usize,
}

/// A finished run.
pub struct Report {
    pub name: &'static str,
    /// Of RabbitMQ.
    pub version: String,
    pub seed: u64,
    pub took: Duration,
    pub account: Account,
    pub interruptions: usize,
    pub recoveries: Vec<Recovery>,
    /// What the bridges said, in all.
    pub log: Vec<Line>,
    /// Figures of this run alone.
    pub notes: Vec<String>,
    /// What is wrong besides the account.
    pub wrong: Vec<String>,
    /// Whether retries must come when they are due.
    pub delays_promised: bool,
}

impl Report {
    /// [`Self::must_hold`], and nothing came twice, for whatever reason.
    #[track_caller]
    pub fn must_hold_without_repeats(self) {
        let repeats = self.account.repeats;
        self.must_hold();
        assert_eq!(repeats, 0, "nothing may come twice");
    }

    /// Prints the run, keeps its line of the table, and panics if a promise was broken.
    #[track_caller]
    pub fn must_hold(self) {
        self.keep();
        println!("{}", self.text());
        let account = &self.account;
        let mut delays = 0;
        if self.delays_promised {
            delays = account.early + account.late;
        }
        let broken =
            account.missing + account.unexplained + delays + account.misled + account.strangers;
        assert!(
            broken == 0 && self.wrong.is_empty(),
            "{}: seed {} breaks promises:\n{}\nThe bridge's last words, and all of them are in {}:\n{}",
            self.name,
            self.seed,
            self.details(),
            self.keep_log().display(),
            self.last_words(),
        );
    }

    fn text(&self) -> String {
        let mut text = format!(
            "\n{} (RabbitMQ {}, FAULTS_SEED={}, {:.0?})\n",
            self.name, self.version, self.seed, self.took
        );
        for (head, value) in COLUMNS.iter().zip(self.row()).skip(1) {
            let _ = writeln!(text, "  {head:26} {value}");
        }
        let _ = writeln!(
            text,
            "  uncertain {}, misled {}, dead twice {}, strangers {}",
            self.account.uncertain,
            self.account.misled,
            self.account.dead_twice,
            self.account.strangers
        );
        if let Some(most) = self.account.held_up.iter().max() {
            let count = self.account.held_up.len();
            let _ = writeln!(text, "  {count} retries held up, up to {most:.0?}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }

    fn row(&self) -> [String; 13] {
        let account = &self.account;
        let mut times: Vec<_> = self.recoveries.iter().map(|r| r.took).collect();
        times.sort_unstable();
        let back = match (times.get(times.len() / 2), times.last()) {
            (Some(median), Some(most)) => {
                format!("{:.1} s, {:.1} s", median.as_secs_f32(), most.as_secs_f32())
            }
            _ => "–".to_owned(),
        };
        let lines = self.recoveries.iter().map(|r| r.lines).max();
        [
            self.name.to_owned(),
            self.interruptions.to_string(),
            account.events.to_string(),
            account.pairs.to_string(),
            account.delivered.to_string(),
            account.dead.to_string(),
            account.astray.to_string(),
            account.missing.to_string(),
            account.repeats.to_string(),
            account.unexplained.to_string(),
            format!("{}, {}", account.early, account.late),
            back,
            lines.map_or_else(|| "–".to_owned(), |lines| format!("≤ {lines}")),
        ]
    }

    /// Keeps this run's line and log, and puts the table together from those of all runs.
    fn keep(&self) {
        let folder = folder().join(&self.version);
        fs::create_dir_all(folder.join("rows")).unwrap();
        let row = format!("| {} |\n", self.row().join(" | "));
        fs::write(folder.join("rows").join(self.name), row).unwrap();
        let mut rows: Vec<_> = fs::read_dir(folder.join("rows"))
            .unwrap()
            .map(|row| row.unwrap().path())
            .collect();
        rows.sort();
        let mut table = format!(
            "| {} |\n|{}\n",
            COLUMNS.join(" | "),
            " --- |".repeat(COLUMNS.len())
        );
        for row in rows {
            // Another test may be writing it.
            table += &fs::read_to_string(row).unwrap_or_default();
        }
        fs::write(folder.join("table.md"), table).unwrap();
    }

    /// Keeps everything that the bridges said: what a broken promise comes from may be far back.
    fn keep_log(&self) -> PathBuf {
        let path = folder()
            .join(&self.version)
            .join(self.name)
            .with_extension("log");
        let lines: Vec<_> = self.log.iter().map(|line| line.text.as_str()).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        path
    }

    fn details(&self) -> String {
        let wrong = self.wrong.iter().chain(&self.account.wrong);
        let shown: Vec<_> = wrong.take(SHOWN).map(String::as_str).collect();
        shown.join("\n")
    }

    fn last_words(&self) -> String {
        let from = self.log.len().saturating_sub(SHOWN * 2);
        let lines: Vec<_> = self.log[from..].iter().map(|l| l.text.as_str()).collect();
        lines.join("\n")
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../faults")
}
