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
    let about = format!(
        "<!-- Written by `make bench`: change the benchmark, not this file. -->\n\n\
         Every figure is from one run of `make bench`, which took {} minutes, on {}. The machine is shared by \
         the broker, the bridge or its peer, the publisher and the receiver. Sides take turns, and what is \
         shown are medians. Events are 500 bytes, messages persistent, queues quorum queues, and everything \
         is confirmed.",
        took.as_secs().div_ceil(60),
        machine::machine(),
    );
    let mut sections = vec![
        "# Benchmarks".to_owned(),
        about,
        report::table(&report.rows),
    ];
    let plots = [
        ("Throughput", THROUGHPUT, &report.throughput),
        ("Latency", LATENCY, &report.latency),
    ];
    let shown = plots.iter().filter(|(_, _, groups)| !groups.is_empty());
    sections.extend(shown.map(|(name, file, _)| format!("![{name}]({file})")));
    sections.push("## How it is measured".to_owned());
    sections.push(include_str!("method.md").to_owned() + &list(&report.notes));
    sections.push("## Versions".to_owned());
    sections.push(list(&machine::versions(node)));
    if !report.missing.is_empty() {
        sections.push("## Not measured".to_owned());
        sections.push(list(&report.missing));
    }
    let page = sections.join("\n\n") + "\n";
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

fn list(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("- {item}")).collect();
    items.join("\n")
}
