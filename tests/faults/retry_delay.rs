//! `retry_delay` is another one after a restart, or in a second bridge: each failed delivery waits
//! as long as the bridge said that attempted it, and is attempted exactly twice.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{task::block_in_place, time::interval};

use super::{account::Account, report::Report};
use crate::support::{
    broker::{Vhost, node},
    client::{Client, Published},
    eventually::{SOON, eventually},
    http::{Answer, Arrival, Receiver},
    line::{SOURCE, webhook_id},
    program::{EVENT_KEY, Setup, event_body},
};

/// Further apart than anything may be late.
const DELAYS: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(1)];
/// What a retry may be late by: nobody consumes while a bridge is started again.
const LATE: Duration = Duration::from_secs(5);
/// What two clocks may differ by.
const ROUNDING: Duration = Duration::from_millis(20);
/// Between two events.
const PAUSE: Duration = Duration::from_millis(25);
/// How long a bridge runs under load before the next one takes over.
const RUN: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_retry_delay_holds_for_what_fails_from_then_on() {
    changed("retry-delay-changed-quick", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_retry_delay_changed_ten_times_holds_for_what_fails_from_then_on() {
    changed("retry-delay-changed", 11).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn two_bridges_with_different_delays_make_two_attempts() {
    different("retry-delay-differs", Duration::from_secs(30)).await;
}

/// Bridges with one delay and the other in turn.
async fn changed(name: &'static str, runs: usize) {
    let mut ground = Ground::new().await;
    let mut bridge = ground.bridges[0].run_ready().await;
    for run in 0..runs {
        ground.publish(RUN).await;
        if run + 1 < runs {
            bridge.stop().await;
            // Those that failed now wait there, while the next one knows another delay.
            if run % 2 == 0 {
                assert!(ground.waiting(DELAYS[0]).await > 0, "nobody waits");
            }
            bridge = ground.bridges[(run + 1) % 2].run_ready().await;
        }
    }
    ground.ended().await;
    bridge.stop().await;
    ground
        .report(name, runs - 1)
        .await
        .must_hold_without_repeats();
}

/// Both at once.
async fn different(name: &'static str, time: Duration) {
    let mut ground = Ground::new().await;
    let bridges = [
        ground.bridges[0].run_ready().await,
        ground.bridges[1].run_ready().await,
    ];
    ground.publish(time).await;
    ground.ended().await;
    for bridge in bridges {
        bridge.stop().await;
    }
    let crossed = ground.crossed();
    assert!(crossed > 0, "neither took over from the other");
    let mut report = ground.report(name, 1).await;
    let note = format!("second attempts by the other bridge: {crossed}");
    report.notes.push(note);
    report.must_hold_without_repeats();
}

/// One attempt, as the endpoint saw it.
#[derive(Debug, Clone)]
struct Try {
    attempt: u8,
    /// The delay of the bridge that made it.
    delay: Duration,
    at: Instant,
}

struct Ground {
    _vhost: Vhost,
    client: Client,
    tries: Arc<Mutex<HashMap<String, Vec<Try>>>>,
    /// One for each delay.
    bridges: [Setup; 2],
    events: u32,
    began: Instant,
    _http: Receiver,
}

/// The subscriber that fails at the first attempt, and every other time at the second.
const FAILS: &str = "fails";
/// The subscriber whose queue on the home broker does not exist.
const MISSING: &str = "missing";

/// Whether the second attempt succeeds.
fn succeeds(id: &str) -> bool {
    id.as_bytes().last().is_some_and(|last| last % 2 == 0)
}

impl Ground {
    async fn new() -> Self {
        let vhost = Vhost::new("retry-delay");
        let http = Receiver::forgetful().await;
        let tries = Arc::<Mutex<HashMap<String, Vec<Try>>>>::default();
        let noted = Arc::clone(&tries);
        http.answer_with("/hook", move |arrival, _| note(arrival, &noted));
        let bridges = DELAYS.map(|delay| {
            let setup = Setup::of(&vhost);
            let delay = format!("{}ms", delay.as_millis());
            setup.set("delivery.retry_delay", delay.as_str());
            let all = |id: &str, target: &str| {
                let who = format!("id = {id:?}\nscope = \"all\"\nevents = [\"*\"]\n");
                setup.subscriber(id, &format!("{who}{target}\n"));
            };
            let url = http.url("/hook");
            all(
                FAILS,
                &format!("[http]\nurl = {url:?}\nheaders = {{ \"x-delay\" = {delay:?} }}"),
            );
            all(MISSING, "[amqp]\nqueue = \"nowhere\"");
            setup
        });
        Self {
            client: vhost.connect().await,
            _vhost: vhost,
            tries,
            bridges,
            events: 0,
            began: Instant::now(),
            _http: http,
        }
    }

    /// Publishes at a steady rate for a time.
    async fn publish(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let mut ticks = interval(PAUSE);
        while Instant::now() < until {
            ticks.tick().await;
            let body = event_body(&self.events.to_string());
            let published = self.client.publish(SOURCE, EVENT_KEY, &body).await;
            assert_eq!(published, Published::Routed);
            self.events += 1;
        }
    }

    async fn waiting(&self, delay: Duration) -> u32 {
        let queue = format!("hookbridge.retry.{}", delay.as_millis());
        self.client.depth(&queue).await.expect("it is declared")
    }

    fn id(number: u32, subscriber: &str) -> String {
        webhook_id("/tests", &number.to_string(), subscriber)
    }

    /// Waits until every delivery has come to its end.
    async fn ended(&self) {
        let fail = (0..self.events).filter(|number| !succeeds(&Self::id(*number, FAILS)));
        let dead = self.events + u32::try_from(fail.count()).unwrap();
        let deadline = DELAYS[0] + LATE + SOON;
        self.client
            .wait_for_depth("hookbridge.dead", dead, deadline)
            .await;
        let twice = async || {
            let tries = self.tries.lock().unwrap();
            let twice = tries.values().filter(|tries| tries.len() >= 2).count();
            (twice == self.events as usize).then_some(())
        };
        eventually("everything is attempted twice", deadline, twice).await;
    }

    /// Second attempts that a bridge with the other delay made.
    fn crossed(&self) -> usize {
        let tries = self.tries.lock().unwrap();
        let crossed =
            |tries: &&Vec<Try>| tries.first().map(|t| t.delay) != tries.last().map(|t| t.delay);
        tries.values().filter(crossed).count()
    }

    async fn report(self, name: &'static str, times: usize) -> Report {
        let mut letters = BTreeMap::<String, usize>::new();
        for letter in self.client.drain("hookbridge.dead").await {
            assert_eq!(letter.header("hookbridge-attempts").as_deref(), Some("2"));
            let id = letter.properties.message_id().as_ref().unwrap().to_string();
            *letters.entry(id).or_default() += 1;
        }
        let mut account = Account {
            events: self.events as usize,
            pairs: 2 * self.events as usize,
            ..Account::default()
        };
        let tries = self.tries.lock().unwrap().clone();
        for number in 0..self.events {
            let id = Self::id(number, MISSING);
            judge_end(&mut account, 0, letters.remove(&id), 1);
            let id = Self::id(number, FAILS);
            let tries = tries.get(&id).map_or(&[][..], Vec::as_slice);
            let delivered = usize::from(succeeds(&id));
            judge_end(&mut account, delivered, letters.remove(&id), 1 - delivered);
            judge_tries(&mut account, &id, tries);
        }
        account.strangers = letters.len();
        for queue in ["rejected", "lost", "retry.8000", "retry.1000", "events"] {
            let queue = format!("hookbridge.{queue}");
            assert_eq!(self.client.depth(&queue).await, Some(0), "{queue}");
        }
        Report {
            name,
            version: block_in_place(|| node().rabbitmqctl(&["version"]).unwrap()),
            seed: 0,
            took: self.began.elapsed(),
            account,
            interruptions: times,
            recoveries: Vec::new(),
            log: Vec::new(),
            delays_promised: true,
            notes: Vec::new(),
            wrong: Vec::new(),
        }
    }
}

fn note(arrival: &Arrival, tries: &Mutex<HashMap<String, Vec<Try>>>) -> Answer {
    let header = |name| arrival.header(name).unwrap_or_default();
    let id = header("webhook-id");
    let attempt = header("webhook-attempt").parse().unwrap_or_default();
    let milliseconds = header("x-delay").trim_end_matches("ms").parse().unwrap();
    let mut tries = tries.lock().unwrap();
    tries.entry(id.to_owned()).or_default().push(Try {
        attempt,
        delay: Duration::from_millis(milliseconds),
        at: Instant::now(),
    });
    if attempt > 1 && succeeds(id) {
        Answer::Status(200)
    } else {
        Answer::Status(500)
    }
}

/// Counts how a delivery ended: as it must, with so many dead letters.
fn judge_end(account: &mut Account, delivered: usize, letters: Option<usize>, expected: usize) {
    let letters = letters.unwrap_or_default();
    account.delivered += delivered;
    account.dead += letters.min(1);
    account.dead_twice += letters.saturating_sub(1);
    account.misled += usize::from(letters != expected);
}

/// Exactly a first attempt and a second one, after the delay of the bridge that made the first.
fn judge_tries(account: &mut Account, id: &str, tries: &[Try]) {
    let [
        first @ Try { attempt: 1, .. },
        second @ Try { attempt: 2, .. },
    ] = tries
    else {
        account.unexplained += 1;
        account
            .wrong
            .push(format!("{id}: not two attempts: {tries:?}"));
        return;
    };
    let waited = second.at - first.at;
    if waited + ROUNDING < first.delay {
        account.early += 1;
    } else if waited > first.delay + LATE {
        account.late += 1;
    } else {
        return;
    }
    account
        .wrong
        .push(format!("{id}: retried after {waited:?}: {tries:?}"));
}
