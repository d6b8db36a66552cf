//! What RabbitMQ needs for the work.

use std::{ops::Sub, time::Duration};

use hookbridge::cli::demo::node::PrivateNode;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{process::Usage, stats::median};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What a series of events took of RabbitMQ.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Need {
    /// Processor time for an event, in microseconds.
    pub(super) micros_each: f64,
    /// Written to disk for an event, in bytes.
    pub(super) written_each: f64,
    /// The most resident memory, in MiB.
    pub(super) memory: f64,
    /// What the bridges have open.
    pub(super) connections: usize,
    /// On these connections.
    pub(super) channels: u64,
    /// Of the bridges and of the subscribers.
    pub(super) queues: usize,
}

/// What RabbitMQ had used at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    processor: Duration,
    written: f64,
}

impl Used {
    fn micros(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6
    }
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            processor: self.processor.saturating_sub(earlier.processor),
            written: self.written - earlier.written,
        }
    }
}

/// A node, looked at from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broker<'a> {
    node: &'a PrivateNode,
    usage: Usage,
}

impl<'a> Broker<'a> {
    pub(super) fn new(node: &'a PrivateNode) -> Self {
        let id = node.pid().expect("the node's supervisor");
        let usage = Usage(id.expect("a node that runs"));
        Self { node, usage }
    }

    /// So far.
    pub(super) fn used(&self) -> Used {
        Used {
            processor: self.usage.processor_time(),
            written: self.usage.written(),
        }
    }

    /// From now on.
    pub(super) fn memory(&self) -> Highest {
        Highest::watch(self.usage)
    }

    /// What so many events took, the median of several times, and what is open now.
    pub(super) fn need(&self, used: &[Used], events: u64, memory: f64, vhost: &str) -> Need {
        let ask = |arguments: &[&str]| self.node.rabbitmqctl(arguments).expect("rabbitmqctl");
        // Only the bridges give their connections a name.
        let connections = ask(&["list_connections", "channels", "client_properties"]);
        let ours: Vec<u64> = connections
            .lines()
            .filter(|line| line.contains("\"connection_name\",\"hookbridge"))
            .map(|line| line.split('\t').next().and_then(|count| count.parse().ok()))
            .map(|count| count.expect("a number of channels"))
            .collect();
        let queues = ask(&["list_queues", "-p", vhost, "--no-table-headers", "name"]);
        Need {
            micros_each: median(used.iter().map(Used::micros)) / events as f64,
            written_each: median(used.iter().map(|used| used.written)) / events as f64,
            memory,
            connections: ours.len(),
            channels: ours.iter().sum(),
            queues: queues.lines().count(),
        }
    }
}

/// The most resident memory of a process while it is watched.
#[derive(Debug)]
pub(super) struct Highest {
    enough: CancellationToken,
    watching: JoinHandle<f64>,
}

impl Highest {
    /// Begins.
    pub(super) fn watch(process: Usage) -> Self {
        let enough = CancellationToken::new();
        let told = enough.clone();
        let watching = tokio::spawn(async move {
            let mut highest: f64 = 0.0;
            while !told.is_cancelled() {
                highest = highest.max(process.memory());
                tokio::time::sleep(LOOK).await;
            }
            highest
        });
        Self { enough, watching }
    }

    /// Ends, and tells it in MiB.
    pub(super) async fn most(self) -> f64 {
        self.enough.cancel();
        self.watching.await.expect("a watch that ends")
    }
}
