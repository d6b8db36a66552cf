//! What happens in the demo: the events are published, what arrives is shown and checked, and then
//! the points that are worth a closer look.

use std::{io::Write, sync::OnceLock};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::task::TaskTracker;

use super::{
    arrival::{Arrival, Judge},
    cast::{CAST, Endpoint, Member, Target},
    ground::Ground,
    screen::Screen,
    stage::Stage,
    tally::{Count, Tally},
};
use crate::{
    bridge,
    broker::{
        connection::{OPERATION_TIMEOUT, Source},
        publisher::Publisher,
        queues::QueueCounter,
    },
    cli::publish,
    webhook::{WebhookType, examples::EXAMPLES},
};

/// How long the last counts may take to come out right: the bridge settles after it has sent.
const SETTLE: Duration = Duration::from_secs(5);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// When each example was published.
type Published = [OnceLock<Instant>; EXAMPLES.len()];

/// Publishes the examples and shows what arrives, until everything has that must.
pub(super) async fn deliveries<W: Write>(
    stage: &mut Stage,
    judge: &Judge,
    tally: &mut Tally,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let published = Published::default();
    let exchange = stage.settings.source.exchange.clone();
    screen.say(format_args!(
        "\nPublishing the eleven documented events to {exchange}, one after the other:"
    ))?;
    screen.arrivals()?;
    let source = Source::home(bridge::home_dialer(&stage.settings.broker), 1)?;
    let publishing = publish_examples(&source, &exchange, &published);
    let arrivals = &mut stage.arrivals;
    let receiving = async {
        while !tally.missing().is_empty() {
            let arrival = arrivals.recv().await.context("the subscribers are gone")?;
            take(&arrival, judge, tally, &published, screen)?;
        }
        anyhow::Ok(())
    };
    let (confirmed, ()) = tokio::try_join!(publishing, receiving)?;
    source.close();
    tally.published = confirmed;
    Ok(())
}

fn take<W: Write>(
    arrival: &Arrival,
    judge: &Judge,
    tally: &mut Tally,
    published: &Published,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let verdict = judge.judge(arrival);
    let event = verdict
        .example
        .map_or("–", |example| &judge.examples[example].id);
    let since = verdict.example.and_then(|example| published[example].get());
    let took = since.map(|since| arrival.at.duration_since(*since));
    screen.arrival(arrival, &verdict, event, took)?;
    tally.take(arrival, &verdict, took.unwrap_or_default().as_millis());
    Ok(())
}

async fn publish_examples(
    source: &Source,
    exchange: &str,
    published: &Published,
) -> anyhow::Result<u64> {
    // Connected beforehand: it is not the bridge's time.
    drop(
        source
            .connection()
            .await
            .context("cannot connect to publish")?,
    );
    let publisher = Publisher::start(source.clone(), None, &TaskTracker::new());
    let mut confirmed = 0;
    for (example, published) in EXAMPLES.iter().zip(published) {
        let body = Bytes::from_static(example.event.as_bytes());
        let message = publish::message(exchange, example.event_type.name(), body);
        published.get_or_init(Instant::now);
        let publishing = publisher.publish_one(message, OPERATION_TIMEOUT).await;
        publishing.with_context(|| format!("cannot publish {}", example.name))?;
        confirmed += 1;
    }
    Ok(confirmed)
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
        screen.entry(
            &format!("attempt {attempt}"),
            format_args!(
                "webhook-id {}, answered {}, {} ms after the event",
                seen.webhook_id,
                seen.status.unwrap_or_default(),
                seen.took
            ),
        )?;
    }
    screen.entry(
        "dead letter",
        format_args!("in {}.dead", stage.settings.broker.prefix),
    )?;
    let id = judge.webhook_id(example, member);
    for (name, value) in stage.dead_letter(&id).await? {
        screen.entry(&format!("  {name}"), value)?;
    }
    Ok(())
}

/// Shows who got the message and who did not.
pub(super) fn the_party_rule<W: Write>(
    tally: &Tally,
    screen: &mut Screen<'_, W>,
) -> anyhow::Result<()> {
    let of_messages = |example: &&crate::webhook::examples::Example| {
        example.event_type.webhook() == WebhookType::NewMessage
    };
    let message = EXAMPLES.iter().position(|example| of_messages(&example));
    let message = message.context("no example is a message")?;
    screen.heading(
        "The party rule: fixit wrote a message, so only the other party, northwind, gets it",
    )?;
    for (member, sent) in [
        (&CAST[0], "fixit sent it, northwind receives it"),
        (&CAST[1], "it sent it"),
    ] {
        let got = if tally.seen(message, member.id, 1).is_some() {
            "got"
        } else {
            "did not get"
        };
        screen.entry(
            member.id,
            format_args!("{got} {}: {sent}", WebhookType::NewMessage),
        )?;
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
        let queues = counter.count(&stage.home, &topology).await;
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
    let wrong = counts.iter().filter(|count| !count.right()).count();
    if wrong > 0 {
        bail!("{wrong} of the counts are not what they must be");
    }
    if !tally.wrong.is_empty() {
        bail!(
            "not everything came as it must:\n  {}",
            tally.wrong.join("\n  ")
        );
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
    let never = Published::default();
    let mut unchecked = Tally::new();
    while let Some(arrival) = stage.arrivals.recv().await {
        take(&arrival, judge, &mut unchecked, &never, screen)?;
        unchecked.wrong.clear();
    }
    Ok(())
}
