//! How the demo looks: lines of at most 100 columns, in colour on a terminal.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use tokio::time::Duration;

use super::{
    arrival::{Arrival, Verdict},
    cast::CAST,
};

/// Where the demo is shown.
pub(super) struct Screen<'a, W> {
    out: &'a mut W,
    colour: bool,
}

/// How a piece of text looks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// Of no further account.
    Dim,
    /// A heading.
    Bold,
    /// As it should be.
    Good,
    /// Not as one would wish.
    Bad,
}

impl<'a, W: Write> Screen<'a, W> {
    /// A screen that writes to `out`, which is taken for standard output.
    pub(super) fn new(out: &'a mut W) -> Self {
        let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self { out, colour }
    }

    fn look(&self, look: Look, text: impl Display) -> String {
        if !self.colour {
            return text.to_string();
        }
        let code = match look {
            Look::Dim => 2,
            Look::Bold => 1,
            Look::Good => 32,
            Look::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A line of plain text.
    pub(super) fn say(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// An empty line and a heading.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        let text = self.look(Look::Bold, text);
        self.say(format_args!("\n{text}"))
    }

    /// A line of columns: each a text, its width, and whether it stands to the right.
    fn columns(&mut self, look: Look, columns: &[(&str, usize)]) -> io::Result<()> {
        let padded: Vec<_> = columns
            .iter()
            .map(|(text, width)| format!("{text:<width$}"))
            .collect();
        let line = self.look(look, padded.join("  ").trim_end());
        self.say(line)
    }

    /// Who takes part.
    pub(super) fn cast(&mut self) -> io::Result<()> {
        writeln!(self.out)?;
        self.columns(Look::Dim, &[("SUBSCRIBER", 13), ("OVER", 16), ("GETS", 0)])?;
        for member in &CAST {
            let line = format!(
                "{:<13}  {:<16}  {}",
                member.id,
                member.target.words(),
                member.about
            );
            self.say(line)?;
        }
        Ok(())
    }

    /// The heading of the table of arrivals.
    pub(super) fn arrivals(&mut self) -> io::Result<()> {
        writeln!(self.out)?;
        let line = format!(
            "{:<6}  {:<23}  {:<13}  {:<16}  {:>3}  {:>5}  {:<9}  ANSWER",
            "EVENT", "WEBHOOK", "SUBSCRIBER", "OVER", "TRY", "MS", "SIGNATURE"
        );
        let line = self.look(Look::Dim, line);
        self.say(line)
    }

    /// A row of the table of arrivals, and below it what is wrong. `event` is the id of the domain
    /// event, `took` the time since it was published.
    pub(super) fn arrival(
        &mut self,
        arrival: &Arrival,
        verdict: &Verdict,
        event: &str,
        took: Option<Duration>,
    ) -> io::Result<()> {
        let took = took.map_or_else(|| "–".to_owned(), |took| took.as_millis().to_string());
        let signature = if verdict.signed {
            self.look(Look::Good, format_args!("{:<9}", "verified"))
        } else {
            self.look(Look::Bad, format_args!("{:<9}", "WRONG"))
        };
        let answer = match arrival.status {
            Some(status) if arrival.taken() => self.look(Look::Good, status),
            Some(status) => self.look(Look::Bad, status),
            None => self.look(Look::Good, "taken"),
        };
        let line = format!(
            "{event:<6}  {:<23}  {:<13}  {:<16}  {:>3}  {took:>5}  {signature}  {answer}",
            arrival.header("webhook-type"),
            arrival.member.id,
            arrival.member.target.words(),
            arrival.attempt(),
        );
        self.say(line)?;
        for wrong in &verdict.wrong {
            let line = self.look(Look::Bad, format_args!("        {wrong}"));
            self.say(line)?;
        }
        Ok(())
    }

    /// An indented line: a label and what belongs to it.
    pub(super) fn entry(&mut self, label: &str, text: impl Display) -> io::Result<()> {
        let label = self.look(Look::Dim, format_args!("{label:<23}"));
        self.say(format_args!("  {label}  {text}"))
    }

    /// A row of the table of counts; a count that is wrong is marked.
    pub(super) fn count(&mut self, what: &str, cells: [&str; 3], right: bool) -> io::Result<()> {
        let [wanted, seen, told] = cells;
        let line = format!("  {what:<24}  {wanted:>8}  {seen:>4}  {told:>8}");
        let line = if right {
            line
        } else {
            self.look(Look::Bad, format_args!("{line}  WRONG"))
        };
        self.say(line)
    }

    /// The heading of the table of counts.
    pub(super) fn counts(&mut self) -> io::Result<()> {
        let line = format!(
            "  {:<24}  {:>8}  {:>4}  {:>8}",
            "", "EXPECTED", "SEEN", "/metrics"
        );
        let line = self.look(Look::Dim, line);
        self.say(line)
    }
}
