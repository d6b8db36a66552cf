//! How long the API takes for a page, through every filter, with everything there.

use std::time::Duration;

use hookbridge::webhook::WebhookType;
use jiff::Timestamp;

use crate::{
    Size,
    bridge::Bridge,
    figure,
    letters::{FIRST, REASONS},
    subscribers::replayed_to,
};

const CLAIM: Duration = Duration::from_millis(50);
/// How often each page is asked for.
const TIMES: usize = 5;

/// How long pages took, and the slowest of them.
struct Times {
    all: Vec<Duration>,
    slowest: (Duration, String),
}

impl Times {
    fn new() -> Self {
        Self {
            all: Vec::new(),
            slowest: (Duration::ZERO, String::new()),
        }
    }

    /// The middle one of several times counts: others run on this machine, too.
    async fn page(&mut self, bridge: &mut Bridge, path: &str) -> Option<String> {
        let mut took = Vec::with_capacity(TIMES);
        let mut next = None;
        for _ in 0..TIMES {
            let (page, one) = bridge.get(path).await;
            next = page["next"].as_str().map(str::to_owned);
            took.push(one);
        }
        took.sort();
        let middle = took[TIMES / 2];
        if middle > self.slowest.0 {
            self.slowest = (middle, path.to_owned());
        }
        self.all.extend(took);
        next
    }

    fn say(mut self, what: &str) {
        self.all.sort();
        let of = |share: usize| self.all[(self.all.len() - 1) * share / 100];
        let (slowest, path) = self.slowest;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let said = format!(
            "{:.1} ms (median), {:.1} ms (99 in 100), slowest {:.1} ms: {path}",
            milliseconds(of(50)),
            milliseconds(of(99)),
            milliseconds(slowest),
        );
        figure(what, &said, slowest < CLAIM);
    }
}

/// Pages of subscribers.
pub(crate) async fn of_subscribers(bridge: &mut Bridge, size: Size) {
    for limit in [100, 1_000] {
        let mut times = Times::new();
        let middle = format!("case-{:032x}", size.subscribers / 2);
        let case = format!("8d30cc21-8e21-4e6b-9f1a-{:012}", size.subscribers / 2 + 1);
        for filter in [
            String::new(),
            format!("&cursor={middle}"),
            "&party=party-50".to_owned(),
            "&party=nobody-at-all".to_owned(),
            format!("&case={case}"),
            "&case=none".to_owned(),
            "&enabled=true".to_owned(),
            "&enabled=false".to_owned(),
            format!("&party=party-50&enabled=false&case={case}"),
        ] {
            let path = format!("/v1/subscribers?limit={limit}{filter}");
            times.page(bridge, &path).await;
        }
        times.say(&format!("pages of up to {limit} subscribers"));
    }
}

/// Pages of dead letters, through every combination of filters, the first page and one far behind.
pub(crate) async fn of_dead_letters(bridge: &mut Bridge) {
    let time = |seconds: i64| Timestamp::from_second(FIRST + seconds).expect("a time");
    // Of the third type none failed for the second reason, nor was any lost to a subscriber.
    let kinds = ["kind=dead", "kind=lost"];
    let filters = [
        format!("subscriber={}", replayed_to(7)),
        format!("type={}", WebhookType::ALL[2].name()),
        format!("reason={}", REASONS[1].as_str()),
        format!("since={}", time(100)),
        format!("until={}", time(90_000)),
    ];
    for limit in [100, 1_000] {
        let mut times = Times::new();
        for bits in 0..3_usize << filters.len() {
            let mut given: Vec<&str> = Vec::new();
            let kind = bits >> filters.len();
            given.extend(kinds.get(kind.wrapping_sub(1)));
            for (bit, filter) in filters.iter().enumerate() {
                if bits & (1 << bit) != 0 {
                    given.push(filter);
                }
            }
            let path = format!("/v1/dead-letters?limit={limit}&{}", given.join("&"));
            let path = path.trim_end_matches('&').to_owned();
            let next = times.page(bridge, &path).await;
            if next.is_some() {
                let far = time(20_000).as_microsecond();
                times.page(bridge, &format!("{path}&cursor={far}-1")).await;
            }
        }
        times.say(&format!("pages of up to {limit} dead letters"));
    }
}
