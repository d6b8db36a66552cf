//! The end of a run: everything comes to rest, and is accounted for.

use std::time::{Duration, Instant};

use hookbridge::broker::topology::Topology;
use tokio::{task::block_in_place, time::sleep};

use super::{SHUTDOWN, Stage};
use crate::{
    faults::{
        account::{Account, Terms},
        cast::Who,
        process::{Process, Remains},
        report::Report,
    },
    support::{
        client::{Client, Message},
        line::SOURCE,
        program::Line,
    },
};

/// How long a queue may take to give a message, or none.
const ANSWER: Duration = Duration::from_secs(5);
/// The exchange by which what has waited for its retry goes on.
/// The queues in which a delivery has come to its end.
const ENDS: [&str; 3] = ["dead", "rejected", "lost"];

/// How many remarks there may be before what is in `lost` is told only as a number.
const REMARKS: usize = 6;
/// What a bridge says of a subscriber whose deliveries wait their turn from then on, and no longer.
const GETS_SLOW: &str = "answers late, or is sent more than it takes";
const GETS_QUICK: &str = "is quick again";

impl Stage {
    /// Notes what has come to its end so far. The home broker must be there.
    pub async fn take_what_ended(&self) {
        let client = Client::connect(&self.ground.client_uri()).await;
        self.take_everything(&client).await;
    }

    /// Publishes no more, waits until every delivery is somewhere and nothing is on its way, stops
    /// the bridges, and makes up the account.
    pub async fn finish(self, bridges: Vec<Process>) -> Report {
        let client = self.come_to_rest().await;
        for bridge in bridges {
            let remains = bridge.stop(SHUTDOWN * 2).await;
            if remains.code != Some(0) {
                self.wrong(format!("a stop ended with {:?}", remains.code));
            }
            self.keep(remains);
        }
        // What was unacknowledged is ready again, and counts.
        let left = self.on_its_way(&client).await;
        if left > 0 {
            self.wrong(format!("{left} deliveries are still on their way"));
        }
        self.take_everything(&client).await;
        self.report()
    }

    /// Publishes no more, and waits until every delivery is somewhere and nothing is on its way.
    pub async fn come_to_rest(&self) -> Client {
        let load = self.load.borrow_mut().take();
        if let Some(load) = load {
            load.stop().await;
        }
        let client = Client::connect(&self.ground.client_uri()).await;
        self.settle(&client).await;
        client
    }

    /// The dead letters so far, once the run has come to rest.
    pub fn letters(&self) -> Vec<Message> {
        self.letters.borrow().clone()
    }

    /// Waits until every delivery is somewhere, and the line is empty; gives up when nothing moves.
    async fn settle(&self, client: &Client) {
        let patience = self.options.patience;
        let began = Instant::now();
        let (mut moved, mut before) = (began, None);
        while moved.elapsed() < patience {
            self.take_everything(client).await;
            let now = (self.ledger.open(), self.on_its_way(client).await);
            if now == (0, 0) {
                let took = began.elapsed();
                self.remark(format!("at rest {took:.0?} after the last event"));
                return;
            }
            if before.replace(now) != Some(now) {
                moved = Instant::now();
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Messages that wait in the line.
    async fn on_its_way(&self, client: &Client) -> u32 {
        let bindings = ["#".to_owned()];
        let delay = self.options.retry_delay;
        let topology = Topology::new("hookbridge", SOURCE, &bindings, delay);
        let mut messages = 0;
        for (group, queue) in topology.groups() {
            if !ENDS.contains(&group) {
                messages += client.depth(queue).await.unwrap_or_default();
            }
        }
        messages
    }

    /// Notes what is dead, lost, or in the queues that are looked at only now.
    async fn take_everything(&self, client: &Client) {
        let dead = |letter: &Message| {
            let reason = letter.header("hookbridge-reason");
            let reason = reason.unwrap_or_else(|| "broker".to_owned());
            self.ledger.dead(&id_of(letter), reason);
            self.letters.borrow_mut().push(letter.clone());
        };
        client.take("hookbridge.dead", ANSWER, dead).await;
        let lost = |message: &Message| {
            let Message {
                exchange,
                routing_key,
                ..
            } = message;
            if self.remarks.borrow().len() < REMARKS {
                let said = message.said();
                self.remark(format!("in `lost`, from {exchange} {routing_key}: {said}"));
            }
            if message.header("hookbridge-subscriber").is_some() {
                self.ledger.lost(&id_of(message));
            } else {
                self.ledger.lost_event(&message.body);
            }
        };
        client.take("hookbridge.lost", ANSWER, lost).await;
        let arrived = |message: &Message| {
            let attempt = message.header("webhook-attempt").unwrap_or_default();
            let attempt = attempt.parse().unwrap_or_default();
            self.ledger.arrived(&id_of(message), attempt, true);
        };
        client.take("home.full", ANSWER, arrived).await;
        let away = Client::connect(&self.ground.away.amqp_uri("/")).await;
        away.take("away.full", ANSWER, arrived).await;
    }

    fn report(self) -> Report {
        let remains = self.remains.take();
        let terms = Terms {
            slow: remains
                .iter()
                .flat_map(|bridge| slow(&bridge.log))
                .collect(),
            seed: self.seed,
            retry_delay: self.options.retry_delay,
            timeout: self.options.timeout,
            late: self.options.late,
            hurt: self.options.hurt.clone(),
            queues_deleted: self.options.queues_deleted,
            lag: self.options.lag,
        };
        let account = Account::of(&self.ledger.book(), &terms, &self.windows.borrow());
        let wrong = self.wrong.take();
        let version = block_in_place(|| self.ground.home.rabbitmqctl(&["version"]).unwrap());
        Report {
            name: self.options.name,
            version,
            seed: self.seed,
            took: self.began.elapsed(),
            account,
            interruptions: self.windows.take().len(),
            recoveries: self.recoveries.take(),
            log: log(remains),
            notes: self.remarks.take(),
            wrong,
            delays_promised: true,
        }
    }
}

fn log(remains: Vec<Remains>) -> Vec<Line> {
    remains
        .into_iter()
        .flat_map(|remains| remains.log)
        .collect()
}

/// When a bridge called a subscriber slow, from its log.
fn slow(log: &[Line]) -> Vec<(Who, Instant, Instant)> {
    let mut times: Vec<(Who, Instant, Instant)> = Vec::new();
    let end = log.iter().map(|line| line.at).max();
    for line in log {
        let about = |who: &Who| line.text.contains(&format!("subscriber=\"{who}\""));
        let Some(who) = Who::ALL.into_iter().find(about) else {
            continue;
        };
        if line.text.contains(GETS_SLOW) {
            times.extend(end.map(|end| (who, line.at, end)));
        } else if line.text.contains(GETS_QUICK) {
            for (slow, _, to) in &mut times {
                if *slow == who && *to > line.at {
                    *to = line.at;
                }
            }
        }
    }
    times
}

fn id_of(message: &Message) -> String {
    let id = message.properties.message_id().as_ref();
    id.map_or_else(|| "no id".to_owned(), ToString::to_string)
}
