//! Numbers for planning: what bridges do, and what they and RabbitMQ need for it, by the size of the
//! events, the number of subscribers that each goes to, of bridges, and of subscribers that there are.

use std::{io, panic::AssertUnwindSafe, time::Instant};

use futures_util::FutureExt;
use hookbridge::cli::demo::node::PrivateNode;

mod broker;
mod case;
mod crowd;
mod page;
mod plots;
mod reading;
mod series;
mod tables;

use case::Row;
use crowd::Crowd;
pub(crate) use series::Series;
use series::What;

use crate::{
    document, ground, ground::Ground, machine, nothing_missing, options::Options,
    receiver::Receiver,
};

/// What a series is measured with.
struct Stand<'a> {
    options: &'a Options,
    node: &'a PrivateNode,
    /// The series' own virtual host of it.
    ground: &'a Ground,
    receiver: &'a Receiver,
}

/// What was found out.
#[derive(Debug, Default)]
struct Findings {
    rows: Vec<Row>,
    crowds: Vec<Crowd>,
    /// What it was measured with.
    versions: Vec<String>,
    /// What could not be measured.
    missing: Vec<String>,
}

/// Measures every series that is wanted, and writes the page.
pub(crate) async fn run(options: &Options) -> io::Result<()> {
    let began = Instant::now();
    let receiver = Receiver::start()?;
    let mut findings = Findings::default();
    for series in Series::ALL {
        if !options.wants(series.name) {
            continue;
        }
        println!("{}", series.name);
        // What fails must not take the other figures with it.
        let work = measure(options, series, &receiver, &mut findings);
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            let failed = format!("{}: it failed, see above", series.name);
            findings.missing.push(failed);
        }
    }
    let whole = options.is_whole() && findings.missing.is_empty();
    document::keep(page::write(&findings, began.elapsed()), whole)?;
    println!("it took {:.0} s", began.elapsed().as_secs_f64());
    nothing_missing(&findings.missing)
}

/// Each series has a broker of its own, whose memory tells of no other.
async fn measure(options: &Options, series: Series, receiver: &Receiver, findings: &mut Findings) {
    let node = ground::start_node(&[series.name], Vec::new());
    if findings.versions.is_empty() {
        findings.versions = machine::versions(&node);
    }
    let ground = Ground::new(&node, series.name).await;
    let stand = Stand {
        options,
        node: &node,
        ground: &ground,
        receiver,
    };
    if series.what == What::Subscribers {
        crowd::measure(&stand, &mut findings.crowds).await;
        return;
    }
    for case in series.cases() {
        let row = case::measure(&stand, series, &case).await;
        println!("  {row}");
        findings.rows.push(row);
    }
}
