//! What the bridge does with a store that holds much: 100,000 subscribers, most of them hooks of one
//! case each, and 100,000 dead letters, in SQLite on this disk and in a private PostgreSQL. It is
//! the program itself that is measured, on a private RabbitMQ: its start, its memory, its archiver,
//! its API's pages and its replays.
//!
//! `cargo bench --bench store`; `-- sqlite` or `-- postgres` for one of the two, `-- --quick` to see
//! that it works. The claims: ready within 3 s, below 200 MB, 2,000 dead letters a second, pages
//! within 50 ms, and replays in bounded memory at the rate that was asked for.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and has nobody else to tell"
)]

use std::path::{Path, PathBuf};

use hookbridge::cli::demo::node::{NodeOptions, PrivateNode};
use serde_json::json;

mod bridge;
mod hooks;
mod letters;
mod pages;
#[path = "../../tests/support/postgres.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "it is the tests', which use more of it"
)]
mod postgres;
#[path = "../bench/process.rs"]
#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod process;
mod receiver;
mod replays;
mod subscribers;

use bridge::Setup;
use receiver::Receiver;

/// How many there are of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) subscribers: u32,
    pub(crate) letters: u32,
}

/// Where everything is kept that a run leaves: the logs.
pub(crate) fn target_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.parent().unwrap_or(folder).join("bench")
}

/// Prints a figure, and whether it is what is claimed.
pub(crate) fn figure(what: &str, figure: &str, holds: bool) {
    let short = if holds { "" } else { "   FALLS SHORT" };
    println!("  {what}: {figure}{short}");
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let named = |word: &str| words.iter().any(|one| one == word);
    let count = if named("--quick") { 3_000 } else { 100_000 };
    let size = Size {
        subscribers: count,
        letters: count,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let all = !named("sqlite") && !named("postgres");
    if all || named("sqlite") {
        println!("SQLite");
        let vhost = json!({"vhosts": [{"name": "sqlite"}]});
        let node = start(&vhost);
        let setup = Setup::new(&node.amqp_uri("sqlite"), "sqlite://store.db");
        runtime.block_on(measure(&setup, size));
    }
    if all || named("postgres") {
        println!("PostgreSQL");
        let vhost = json!({"vhosts": [{"name": "postgres"}]});
        let node = start(&vhost);
        let server = postgres::Postgres::start();
        let url = runtime.block_on(server.database());
        let setup = Setup::new(&node.amqp_uri("postgres"), &url);
        runtime.block_on(measure(&setup, size));
    }
}

fn start(vhosts: &serde_json::Value) -> PrivateNode {
    let options = NodeOptions {
        definitions: Some(vhosts.to_string()),
        ..NodeOptions::default()
    };
    PrivateNode::start(&options).expect("a private RabbitMQ")
}

async fn measure(setup: &Setup, size: Size) {
    let receiver = Receiver::start().expect("a receiver");
    // Declares the topology, makes the tables, and is gone.
    setup.start().await.stop().await;
    subscribers::fill(setup, size, &receiver).await;
    subscribers::start(setup, size).await;
    letters::publish(setup, size).await;
    let mut bridge = letters::archive(setup, size).await;
    pages::of_subscribers(&mut bridge, size).await;
    subscribers::change(&mut bridge).await;
    letters::publish_others(setup, &bridge).await;
    pages::of_dead_letters(&mut bridge).await;
    replays::replay(setup, bridge, size, &receiver).await;
}
