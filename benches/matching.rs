//! What it costs to find out who gets an event, and to change one subscriber, with 100 to 100,000 of
//! them: most are the hooks of one case each, and some belong to parties.
//!
//! `cargo bench --bench matching`. The claim: under 5 µs, and the same however many do not match.

#![expect(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark has nobody to tell, and its macros document nothing"
)]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hookbridge::{
    subscriber::{HttpTarget, Interest, Origin, Subscriber, SubscriberId, SubscriberSet, Target},
    webhook::{Audience, WebhookType},
};

const SIZES: [u32; 3] = [100, 10_000, 100_000];

fn hook(number: u32) -> Subscriber {
    let case = format!("8d30cc21-8e21-4e6b-9f1a-{number:012}");
    let interest = match number % 100 {
        0 => Interest::Party {
            party: format!("party-{number}"),
            cases: None,
        },
        _ => Interest::Cases([case].into()),
    };
    Subscriber {
        id: SubscriberId::new(format!("case-{number:032x}")),
        enabled: true,
        interest,
        events: WebhookType::ALL.into_iter().collect(),
        signing_secrets: Vec::new(),
        timeout: Duration::from_secs(15),
        max_in_flight: 64,
        target: Target::Http(HttpTarget {
            url: format!("https://hooks.example/{number}")
                .parse()
                .expect("a URL"),
            authorization: Some("Bearer token".into()),
            headers: Vec::new(),
        }),
        origin: Origin::Store { version: 1 },
    }
}

fn audience(case: u32) -> Audience {
    Audience {
        case: Some(format!("8d30cc21-8e21-4e6b-9f1a-{case:012}")),
        parties: vec!["party-0".into(), "glass".into(), "fixit".into()],
        sender: None,
    }
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matching");
    for size in SIZES {
        let set = SubscriberSet::new((0..size).map(hook).collect());
        let event = audience(size / 2 + 1);
        let found = set.matching(WebhookType::StatusUpdate, &event).count();
        assert_eq!(found, 2, "the case's hook, and a party");
        group.bench_with_input(BenchmarkId::new("an event", size), &set, |bencher, set| {
            bencher.iter(|| {
                let found = set.matching(WebhookType::StatusUpdate, black_box(&event));
                black_box(found.count())
            });
        });
        let nobody = Audience {
            case: Some("another".into()),
            parties: Vec::new(),
            sender: None,
        };
        group.bench_with_input(BenchmarkId::new("nobody", size), &set, |bencher, set| {
            bencher.iter(|| {
                let found = set.matching(WebhookType::StatusUpdate, black_box(&nobody));
                black_box(found.count())
            });
        });
        let changed = Arc::new(hook(size / 2 + 1));
        group.bench_with_input(BenchmarkId::new("a change", size), &set, |bencher, set| {
            bencher.iter(|| {
                let mut next = set.clone();
                next.insert(Arc::clone(&changed));
                black_box(next)
            });
        });
        let middle = format!("case-{:032x}", size / 2);
        group.bench_with_input(
            BenchmarkId::new("a page of 100", size),
            &set,
            |bencher, set| {
                bencher.iter(|| black_box(set.after(&middle).take(100).count()));
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = matching
}
criterion_main!(benches);
