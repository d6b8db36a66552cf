//! The page of the documentation that a run writes.

use std::time::Duration;

use super::{
    Findings, Row,
    case::{MOST_OFFERED, SECONDS, SHARE},
    crowd::{ACTIVE, LENGTH, RATE, SETTLE},
    plots, reading,
    series::What,
    tables,
};
use crate::{document::list, machine, report::thousands};

/// What is varied with events, its heading, and what stays the same.
const SECTIONS: [(What, &str, &str); 3] = [
    (What::Bytes, "Event size", "One bridge and one subscriber."),
    (
        What::FanOut,
        "Fan-out",
        "One bridge and events of 500 bytes, each for every subscriber.",
    ),
    (
        What::Bridges,
        "Bridges",
        "One subscriber and events of 500 bytes. Bridges with the same prefix share the work.",
    ),
];

/// The files of the page, by name.
pub(super) fn write(findings: &Findings, took: Duration) -> Vec<(&'static str, String)> {
    let mut sections = vec![
        "# Numbers for planning".to_owned(),
        introduction(took),
        "## How to read it".to_owned(),
        list(&reading::sentences(findings)),
    ];
    let pictures = plots::draw(findings);
    sections.extend(
        pictures
            .iter()
            .map(|(name, picture)| format!("![{}]({name})", picture.alt)),
    );
    for (what, heading, about) in SECTIONS {
        let rows = findings.rows.iter().filter(|row| row.series.what == what);
        let rows: Vec<&Row> = rows.collect();
        if !rows.is_empty() {
            sections.push(format!("## {heading}"));
            sections.push(about.to_owned());
            sections.push(tables::speeds(what, &rows));
            sections.extend(slow(&rows));
            sections.push("What RabbitMQ needs:".to_owned());
            sections.push(tables::needs(what, &rows));
        }
    }
    if !findings.crowds.is_empty() {
        sections.push("## Subscribers".to_owned());
        sections.push(format!(
            "One bridge, with its subscribers in a SQLite store. {} of them, or all where there are fewer, have an \
             endpoint each and get {} events of 500 bytes a second in turn; the others are hooks of one case each, \
             and get none.",
            thousands(f64::from(ACTIVE)),
            thousands(RATE),
        ));
        sections.push(tables::crowds(&findings.crowds));
    }
    sections.push("## How it is measured".to_owned());
    sections.push(method());
    sections.push("## Versions".to_owned());
    sections.push(list(&findings.versions));
    if !findings.missing.is_empty() {
        sections.push("## Not measured".to_owned());
        sections.push(list(&findings.missing));
    }
    let mut files = vec![("planning.md", sections.join("\n\n") + "\n")];
    files.extend(
        pictures
            .into_iter()
            .map(|(name, picture)| (name, picture.svg)),
    );
    files
}

/// What must be known of rows in which healthy subscribers did not keep up.
fn slow(rows: &[&Row]) -> Option<String> {
    let slow = rows.iter().filter(|row| row.slow > 0.0).map(|row| {
        let (value, to) = (thousands(row.value as f64), row.series.to.name());
        format!("{value} ({to}): {}", row.slow)
    });
    let slow: Vec<_> = slow.collect();
    (!slow.is_empty()).then(|| {
        format!(
            "So many subscribers counted as slow at the end, so that their deliveries went through the slow lanes, \
             which is what these rows show: {}.",
            slow.join("; ")
        )
    })
}

fn introduction(took: Duration) -> String {
    format!(
        "<!-- Written by `make planning`: change the benchmark, not this file. -->\n\n\
         What bridges deliver, how long that takes, and what they and RabbitMQ need for it. Every figure is from \
         one run of `make planning`, which took {} minutes, on {}. RabbitMQ, the bridges, the publisher and the \
         receivers share this machine. The figures are what was seen in that run, not promises: measure on your own \
         machines what you rely on. How the bridge compares with others is measured by `make bench`.",
        took.as_secs().div_ceil(60),
        machine::machine(),
    )
}

fn method() -> String {
    let [least, most] = SECONDS;
    list(&[
        "The released program with its built-in settings, each bridge a process of its own, on a private RabbitMQ node, \
         a new one for each kind of row. Messages are persistent, queues quorum queues on this one node, and \
         everything is confirmed."
            .to_owned(),
        "Deliveries per second: the events wait before the bridges begin, at the same moment. The rate is taken between \
         a tenth and nine tenths of the deliveries; the median of three rounds."
            .to_owned(),
        format!(
            "Latency: from the moment at which an event was due to be published to its arrival, with events at random \
             moments, at {:.0} % of the deliveries per second and at most {} events a second, for {least:.0} to {most:.0} \
             seconds. Where that is few events, the p99 is nearly the slowest of them.",
            SHARE * 100.0,
            thousands(MOST_OFFERED),
        ),
        "Processor time is user and system time of the process: of all bridges together between the same two moments as \
         the rate, and of RabbitMQ from the first event published until the last delivery, so that taking the events \
         in is part of it. Queues of subscribers are consumed as they fill, and that is part of RabbitMQ's, too."
            .to_owned(),
        "Memory is resident memory: of a bridge the most that it ever had, of RabbitMQ the most since the bridges were \
         ready, with the waiting events in it."
            .to_owned(),
        "Written to disk is what the system counts as written by RabbitMQ's process. What waits for \
         long is moved from RabbitMQ's log into files of the queue, and so written again."
            .to_owned(),
        "Connections and channels are the bridges' alone; queues are all, the subscribers' among them.".to_owned(),
        format!(
            "Subscribers: memory when ready is taken {} s after the bridge is ready, that under load is the most during \
             the {} s in which events come.",
            SETTLE.as_secs(),
            LENGTH.as_secs(),
        ),
    ])
}
