//! How fast the bridge is and how well it keeps subscribers apart, beside peers that do the same
//! work on the same broker in the same run. `cargo bench -- --help` says how it is used.
//!
//! All messages are persistent, all queues quorum queues, everything is confirmed.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark prints figures, has nobody to hand an error to, and ends with its tasks"
)]

use std::{
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};

mod bare;
mod bridge;
mod document;
mod event;
mod flame;
mod ground;
#[path = "../store/hooks.rs"]
mod hooks;
mod load;
mod machine;
mod options;
mod parts;
mod peers;
mod planning;
mod plot;
mod process;
mod profile;
mod race;
mod receiver;
mod report;
mod stats;
mod watch;

use ground::Ground;
use hookbridge::cli::demo::node::{Plugin, PrivateNode};
use options::Options;
use parts::{Bench, Part};
use receiver::Receiver;
use report::Report;

/// Where everything is kept that a run makes, but for the documentation.
pub(crate) fn target_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.parent().unwrap_or(folder).join("bench")
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if let (Some(bare::SUBCOMMAND), Some(job)) = (arguments.next().as_deref(), arguments.next()) {
        bare::main(&job);
        return ExitCode::SUCCESS;
    }
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let all = if options.planning {
        planning::Series::ALL.map(|series| series.name).to_vec()
    } else {
        Part::ALL.map(Part::name).to_vec()
    };
    if options.list || !all.iter().any(|name| options.wants(name)) {
        println!("{}", all.join("\n"));
        return ExitCode::from(u8::from(!options.list) * 2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if options.planning {
        return ended(runtime.block_on(unless_ended(planning::run(&options))));
    }
    if let Some(kind) = options.profile {
        let node = ground::start_node(&profile::PATHS, Vec::new());
        let profiled = profile::run(&options, kind, &node).map(Ok);
        return ended(runtime.block_on(unless_ended(profiled)));
    }
    let parts: Vec<Part> = Part::ALL
        .into_iter()
        .filter(|part| options.wants(part.name()))
        .collect();
    let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
    let node = ground::start_node(&names, vec![Plugin::Shovel]);
    ended(runtime.block_on(unless_ended(run(&options, &parts, &node))))
}

fn ended(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Does the work, or leaves it when the system asks this process to end: what it has started ends
/// with it, since it is dropped.
async fn unless_ended(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let mut asked = signal(SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = asked.recv() => Err(io::Error::other("ended by a signal")),
    }
}

async fn run(options: &Options, parts: &[Part], node: &PrivateNode) -> io::Result<()> {
    let began = Instant::now();
    let receiver = Receiver::start()?;
    let mut report = Report::default();
    let (mut http, mut memory) = (None, 0.0);
    for part in parts {
        println!("{}", part.name());
        let at = Instant::now();
        let ground = Ground::new(node, part.name()).await;
        let mut bench = Bench {
            options,
            node,
            ground: &ground,
            receiver: &receiver,
            report: &mut report,
            http: &mut http,
            memory: &mut memory,
        };
        // A part that fails must not take the figures of the others with it.
        let ended = AssertUnwindSafe(part.run(&mut bench)).catch_unwind().await;
        if ended.is_err() {
            report.miss(format!("{}: it failed, see above", part.name()));
        }
        ground.connection.close(200, "done".into()).await.ok();
        // Idle queues cost the broker time that the next parts need.
        node.rabbitmqctl(&["delete_vhost", part.name()])
            .map_err(io::Error::other)?;
        println!("  in {} s", at.elapsed().as_secs());
    }
    parts::memory(&mut report, memory);
    let document = document::write(&report, node, began.elapsed());
    println!("\n{}\n", report::table(&report.rows));
    document::keep(document, options.is_whole() && report.missing.is_empty())?;
    for row in report.fallen_short() {
        println!("falls short: {row}");
    }
    nothing_missing(&report.missing)
}

/// An error if something could not be measured.
pub(crate) fn nothing_missing(missing: &[String]) -> io::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join("\n  ");
    Err(io::Error::other(format!("not measured:\n  {missing}")))
}
