//! The yardsticks: what the same libraries do, written as well as we can, without mapping, routing,
//! retry or isolation. Each runs as a process of its own, which is this program with other
//! arguments, so that the system shares the machine out among the same number of processes.

use serde::{Deserialize, Serialize};

mod blast;
mod http;
mod queue;
mod retry;

/// Unacknowledged messages: as the bridge's `source.prefetch`.
const PREFETCH: u16 = 1_000;
/// Messages dealt with together: as in the bridge's intake.
const BATCH: usize = 256;

/// What a bare loop does; it is passed on the command line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Job {
    /// Consume, post to every URL, acknowledge.
    Http {
        uri: String,
        from: String,
        urls: Vec<String>,
        /// Posts under way to each URL.
        concurrent: usize,
    },
    /// Consume, publish to every queue, confirmed, acknowledge.
    Queue {
        uri: String,
        from: String,
        to: Vec<String>,
    },
    /// Publish as many events to every queue, confirmed.
    Publish {
        uri: String,
        to: Vec<String>,
        events: u64,
    },
    /// Consume `work` and nack it; consume `second`, to which that leads, and acknowledge. With a
    /// URL, each is posted first.
    Retry {
        uri: String,
        work: String,
        second: String,
        url: Option<String>,
        concurrent: usize,
    },
    /// Post to the receiver and do nothing else.
    Blast { address: String, concurrent: usize },
}

impl Job {
    /// How this program is told to do it.
    pub(crate) fn command(&self) -> std::process::Command {
        let program = std::env::current_exe().expect("this program");
        let mut command = std::process::Command::new(program);
        let job = serde_json::to_string(self).expect("a job as text");
        command.args([SUBCOMMAND, &job]);
        command
    }
}

/// The first argument of a process that does a job.
pub(crate) const SUBCOMMAND: &str = "bare-loop";

/// Does a job, until it is killed.
pub(crate) fn main(job: &str) {
    let job = serde_json::from_str(job).expect("a job");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match job {
            Job::Http {
                uri,
                from,
                urls,
                concurrent,
            } => http::run(&uri, &from, &urls, concurrent).await,
            Job::Queue { uri, from, to } => queue::run(&uri, &from, &to).await,
            Job::Publish { uri, to, events } => queue::publish(&uri, &to, events).await,
            Job::Retry {
                uri,
                work,
                second,
                url,
                concurrent,
            } => retry::run(&uri, &work, &second, url.as_deref(), concurrent).await,
            Job::Blast {
                address,
                concurrent,
            } => blast::run(&address, concurrent).await,
        }
    });
}

/// A consumer with a channel of its own.
async fn consume(connection: &lapin::Connection, queue: &str) -> (lapin::Channel, lapin::Consumer) {
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .basic_qos(PREFETCH, lapin::options::BasicQosOptions::default())
        .await
        .expect("a prefetch");
    let consumer = channel
        .basic_consume(
            queue.into(),
            "".into(),
            lapin::options::BasicConsumeOptions::default(),
            lapin::types::FieldTable::default(),
        )
        .await
        .expect("a consumer");
    (channel, consumer)
}
