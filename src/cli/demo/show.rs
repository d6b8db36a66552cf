//! What happens in the demo: the events are published, what arrives is shown and checked, and then
//! the points that are worth a closer look.

use std::io::Write;

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::task::TaskTracker;

use super::{
    arrival::Judge,
    cast::{CAST, Endpoint, Member, Target},
    ground::Ground,
    screen::Screen,
    stage::Stage,
    tally::{Count, Tally},
};
use crate::{
    bridge,
    broker::{
        connection::OPERATION_TIMEOUT, pool::Source, publisher::Publisher, queues::QueueCounter,
    },
    cli::publish,
    webhook::{WebhookType, examples::EXAMPLES},
};

/// How long the last counts may take to come out right: the bridge settles after it has sent.
const SETTLE: Duration = Duration::from_secs(5);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Publishes the examples and shows what arrives, until everything has that must. The next example
/// waits for the first attempts of the one before, so that a person can follow.
pub(super) async fn deliveries<W: Write>(
    stage: &mut Stage,
    judge: &Judge,
    tally: &mut Tally,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let exchange = stage.settings.source.exchange.clone();
    screen.say(format_args!(
        "\nPublishing the eleven documented events to {exchange}, one after the other:"
    ))?;
    screen.arrivals()?;
    let source = Source::home(bridge::home_dialer(&stage.settings.broker), 1)?;
    let publisher = Publisher::start(source.clone(), None, &TaskTracker::new());
    let mut times = Vec::new();
    for (index, example) in EXAMPLES.iter().enumerate() {
        if times.is_empty() {
            // Connected beforehand: it is not the bridge's time.
            let connection = source.connection().await;
            drop(connection.context("cannot connect to publish")?);
        }
        times.push(Instant::now());
        let body = Bytes::from_static(example.event.as_bytes());
        let message = publish::message(&exchange, example.event_type.name(), body);
        let publishing = publisher.publish_one(message, OPERATION_TIMEOUT).await;
        publishing.with_context(|| format!("cannot publish {}", example.name))?;
        tally.published += 1;
        while tally.awaits(|of, attempt| of == index && attempt == 1) {
            take(stage, judge, tally, &times, screen).await?;
        }
    }
    while tally.awaits(|_, _| true) {
        take(stage, judge, tally, &times, screen).await?;
    }
    source.close();
    Ok(())
}

/// Waits for an arrival, shows it and takes it down. `times` are those of the
/// examples' publishing; without any, what arrives may be anything.
async fn take<W: Write>(
    stage: &mut Stage,
    judge: &Judge,
    tally: &mut Tally,
    times: &[Instant],
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let arrival = stage.arrivals.recv().await;
    let arrival = arrival.context("the subscribers are gone")?;
    let mut verdict = judge.judge(&arrival);
    if times.is_empty() {
        verdict.wrong.clear();
    }
    let event = verdict
        .example
        .map_or("–", |example| &judge.examples[example].id);
    let since = verdict.example.and_then(|example| times.get(example));
    let took = since.map(|since| arrival.at.duration_since(*since));
    screen.arrival(&arrival, &verdict, event, took)?;
    tally.take(&arrival, &verdict, took.unwrap_or_default());
    Ok(())
}

/// Shows how the delivery to the endpoint that always fails was retried, and its dead letter.
pub(super) async fn the_retry<W: Write>(
    stage: &Stage,
    judge: &Judge,
    tally: &Tally,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let (member, example) = the(Target::Http(Endpoint::Broken))?;
    let delay = humantime::format_duration(stage.settings.delivery.retry_delay);
    screen.heading(&format!(
        "The retry: {} refuses {}, which is tried once more after {delay}, and then kept",
        member.id,
        EXAMPLES[example].event_type.webhook()
    ))?;
    for attempt in [1, 2] {
        let seen = tally
            .seen(example, member.id, attempt)
            .context("an attempt is missing")?;
        let status = seen.status.unwrap_or_default();
        let took = seen.took.as_millis();
        screen.entry(
            &format!("attempt {attempt}"),
            format_args!("{status} after {took} ms, webhook-id {}", seen.webhook_id),
        )?;
    }
    screen.entry(
        "dead letter",
        format_args!("in {}.dead:", stage.settings.broker.prefix),
    )?;
    let id = judge.webhook_id(example, member);
    for (name, value) in stage.dead_letter(&id).await? {
        screen.entry(name, value)?;
    }
    Ok(())
}

