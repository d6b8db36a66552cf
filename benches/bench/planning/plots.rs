//! The plots of the page.

use super::{
    Findings, Row,
    series::{Series, What},
    tables::micros,
};
use crate::{
    plot::{self, Bar, Group},
    report::thousands,
};

/// A plot.
pub(super) struct Picture {
    /// What it shows, for whoever does not see it.
    pub(super) alt: &'static str,
    pub(super) svg: String,
}

/// Those of which something was measured, by the names of their files.
pub(super) fn draw(findings: &Findings) -> Vec<(&'static str, Picture)> {
    let pictures = [
        (
            "planning-throughput.svg",
            "Deliveries a second: more is better",
            groups(findings, |row| {
                let text = format!("{}/s", thousands(row.per_second));
                vec![bar(named(row), row.per_second, text, true)]
            }),
        ),
        (
            "planning-latency.svg",
            "Latency from due to arrived: less is better",
            groups(findings, |row| {
                let latencies = [
                    ("p50", row.latency.p50, true),
                    ("p99", row.latency.p99, false),
                ];
                let bars = latencies.map(|(name, millis, first)| {
                    let name = format!("{}, {name}", named(row));
                    bar(name, millis, format!("{millis:.1} ms"), first)
                });
                bars.to_vec()
            }),
        ),
        (
            "planning-rabbitmq.svg",
            "RabbitMQ's processor time for an event: less is better",
            groups(findings, |row| {
                let text = format!("{} µs", micros(row.broker.micros_each));
                vec![bar(named(row), row.broker.micros_each, text, true)]
            }),
        ),
        (
            "planning-memory.svg",
            "Memory of a bridge, by subscribers",
            crowds(findings),
        ),
    ];
    pictures
        .into_iter()
        .filter(|(_, _, groups)| !groups.is_empty())
        .map(|(name, alt, groups)| {
            let svg = plot::svg(alt, &groups);
            (name, Picture { alt, svg })
        })
        .collect()
}

/// A group for each series, with the bars of its rows.
fn groups(findings: &Findings, bars: impl Fn(&Row) -> Vec<Bar>) -> Vec<Group> {
    let groups = Series::ALL.into_iter().map(|series| {
        let rows = findings.rows.iter().filter(|row| row.series == series);
        Group {
            title: format!("{}, by {}", series.to.name(), series.what.name()),
            bars: rows.flat_map(&bars).collect(),
        }
    });
    groups.filter(|group| !group.bars.is_empty()).collect()
}

fn crowds(findings: &Findings) -> Vec<Group> {
    let states = [("when ready", true), ("under load, at most", false)];
    let groups = states.map(|(state, ready)| Group {
        title: state.to_owned(),
        bars: findings
            .crowds
            .iter()
            .map(|crowd| {
                let memory = if ready { crowd.idle } else { crowd.busy };
                let name = format!("{} subscribers", thousands(f64::from(crowd.subscribers)));
                bar(name, memory, format!("{memory:.0} MiB"), true)
            })
            .collect(),
    });
    let mut groups = groups.to_vec();
    groups.retain(|group| !group.bars.is_empty());
    groups
}

fn named(row: &Row) -> String {
    let value = thousands(row.value as f64);
    match (row.series.what, row.value) {
        (What::Bytes, _) => format!("{value} bytes"),
        (What::Bridges, 1) => "1 bridge".to_owned(),
        (What::Bridges, _) => format!("{value} bridges"),
        (_, 1) => "1 subscriber".to_owned(),
        _ => format!("{value} subscribers"),
    }
}

fn bar(name: String, figure: f64, text: String, ours: bool) -> Bar {
    Bar {
        name,
        figure,
        text,
        ours,
    }
}
