//! `hookbridge demo`: the whole bridge in one command, on a private RabbitMQ of its own. It plays
//! the publisher and all subscribers itself, and checks what it shows.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod arrival;
mod cast;
mod ground;
pub mod node;
mod receiver;
mod screen;
mod show;
mod stage;
mod tally;

use arrival::Judge;
use ground::Ground;
use screen::Screen;
use stage::Stage;
use tally::Tally;

/// How long everything may take once there is a broker.
const DEADLINE: Duration = Duration::from_mins(1);

/// What `hookbridge demo` is asked for.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave everything up until Ctrl-C, and print every address
    #[arg(long)]
    keep: bool,
}

/// What `hookbridge demo --help` ends with.
pub const AFTER_HELP: &str = "\
It takes about ten seconds, needs no settings and no running service, and leaves nothing behind. \
RabbitMQ must be installed: the demo starts a node of its own, on free ports, in a temporary folder.

With HOOKBRIDGE__BROKER__URI set it uses that broker instead, under names of its own, and deletes \
all that it declared there.";

/// Shows the whole bridge at work on `out`. Fails if anything is not as it must be.
pub fn run(args: &DemoArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let runtime = super::runtime()?;
    let shown = runtime.block_on(demo(args.keep, &mut Screen::new(out)));
    // Threads of the client library may still wait on sockets.
    runtime.shutdown_background();
    shown
}

async fn demo<W: Write>(keep: bool, screen: &mut Screen<'_, W>) -> anyhow::Result<()> {
    let (tasks, over) = (TaskTracker::new(), CancellationToken::new());
    let interrupted = interrupts(&tasks, &over).context("cannot listen for signals")?;
    let began = Instant::now();
    screen.say(if ground::is_given() {
        format!("Using the RabbitMQ that {} names", ground::GIVEN)
    } else {
        "Starting a private RabbitMQ, in a temporary folder".to_owned()
    })?;
    let ground = tokio::task::spawn_blocking(move || Ground::prepare(keep)).await??;
    let shown = if interrupted.is_cancelled() {
        Err(stopped_early())
    } else {
        Box::pin(perform(&ground, keep, &interrupted, screen)).await
    };
    let cleared = ground.clear().await;
    over.cancel();
    match (shown, cleared) {
        (Err(shown), Err(left)) => return Err(anyhow!("{shown:#}; and then: {left:#}")),
        (shown, cleared) => shown.and(cleared)?,
    }
    screen.say(format_args!(
        "\nAll as it must be, and nothing is left running: {:.0} s",
        began.elapsed().as_secs_f64()
    ))?;
    Ok(())
}

/// Cancelled by the first SIGINT or SIGTERM; a second one ends the process, and with it a private
/// node.
fn interrupts(tasks: &TaskTracker, over: &CancellationToken) -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let interrupted = CancellationToken::new();
    let (token, over) = (interrupted.clone(), over.clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if token.is_cancelled() {
                std::process::exit(1);
            }
            token.cancel();
        }
    });
    Ok(interrupted)
}

fn stopped_early() -> anyhow::Error {
    anyhow!("stopped before the demo was over")
}

async fn perform<W: Write>(
    ground: &Ground,
    keep: bool,
    interrupted: &CancellationToken,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let secrets = stage::secrets();
    let judge = Judge::new(secrets.clone())?;
    let mut tally = Tally::new();
    let mut stage = Stage::raise(ground, &secrets, keep).await?;
    let ended = stage.bridge_ends.clone();
    let mut shown = tokio::select! {
        () = interrupted.cancelled() => Err(stopped_early()),
        () = ended.cancelled() => Err(anyhow!("the bridge ended by itself")),
        shown = timeout(DEADLINE, acts(&mut stage, ground, &judge, &mut tally, screen)) => {
            shown.unwrap_or_else(|_| Err(too_late(&tally)))
        }
    };
    if shown.is_ok() && keep {
        shown = tokio::select! {
            () = interrupted.cancelled() => Ok(()),
            () = ended.cancelled() => Err(anyhow!("the bridge ended by itself")),
            stayed = show::stay(&mut stage, ground, &judge, screen) => stayed,
        };
    }
    // An error of the bridge is the cause of all others.
    stage.strike().await.and(shown)
}

async fn acts<W: Write>(
    stage: &mut Stage,
    ground: &Ground,
    judge: &Judge,
    tally: &mut Tally,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    stage.ready().await?;
    screen.say(if ground.is_given() {
        format!(
            "The bridge is ready; all that it declared there begins with {}",
            stage.settings.broker.prefix
        )
    } else {
        "The bridge is ready".to_owned()
    })?;
    screen.cast()?;
    show::deliveries(stage, judge, tally, screen).await?;
    show::the_retry(stage, judge, tally, screen).await?;
    show::the_party_rule(tally, screen)?;
    show::the_counts(stage, tally, screen).await
}

fn too_late(tally: &Tally) -> anyhow::Error {
    let mut missing = tally.missing();
    missing.extend(tally.wrong.iter().cloned());
    let limit = humantime::format_duration(DEADLINE);
    anyhow!(
        "not over after {limit}; still to come, or not as it must be:\n  {}",
        missing.join("\n  ")
    )
}
