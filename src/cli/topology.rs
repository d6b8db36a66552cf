//! `hookbridge topology`: the exchanges and queues, printed, declared, or cleared of what is left
//! over from an earlier retry delay.

use std::{io::Write, time::Duration};

use anyhow::bail;
use comfy_table::{Table, presets};

use super::{ConfigArgs, environment, no_broker, runtime};
use crate::{
    bridge,
    broker::{
        home,
        topology::{Arguments, Pruned, Topology},
    },
    settings::{self, Settings},
};

/// What `hookbridge topology` is asked for.
#[derive(Debug, clap::Args)]
pub struct TopologyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Declare it on the home broker
    #[arg(long, conflicts_with = "prune")]
    apply: bool,
    /// Delete the wait queues of these earlier retry delays, as in `--prune 10s`, once they are empty
    #[arg(long, value_name = "DELAY", value_parser = humantime::parse_duration, num_args = 1..)]
    prune: Vec<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// A definitions file that RabbitMQ imports
    Definitions,
}

/// Prints the topology, or changes the home broker's.
pub fn run(args: &TopologyArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let settings = settings::load(&args.config.config, environment())
        .map_err(|mistakes| anyhow::anyhow!("the settings are wrong:\n{mistakes}"))?;
    let topology = bridge::topology(&settings);
    if args.apply {
        runtime()?.block_on(apply(&settings, &topology))?;
        writeln!(
            out,
            "declared {} exchanges and {} queues",
            topology.exchanges.len(),
            topology.queues.len()
        )?;
        return Ok(());
    }
    if !args.prune.is_empty() {
        return runtime()?.block_on(prune(&settings, &topology, &args.prune, out));
    }
    match args.format {
        Format::Table => print(&topology, out),
        Format::Definitions => {
            let vhost = bridge::home_dialer(&settings.broker).vhost()?;
            serde_json::to_writer_pretty(&mut *out, &topology.definitions(&vhost))?;
            writeln!(out)?;
            Ok(())
        }
    }
}

async fn apply(settings: &Settings, topology: &Topology) -> anyhow::Result<()> {
    let dialer = bridge::home_dialer(&settings.broker);
    let connection = dialer.connect().await.map_err(|error| no_broker(&error))?;
    home::require_at_least_once(&dialer, topology).await?;
    topology.declare(&connection).await?;
    home::close(&connection).await;
    Ok(())
}

async fn prune(
    settings: &Settings,
    topology: &Topology,
    delays: &[Duration],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let connection = bridge::home_dialer(&settings.broker)
        .connect()
        .await
        .map_err(|error| no_broker(&error))?;
    let mut kept = 0;
    for delay in delays {
        if *delay == settings.delivery.retry_delay {
            bail!(
                "{} is the retry delay in use: its wait queue stays",
                humantime::format_duration(*delay)
            );
        }
        let (queue, pruned) = topology.prune(&connection, *delay).await?;
        match pruned {
            Pruned::Deleted => writeln!(out, "{queue}: deleted")?,
            Pruned::Absent => writeln!(out, "{queue}: does not exist")?,
            Pruned::Holds(messages) => {
                kept += 1;
                writeln!(
                    out,
                    "{queue}: still holds {messages} messages; try again when their delay is over"
                )?;
            }
        }
    }
    home::close(&connection).await;
    if kept > 0 {
        bail!("{kept} wait queues are not empty yet");
    }
    Ok(())
}

fn print(topology: &Topology, out: &mut impl Write) -> anyhow::Result<()> {
    let mut exchanges = Table::new();
    exchanges
        .load_style(presets::NOTHING)
        .set_header(["EXCHANGE", "TYPE", "ARGUMENTS"]);
    for exchange in &topology.exchanges {
        let arguments = if exchange.foreign {
            "taken as it is if it exists".to_owned()
        } else {
            listed(&exchange.arguments)
        };
        exchanges.add_row([exchange.name.as_str(), exchange.kind, &arguments]);
    }
    // What every queue has is said once.
    let mut shared = topology
        .queues
        .first()
        .map(|queue| queue.arguments.clone())
        .unwrap_or_default();
    for queue in &topology.queues {
        shared.retain(|name, value| queue.arguments.get(name) == Some(value));
    }
    let mut queues = Table::new();
    queues.load_style(presets::NOTHING).set_header([
        "QUEUE",
        "BOUND TO",
        "WITH",
        "ARGUMENTS BESIDES",
    ]);
    for queue in &topology.queues {
        let mut own = queue.arguments.clone();
        own.retain(|name, _| !shared.contains_key(name));
        queues.add_row([
            queue.name.as_str(),
            &queue.exchange,
            &queue.keys.join(" "),
            &listed(&own),
        ]);
    }
    let shared = listed(&shared);
    writeln!(
        out,
        "{exchanges}\n\n{queues}\n\nAll are durable. Every queue has {shared}."
    )?;
    Ok(())
}

fn listed(arguments: &Arguments) -> String {
    let pairs: Vec<String> = arguments
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(" ")
}
