//! The publisher of a run: numbered events at a steady rate, each confirmed, over a connection that
//! comes back. An event whose confirm a fault took is not sent again, so that what comes twice is
//! the bridge's doing.

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ConnectionStatus,
    PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, error::Elapsed, interval, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cast::parties,
    ledger::{Ledger, State},
};
use crate::support::{
    line::SOURCE,
    program::{EVENT_KEY, event},
};

const PAUSE: Duration = Duration::from_millis(100);
/// How long a write or a confirm is waited for while an alarm is on.
const PATIENCE: Duration = Duration::from_mins(2);
/// And while none is. The broker confirms nothing more on a channel whose queue has lost the node of
/// its leader (3.10.8); another channel does.
const CONFIRM: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);

/// A running publisher.
pub struct Load {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Load {
    /// Publishes `rate` events a second to the broker at `uri`.
    pub fn start(uri: String, rate: u32, ledger: Arc<Ledger>) -> Self {
        let stop = CancellationToken::new();
        let publisher = Publisher {
            uri,
            rate: rate.max(1),
            ledger,
            stop: stop.clone(),
        };
        let tasks = TaskTracker::new();
        tasks.spawn(publisher.run());
        tasks.close();
        Self { stop, tasks }
    }

    /// Publishes no more, and waits for the last confirms.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

struct Publisher {
    uri: String,
    rate: u32,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
}

impl Publisher {
    async fn run(self) {
        while !self.stop.is_cancelled() {
            // An error means that the broker is away, which is what runs like these are about.
            let _ = self.session().await;
            sleep(PAUSE).await;
        }
    }

    async fn session(&self) -> Result<(), lapin::Error> {
        let connect = Connection::connect(&self.uri, ConnectionProperties::default());
        let Ok(connection) = timeout(CONNECT, connect).await else {
            return Ok(());
        };
        let connection = connection?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let mut confirms = JoinSet::new();
        let status = connection.status();
        let result = self.publish(&channel, status, &mut confirms).await;
        while confirms.join_next().await.is_some() {}
        result
    }

    async fn publish(
        &self,
        channel: &Channel,
        status: &ConnectionStatus,
        confirms: &mut JoinSet<State>,
    ) -> Result<(), lapin::Error> {
        let mut ticks = interval(Duration::from_secs(1) / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            while let Some(state) = confirms.try_join_next() {
                if state.unwrap() == State::Uncertain {
                    return Ok(());
                }
            }
            let number = self.ledger.send();
            let sent = match timeout(PATIENCE, publish(channel, number)).await {
                Ok(Ok(sent)) => sent,
                Ok(Err(error)) => {
                    self.ledger.set(number, State::Uncertain);
                    return Err(error);
                }
                Err(_) => {
                    self.ledger.set(number, State::Uncertain);
                    return Ok(());
                }
            };
            let (ledger, status) = (Arc::clone(&self.ledger), status.clone());
            confirms.spawn(async move {
                let state = outcome(&confirmed(sent, &status).await);
                ledger.set(number, state);
                state
            });
        }
    }
}

/// Publishes as many events at once, and waits for their confirms. What the broker does not confirm
/// because it is in trouble is uncertain.
pub async fn flood(uri: &str, count: usize, ledger: &Ledger) {
    let mut sent = Vec::new();
    let connection = Connection::connect(uri, ConnectionProperties::default());
    if let Ok(Ok(connection)) = timeout(CONNECT, connection).await {
        // An error means that the broker is away, which is what runs like these are about.
        let _ = pour(&connection, count, ledger, &mut sent).await;
        let until = Instant::now() + CONNECT * 2;
        for (number, confirm) in sent {
            let confirm = timeout_at(until, confirm).await;
            ledger.set(number, outcome(&confirm));
        }
    }
}

async fn pour(
    connection: &Connection,
    count: usize,
    ledger: &Ledger,
    sent: &mut Vec<(usize, PublisherConfirm)>,
) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    for _ in 0..count {
        let number = ledger.send();
        ledger.set(number, State::Uncertain);
        let Ok(confirm) = timeout(CONNECT, publish(&channel, number)).await else {
            return Ok(());
        };
        sent.push((number, confirm?));
    }
    Ok(())
}

/// Publishes the event of this number.
async fn publish(channel: &Channel, number: usize) -> Result<PublisherConfirm, lapin::Error> {
    let body = event(&number.to_string(), parties(number)).to_string();
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let (exchange, key) = (SOURCE.into(), EVENT_KEY.into());
    channel
        .basic_publish(exchange, key, options, body.as_bytes(), properties)
        .await
}

/// Waits for a confirm: for longer while an alarm is on.
async fn confirmed(
    mut sent: PublisherConfirm,
    status: &ConnectionStatus,
) -> Result<Result<Confirmation, lapin::Error>, Elapsed> {
    let began = Instant::now();
    loop {
        match timeout(CONFIRM, &mut sent).await {
            Err(_) if status.blocked() && began.elapsed() < PATIENCE => {}
            confirm => return confirm,
        }
    }
}

/// What a confirm says, if it came in time.
fn outcome(confirm: &Result<Result<Confirmation, lapin::Error>, Elapsed>) -> State {
    if matches!(confirm, Ok(Ok(Confirmation::Ack(None)))) {
        State::Confirmed
    } else {
        State::Uncertain
    }
}
