//! What the store can do, in SQLite on this disk: how long 100,000 subscribers take to load and what
//! memory they fill, how many dead letters a second are put into it, and how long a page takes.
//!
//! `cargo bench --bench store`. With `HOOKBRIDGE_BENCH_POSTGRES=postgres://…` in an empty database of
//! PostgreSQL instead. The claims: loaded within 3 s, below 200 MB, 2,000 dead letters a second,
//! a page within 50 ms.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and has nobody else to tell"
)]

use std::{collections::BTreeSet, time::Duration, time::Instant};

use hookbridge::{
    settings::{StorePlace, StoreSettings},
    store::{
        NewDeadLetter, Store,
        dead_letters::Kind,
        filter::Filter,
        subscribers::{Condition, Given},
    },
    subscriber::{
        HttpTarget, Interest, Origin, Subscriber, SubscriberId, SubscriberSet, Target,
        loading::Rules,
    },
    webhook::WebhookType,
};
use jiff::Timestamp;

const SUBSCRIBERS: u32 = 100_000;
const LETTERS: u32 = 100_000;
const BATCH: usize = 500;

fn hook(number: u32) -> Subscriber {
    Subscriber {
        id: SubscriberId::new(format!("case-{number:032x}")),
        enabled: true,
        interest: Interest::Cases(BTreeSet::from([format!(
            "8d30cc21-8e21-4e6b-9f1a-{number:012}"
        )])),
        events: WebhookType::ALL.into_iter().take(6).collect(),
        signing_secrets: Vec::new(),
        timeout: Duration::from_secs(15),
        max_in_flight: 64,
        target: Target::Http(HttpTarget {
            url: format!("https://hooks.example/cases/{number}?token=0123456789")
                .parse()
                .expect("a URL"),
            authorization: Some("Bearer 0123456789abcdef0123456789abcdef".into()),
            headers: Vec::new(),
        }),
        origin: Origin::Store { version: 0 },
    }
}

fn letter(number: u32) -> NewDeadLetter {
    let at = Timestamp::from_second(1_700_000_000 + i64::from(number)).expect("a time");
    NewDeadLetter {
        kind: Kind::Dead,
        message_id: String::new(),
        webhook_id: Some(uuid::Uuid::from_u128(number.into()).to_string()),
        replay: 0,
        subscriber: Some(format!("case-{:032x}", number % 1_000)),
        webhook: Some("StatusUpdate".into()),
        case: Some(format!("c-{number}")),
        reason: "http_status".into(),
        detail: "the endpoint answered 500: internal error".into(),
        attempts: Some(2),
        first_reason: Some("timeout".into()),
        first_detail: Some("no answer within 15s".into()),
        event_time: Some(at),
        received_at: Some(at),
        failed_at: at,
        routing_key: "fast.00.30000.case-x".into(),
        traceparent: None,
        payload: vec![b'x'; 500],
    }
}

/// The resident memory of this process, in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").expect("a key");
    let place = match std::env::var("HOOKBRIDGE_BENCH_POSTGRES") {
        Ok(url) => StorePlace::Postgres(url.into()),
        Err(_) => StorePlace::Sqlite(folder.path().join("store.db")),
    };
    println!("{}", place.kind());
    let settings = StoreSettings {
        place,
        secret_key_file: key,
        dead_letter_retention: None,
    };
    let rules = Rules {
        timeout: Duration::from_secs(15),
        shutdown_timeout: Duration::from_secs(30),
        max_in_flight: 64,
        prefix: "hookbridge".into(),
        source_exchange: "domain.events".into(),
    };
    let store = Store::new(settings.clone());
    store.open().await.expect("it opens");

    let began = Instant::now();
    for number in 0..SUBSCRIBERS {
        let hook = hook(number);
        let put = store.put_subscriber(&hook, Given::default(), Condition::None, "bench");
        put.await.expect("it is put");
    }
    let rate = f64::from(SUBSCRIBERS) / began.elapsed().as_secs_f64();
    println!("subscribers put one by one: {rate:.0}/s");
    drop(store);

    let before = resident();
    let began = Instant::now();
    let store = Store::new(settings);
    store.open().await.expect("it opens");
    let mut set = SubscriberSet::default();
    let mut after = String::new();
    loop {
        let page = store
            .subscribers_after(&after, 1_000, &rules)
            .await
            .expect("a page");
        let Some((last, _)) = page.last() else { break };
        after.clone_from(last);
        for (_, read) in page {
            set.insert(read.expect("a subscriber").into());
        }
    }
    let took = began.elapsed();
    let (now, (loaded, _)) = (resident(), set.counts());
    println!(
        "{loaded} subscribers loaded: {took:?}; resident {before:.0} MB before, {now:.0} MB after"
    );

    let began = Instant::now();
    let numbers: Vec<u32> = (0..LETTERS).collect();
    for some in numbers.chunks(BATCH) {
        let letters = some.iter().map(|number| letter(*number)).collect();
        store.archive(letters).await.expect("they are kept");
    }
    let rate = f64::from(LETTERS) / began.elapsed().as_secs_f64();
    println!("dead letters of 500 bytes archived: {rate:.0}/s");

    store.analyse().await.expect("it is analysed");
    let filter = Filter {
        subscriber: Some(format!("case-{:032x}", 7)),
        reason: Some("http_status".into()),
        kind: Some(Kind::Dead),
        ..Filter::default()
    };
    for (what, filter) in [("of all", Filter::default()), ("of one subscriber", filter)] {
        let began = Instant::now();
        let page = store
            .dead_letters(&filter, None, 100)
            .await
            .expect("a page");
        println!(
            "a page of {} {what}: {:?}",
            page.items.len(),
            began.elapsed()
        );
    }
    drop(set);
}
