//! `hookbridge run`: the bridge itself, until a signal.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{ConfigArgs, environment};
use crate::{
    bridge::{Bridge, Handle},
    settings,
    subscriber::loading::{Rules, load_directory},
    telemetry::logs,
};

/// What `hookbridge run` is asked for.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the bridge until SIGTERM or SIGINT, and stops it cleanly; a second one exits at once.
/// SIGHUP reads the subscribers again.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let (settings, warnings) = settings::inspect(&args.config.config, environment())
        .sound()
        .map_err(|mistakes| anyhow::anyhow!("the settings are wrong:\n{mistakes}"))?;
    logs::start(&settings.log)?;
    for warning in &warnings {
        warn!("{warning}");
    }
    let loaded = load_directory(&settings.subscribers.directory, &Rules::from(&settings))
        .map_err(|mistakes| anyhow::anyhow!("the subscribers are wrong:\n{mistakes}"))?;
    info!(version = env!("CARGO_PKG_VERSION"), "hookbridge starts");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        // Before anything else is started: a signal must not find its default action.
        let signals = Signals::install().context("cannot listen for signals")?;
        let bridge = Bridge::build(settings, loaded).await?;
        let ends = bridge.ends();
        let handle = bridge.handle();
        let (ended, ()) = tokio::join!(bridge.run(), async {
            tokio::select! {
                () = signals.obey(&handle) => {}
                () = ends.cancelled() => {}
            }
        });
        ended.map_err(anyhow::Error::from)
    });
    // Threads of the client library may still wait on sockets of brokers that do not answer.
    runtime.shutdown_background();
    ended
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn obey(mut self, handle: &Handle) {
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    info!("SIGHUP: reading the subscribers, tokens and certificate again");
                    handle.reload();
                    continue;
                }
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if stopping {
                handle.say_rest();
                // What is in flight is not acknowledged, and so is delivered again.
                std::process::exit(1);
            }
            stopping = true;
            handle.stop();
        }
    }
}
