//! The command line: one file for each command.

use std::{io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::broker::connection::ConnectError;

pub mod check;
pub mod client;
pub mod dead_letters;
pub mod demo;
pub mod events;
pub mod healthcheck;
pub mod publish;
pub mod run;
pub mod subscribers;
pub mod topology;
mod words;

/// Where the settings are looked for when nobody says otherwise.
const DEFAULT_CONFIG: &str = "config/hookbridge.toml";

/// Delivers the domain events of a RabbitMQ exchange as documented webhooks, over HTTP and AMQP:
/// each to everyone entitled to it and to nobody else, retried once, never dropped silently.
#[derive(Debug, Parser)]
#[command(
    name = "hookbridge",
    version,
    propagate_version = true,
    after_help = "A first look:  hookbridge demo\n\
                  Then:          edit config/hookbridge.toml and config/subscribers/, hookbridge check, hookbridge run\n\n\
                  Exit codes: 0 done, 1 what was asked for failed, 2 wrong use."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which settings a command reads.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The settings file; every key of it can also be given as `HOOKBRIDGE__SECTION__KEY`
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, env = "HOOKBRIDGE_CONFIG")]
    pub config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge
    Run(run::RunArgs),
    /// Read settings and subscribers, and print every mistake at once with its place
    Check(check::CheckArgs),
    /// Print the exchanges and queues, declare them, or remove old wait queues
    Topology(topology::TopologyArgs),
    /// Print the catalogue of domain events and webhooks, or the JSON Schema of one
    Events(events::EventsArgs),
    /// Publish domain events from files, confirmed
    Publish(publish::PublishArgs),
    /// Ask a running bridge whether it is ready
    Healthcheck(healthcheck::HealthcheckArgs),
    /// See and change subscribers, over a running bridge's API
    Subscribers(subscribers::SubscribersArgs),
    /// See, replay and remove what failed for good, over a running bridge's API
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Watch the whole bridge at work, on a private RabbitMQ
    #[command(after_help = demo::AFTER_HELP)]
    Demo(demo::DemoArgs),
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the arguments ask for. An error is for standard error, and exit code 1.
pub fn main() -> anyhow::Result<ExitCode> {
    let failed = |failed: bool| {
        if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    };
    match Cli::parse().command {
        Command::Run(args) => run::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => Ok(failed(check::run(
            &args,
            environment(),
            &mut io::stdout().lock(),
        )?)),
        Command::Topology(args) => {
            topology::run(&args, &mut io::stdout().lock()).map(|()| ExitCode::SUCCESS)
        }
        Command::Events(args) => {
            events::events(&args, &mut io::stdout().lock()).map(|()| ExitCode::SUCCESS)
        }
        Command::Publish(args) => {
            publish::run(&args, &mut io::stdout().lock(), &mut io::stderr().lock()).map(failed)
        }
        Command::Healthcheck(args) => healthcheck::run(&args, &mut io::stderr().lock()).map(failed),
        Command::Subscribers(args) => subscribers::run(&args, &mut io::stdout().lock()).map(failed),
        Command::DeadLetters(args) => {
            dead_letters::run(&args, &mut io::stdout().lock(), &mut io::stderr().lock()).map(failed)
        }
        Command::Demo(args) => {
            demo::run(&args, &mut io::stdout().lock()).map(|()| ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "hookbridge", &mut io::stdout().lock());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The environment, without variables that are not text: no variable of ours is one.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What a command says that needs the home broker and does not reach it.
fn no_broker(error: &ConnectError) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot connect to the home broker: {error}; look whether it runs, and at broker.uri in the settings"
    )
}

/// A runtime for a command that talks to a broker and ends.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}