/// Shows who got the message and who did not.
pub(super) fn the_party_rule<W: Write>(
    tally: &Tally,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let kind = WebhookType::NewMessage;
    let message = EXAMPLES
        .iter()
        .position(|example| example.event_type.webhook() == kind);
    let message = message.context("no example is a message")?;
    screen.heading(
        "The party rule: fixit wrote to northwind, and a message never returns to its sender",
    )?;
    for target in [Target::Http(Endpoint::Sound), Target::Queue] {
        let (member, _) = the(target)?;
        let got = match tally.seen(message, member.id, 1) {
            Some(_) => "got",
            None => "did not get",
        };
        screen.entry(member.id, format_args!("{got} {kind}"))?;
    }
    Ok(())
}

/// The subscriber with this target, and the index of the first example that it gets.
fn the(target: Target) -> anyhow::Result<(&'static Member, usize)> {
    let member = CAST.iter().find(|member| member.target == target);
    let member = member.context("nobody has this target")?;
    Ok((member, member.gets[0] - 1))
}

/// Shows the final counts, and fails unless they are what they must be.
pub(super) async fn the_counts<W: Write>(
    stage: &Stage,
    tally: &Tally,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    screen
        .heading("The counts: as they must be, as the demo saw them, as the bridge tells them")?;
    let until = Instant::now() + SETTLE;
    let topology = bridge::topology(&stage.settings);
    let mut counter = QueueCounter::default();
    let counts = loop {
        let (queues, _) = counter.count(&stage.home, &topology).await;
        let counts = tally.counts(&queues, &stage.ask("/metrics").await?.1);
        if counts.iter().all(Count::right) || Instant::now() >= until {
            break counts;
        }
        sleep(LOOK).await;
    };
    screen.counts()?;
    for count in &counts {
        let told = count
            .told
            .map_or_else(|| "–".to_owned(), |told| told.to_string());
        let cells = [
            &*count.expected.to_string(),
            &*count.seen.to_string(),
            &*told,
        ];
        screen.count(count.what, cells, count.right())?;
    }
    let wrong = counts.iter().filter(|count| !count.right());
    let wrong = wrong.map(|count| format!("the count of \"{}\" is wrong", count.what));
    let wrong: Vec<_> = wrong.chain(tally.wrong.iter().cloned()).collect();
    if !wrong.is_empty() {
        bail!("not everything is as it must be:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// Prints every address, and then shows what arrives.
pub(super) async fn stay<W: Write>(
    stage: &mut Stage,
    ground: &Ground,
    judge: &Judge,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    screen.heading("Everything stays up until Ctrl-C")?;
    for (label, address) in ground.addresses() {
        screen.entry(label, address)?;
    }
    screen.entry("ready?", format_args!("http://{}/readyz", stage.admin))?;
    screen.entry("metrics", format_args!("http://{}/metrics", stage.admin))?;
    for member in CAST
        .iter()
        .filter(|member| matches!(member.target, Target::Http(_)))
    {
        screen.entry(
            "HTTP receiver",
            format_args!("{}/{}", stage.receiver, member.id),
        )?;
    }
    screen.entry("settings", ground.settings_file().display())?;
    screen.entry("subscribers", ground.subscribers().display())?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    screen.say("\nPublish something, in another terminal, and it appears here:\n")?;
    screen.say(format_args!(
        "  {} publish --config {} {}",
        program.display(),
        ground.settings_file().display(),
        ground.event_file(EXAMPLES[2].name).display()
    ))?;
    screen.arrivals()?;
    let mut unchecked = Tally::new();
    loop {
        take(stage, judge, &mut unchecked, &[], screen).await?;
        unchecked.wrong.clear();
    }
}
