//! The page of the documentation that a run writes.

use std::time::Duration;

use hookbridge::cli::demo::node::PrivateNode;

use crate::{machine, plot, report, report::Report};

const THROUGHPUT: &str = "benchmarks-throughput.svg";
const LATENCY: &str = "benchmarks-latency.svg";

/// The files of the page, by name.
pub(crate) fn write(
    report: &Report,
    node: &PrivateNode,
    took: Duration,
) -> Vec<(&'static str, String)> {
    let mut page = format!(
        "# Benchmarks\n\n\
         <!-- Written by `make bench`: change the benchmark, not this file. -->\n\n\
         Every figure is from one run of `make bench`, which took {} minutes, on {}. The machine is shared by \
         the broker, the bridge or its peer, the publisher and the receiver. Sides take turns, and what is \
         shown are medians. Events are 500 bytes, messages persistent, queues quorum queues, and everything \
         is confirmed.\n\n",
        took.as_secs().div_ceil(60),
        machine::machine(),
    );
    page += &report::table(&report.rows);
    page += "\n\n";
    if !report.throughput.is_empty() {
        page += &format!("![Throughput]({THROUGHPUT})\n\n");
    }
    if !report.latency.is_empty() {
        page += &format!("![Latency]({LATENCY})\n\n");
    }
    page += "## How it is measured\n\n";
    page += include_str!("method.md");
    for note in &report.notes {
        page += &format!("- {note}\n");
    }
    page += "\n## Versions\n\n";
    for version in machine::versions(node) {
        page += &format!("- {version}\n");
    }
    if !report.missing.is_empty() {
        page += "\n## Not measured\n\n";
        for missing in &report.missing {
            page += &format!("- {missing}\n");
        }
    }
    vec![
        ("benchmarks.md", page),
        (
            THROUGHPUT,
            plot::svg("Throughput: more is better", &report.throughput),
        ),
        (
            LATENCY,
            plot::svg(
                "Latency from due to arrived: less is better",
                &report.latency,
            ),
        ),
    ]
}
