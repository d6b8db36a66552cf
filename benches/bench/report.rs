//! What was measured, as a table for people.

use std::fmt;

use crate::plot::Group;

/// Everything that a run found out.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What the table shows.
    pub(crate) rows: Vec<Row>,
    /// What the plot of throughput shows.
    pub(crate) throughput: Vec<Group>,
    /// What the plot of latency shows.
    pub(crate) latency: Vec<Group>,
    /// What is worth knowing besides.
    pub(crate) notes: Vec<String>,
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

/// One comparison.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// What the figures are.
    pub(crate) unit: Unit,
    /// Of the bridge.
    pub(crate) ours: f64,
    /// Of somebody else, or of the bridge otherwise.
    pub(crate) peer: Option<(String, f64)>,
    /// What is asked for.
    pub(crate) must: Must,
}

/// What a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Events or deliveries a second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Seconds.
    Seconds,
    /// MiB.
    Mebibytes,
    /// Of a hundred.
    Percent,
}

/// What a figure, or its ratio to the peer's, must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Must {
    /// The ratio, at least.
    Reach(f64),
    /// The ratio, at most.
    Stay(f64),
    /// The figure, at most.
    AtMost(f64),
    /// The figure, at least, or the ratio, at least.
    Either(f64, f64),
    /// Nothing: it is there to be known.
    Nothing,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer.as_ref()?;
        Some(self.ours / peer)
    }

    /// Whether it is as it must be.
    pub(crate) fn holds(&self) -> Option<bool> {
        let ratio = self.ratio();
        match self.must {
            Must::Reach(least) => Some(ratio? >= least),
            Must::Stay(most) => Some(ratio? <= most),
            Must::AtMost(most) => Some(self.ours <= most),
            Must::Either(figure, least) => Some(self.ours >= figure || ratio? >= least),
            Must::Nothing => None,
        }
    }

    fn cells(&self) -> [String; 6] {
        let unit = self.unit;
        let must = match self.must {
            Must::Reach(least) => format!("ratio ≥ {least}"),
            Must::Stay(most) => format!("ratio ≤ {most}"),
            Must::AtMost(most) => format!("≤ {}", unit.show(most)),
            Must::Either(figure, least) => format!("≥ {}, or ratio ≥ {least}", unit.show(figure)),
            Must::Nothing => "–".to_owned(),
        };
        let peer = self.peer.as_ref();
        [
            self.what.clone(),
            unit.show(self.ours),
            peer.map_or_else(
                || "–".to_owned(),
                |(name, figure)| format!("{} ({name})", unit.show(*figure)),
            ),
            self.ratio()
                .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            must,
            match self.holds() {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            }
            .to_owned(),
        ]
    }
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", thousands(figure)),
            Self::Milliseconds => format!("{figure:.1} ms"),
            Self::Microseconds => format!("{figure:.0} µs"),
            Self::Seconds => format!("{figure:.1} s"),
            Self::Mebibytes => format!("{figure:.0} MiB"),
            Self::Percent => format!("{figure:.1} %"),
        }
    }
}

/// A whole number with a comma at every three digits.
pub(crate) fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Report {
    /// Adds a row, and prints it.
    pub(crate) fn add(&mut self, row: Row) {
        println!("  {}", row.cells().join(" | ").replace("**", ""));
        self.rows.push(row);
    }

    /// Adds something worth knowing, and prints it.
    pub(crate) fn note(&mut self, note: String) {
        println!("  {note}");
        self.notes.push(note);
    }

    /// Adds something that could not be measured.
    pub(crate) fn miss(&mut self, what: String) {
        println!("  not measured: {what}");
        self.missing.push(what);
    }

    /// The rows that are not as they must be.
    pub(crate) fn fallen_short(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.holds() == Some(false))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [what, ours, peer, ratio, must, _] = self.cells();
        write!(
            f,
            "{what}: {ours}, beside {peer}: ratio {ratio}, must be {must}"
        )
    }
}

/// The table, in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| what | hookbridge | beside | ratio | must reach | reached |".to_owned(),
        "| --- | ---: | ---: | ---: | --- | --- |".to_owned(),
    ];
    lines.extend(
        rows.iter()
            .map(|row| format!("| {} |", row.cells().join(" | "))),
    );
    lines.join("\n")
}
