//! How many posts the receiver takes when nothing else is done: far more than anybody here sends,
//! or the figures of HTTP would be its own.

use std::time::{Duration, Instant};

use super::Bench;
use crate::{bare::Job, process::Process, race::CONCURRENT, report::thousands};

pub(super) async fn run(bench: &mut Bench<'_>) {
    let job = Job::Blast {
        address: format!("127.0.0.1:{}", bench.receiver.port),
        concurrent: CONCURRENT,
    };
    let _process = Process::start("bare-loop", &mut job.command());
    tokio::time::sleep(Duration::from_millis(500)).await;
    bench.receiver.arrivals.take();
    let began = Instant::now();
    tokio::time::sleep(
        bench
            .options
            .pick(Duration::from_secs(2), Duration::from_secs(1)),
    )
    .await;
    let posts = bench.receiver.arrivals.count() as f64 / began.elapsed().as_secs_f64();
    bench.report.note(format!(
        "The receiver of every HTTP figure takes {} posts a second when a client does nothing but post.",
        thousands(posts)
    ));
}
