//! The page of the documentation that a run writes.

use std::{fs, io, path::Path, time::Duration};

use hookbridge::cli::demo::node::PrivateNode;

use crate::{machine, peers, plot, race::Side, report, report::Report, target_folder};

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
    let consumers = [Side::Node, Side::Python];
    let mut versions = machine::versions(node);
    versions.extend(consumers.into_iter().filter_map(peers::versions));
    sections.push(list(&versions));
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

/// Keeps the files of a page in the documentation if the run was whole, and otherwise where everything
/// is that a run leaves.
pub(crate) fn keep(files: Vec<(&str, String)>, whole: bool) -> io::Result<()> {
    let folder = if whole {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
    } else {
        target_folder()
    };
    fs::create_dir_all(&folder)?;
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    println!("written to {}", folder.display());
    Ok(())
}

/// The items of a list.
pub(crate) fn list(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("- {item}")).collect();
    items.join("\n")
}
