//! The retry path: every first attempt fails, and the second succeeds.

use std::time::Duration;

use lapin::types::AMQPValue;

use super::Bench;
use crate::{
    bare::Job,
    bridge::{Setup, Subscriber},
    ground::{Ground, text},
    load::{Route, SOURCE, heap},
    plot::{Bar, Group},
    process::Process,
    race::CONCURRENT,
    report::{Must, Row, Unit, thousands},
    stats::median,
    watch::{Count, watch},
};

/// Between the two attempts; the same for everybody.
const DELAY: Duration = Duration::from_millis(500);

pub(super) async fn run(bench: &mut Bench<'_>) {
    let events = bench.options.pick(15_000, 1_000);
    let rounds = bench.options.pick(5, 1);
    let [mut ours, mut posting, mut silent] = [const { Vec::new() }; 3];
    for round in 1..=rounds {
        ours.push(bridge(bench, events).await);
        posting.push(bare(bench, events, true).await);
        silent.push(bare(bench, events, false).await);
        let last = |rates: &[f64]| rates.last().copied().unwrap_or_default();
        println!(
            "  round {round} of {rounds}: hookbridge {:.0}/s bare loop {:.0}/s, without posting {:.0}/s",
            last(&ours),
            last(&posting),
            last(&silent)
        );
    }
    let what = "retry path over HTTP, every first attempt failing";
    let [ours, posting, silent] = [ours, posting, silent].map(median);
    let rows = [
        ("bare loop that posts", posting, Must::Nothing),
        ("bare loop that posts nothing", silent, Must::Reach(0.7)),
    ];
    let bar = |name: &str, figure: f64, ours| Bar {
        name: name.to_owned(),
        figure,
        text: format!("{}/s", thousands(figure)),
        ours,
    };
    bench.report.throughput.push(Group {
        title: what.to_owned(),
        bars: vec![
            bar("hookbridge", ours, true),
            bar("bare, posting", posting, false),
            bar("bare, not posting", silent, false),
        ],
    });
    for (name, figure, must) in rows {
        bench.report.add(Row {
            what: what.to_owned(),
            unit: Unit::PerSecond,
            ours,
            peer: Some((name.to_owned(), figure)),
            must,
        });
    }
}

async fn bridge(bench: &mut Bench<'_>, events: u64) -> f64 {
    let (ground, receiver) = (bench.ground, bench.receiver);
    let subscriber = Subscriber::http("retried", None, &receiver.url("second", 1));
    let setup = Setup::with(ground, &[subscriber], DELAY, "");
    receiver.arrivals.take();
    heap(ground, SOURCE, "everyone", events).await;
    let mut bridge = setup.start().process;
    let count = Count::Arrivals(&receiver.arrivals);
    let round = watch(ground, &mut [&mut bridge], count, events).await;
    *bench.memory = bench.memory.max(round.memory);
    bridge.stop().await;
    round.per_second
}

/// The bare loop. Without posts, it says itself how much it has acknowledged.
async fn bare(bench: &Bench<'_>, events: u64, posts: bool) -> f64 {
    let (ground, receiver) = (bench.ground, bench.receiver);
    let second = ground.queue().await;
    let wait = dead_lettering(ground, &second, Some(DELAY)).await;
    let work = dead_lettering(ground, &wait, None).await;
    heap(ground, Route::queue(&work), "everyone", events).await;
    receiver.arrivals.take();
    let job = Job::Retry {
        uri: ground.uri.clone(),
        work: work.clone(),
        second: second.clone(),
        url: posts.then(|| receiver.url("second", 1)),
        concurrent: CONCURRENT,
    };
    let mut process = Process::start("bare-loop", &mut job.command());
    let queues = [work, wait, second];
    let log = process.log();
    let count = if posts {
        Count::Arrivals(&receiver.arrivals)
    } else {
        Count::Told(&log)
    };
    let round = watch(ground, &mut [&mut process], count, events).await;
    drop(process);
    for queue in &queues {
        ground.purge(queue).await;
    }
    round.per_second
}

/// A queue that dead-letters to another at least once.
async fn dead_lettering(ground: &Ground, to: &str, ttl: Option<Duration>) -> String {
    let mut arguments = vec![
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(to)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ];
    if let Some(ttl) = ttl {
        let milliseconds = i64::try_from(ttl.as_millis()).expect("a number");
        arguments.push(("x-message-ttl", AMQPValue::LongLongInt(milliseconds)));
    }
    ground.queue_with(&arguments).await
}
