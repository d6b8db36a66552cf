//! The tables of the page, in Markdown.

use super::{Crowd, Row, broker::Need, series::What};
use crate::report::thousands;

/// What passes and how fast, and what bridges need for it.
pub(super) fn speeds(what: What, rows: &[&Row]) -> String {
    let headings = [
        "to",
        what.heading(),
        "deliveries, per second",
        "latency p50, ms",
        "latency p99, ms",
        "latency at, events per second",
        "bridges' processor time, µs per delivery",
        "memory of a bridge at most, MiB",
    ];
    let cells = rows.iter().map(|row| {
        vec![
            row.series.to.name(),
            thousands(row.value as f64),
            thousands(row.per_second),
            format!("{:.1}", row.latency.p50),
            format!("{:.1}", row.latency.p99),
            thousands(row.offered),
            micros(row.micros_each),
            thousands(row.memory),
        ]
    });
    markdown(&headings, cells)
}

/// What RabbitMQ needs for it.
pub(super) fn needs(what: What, rows: &[&Row]) -> String {
    let mut headings = vec!["to", what.heading()];
    headings.extend(NEED);
    let cells = rows.iter().map(|row| {
        let mut cells = vec![row.series.to.name(), thousands(row.value as f64)];
        cells.extend(need(&row.broker));
        cells
    });
    markdown(&headings, cells)
}

/// What bridges and RabbitMQ need with many subscribers.
pub(super) fn crowds(crowds: &[Crowd]) -> String {
    let mut headings = vec![
        What::Subscribers.heading(),
        "ready after, s",
        "memory when ready, MiB",
        "memory under load at most, MiB",
        "the bridge's processor time, µs per event",
    ];
    let of_rabbitmq = NEED.map(|heading| format!("RabbitMQ: {heading}"));
    headings.extend(of_rabbitmq.iter().map(String::as_str));
    let cells = crowds.iter().map(|crowd| {
        let mut cells = vec![
            thousands(f64::from(crowd.subscribers)),
            format!("{:.2}", crowd.ready_after),
            thousands(crowd.idle),
            thousands(crowd.busy),
            micros(crowd.micros_each),
        ];
        cells.extend(need(&crowd.broker));
        cells
    });
    markdown(&headings, cells)
}

const NEED: [&str; 6] = [
    "processor time, µs per event",
    "memory at most, MiB",
    "written to disk, kB per event",
    "connections, count",
    "channels, count",
    "queues, count",
];

fn need(need: &Need) -> [String; 6] {
    [
        micros(need.micros_each),
        thousands(need.memory),
        kilobytes(need.written_each),
        need.connections.to_string(),
        need.channels.to_string(),
        need.queues.to_string(),
    ]
}

/// Microseconds, with a digit behind the point where there are few.
pub(super) fn micros(figure: f64) -> String {
    if figure < 100.0 {
        format!("{figure:.1}")
    } else {
        thousands(figure)
    }
}

fn kilobytes(bytes: f64) -> String {
    let figure = bytes / 1_000.0;
    if figure < 100.0 {
        format!("{figure:.2}")
    } else {
        thousands(figure)
    }
}

fn markdown(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    // Text to the left, figures to the right.
    let aligned = headings.iter().map(|heading| match *heading {
        "to" => "---".to_owned(),
        _ => "---:".to_owned(),
    });
    let mut lines = vec![
        line(
            headings
                .iter()
                .map(|heading| (*heading).to_owned())
                .collect(),
        ),
        line(aligned.collect()),
    ];
    lines.extend(rows.map(line));
    lines.join("\n")
}
