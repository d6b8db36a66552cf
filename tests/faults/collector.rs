//! A subscriber that reads its queue: one consumer that comes back after every fault of its broker,
//! and tells a delivery that its own lost acknowledgement brings again from one that the bridge
//! repeats.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{sleep, timeout};

use super::ledger::{Ledger, forged};
use crate::support::client::Message;

const PREFETCH: u16 = 200;
const PAUSE: Duration = Duration::from_millis(100);
/// A broker that is frozen answers nothing.
const CONNECT: Duration = Duration::from_secs(5);

/// Reads `queue` on the broker at `uri` into the ledger, until it is dropped.
pub async fn collect(uri: String, queue: &'static str, ledger: Arc<Ledger>) {
    // What came before the connection broke, and how often: these may come again, flagged.
    let mut unsure: HashMap<String, usize> = HashMap::new();
    loop {
        let mut seen = Vec::new();
        // An error means that the broker is away, which is what runs like these are about.
        let _ = session(&uri, queue, &ledger, &mut unsure, &mut seen).await;
        for id in seen {
            *unsure.entry(id).or_default() += 1;
        }
        sleep(PAUSE).await;
    }
}

async fn session(
    uri: &str,
    queue: &str,
    ledger: &Ledger,
    unsure: &mut HashMap<String, usize>,
    seen: &mut Vec<String>,
) -> Result<(), lapin::Error> {
    let connect = Connection::connect(uri, ConnectionProperties::default());
    let Ok(connection) = timeout(CONNECT, connect).await else {
        return Ok(());
    };
    let connection = connection?;
    let channel = connection.create_channel().await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let tag = delivery.delivery_tag;
        note(delivery, ledger, unsure, seen);
        channel.basic_ack(tag, BasicAckOptions::default()).await?;
    }
    Ok(())
}

fn note(
    delivery: Delivery,
    ledger: &Ledger,
    unsure: &mut HashMap<String, usize>,
    seen: &mut Vec<String>,
) {
    let message = Message::from(delivery);
    let header = |name: &str| message.header(name).unwrap_or_default();
    let (id, attempt) = (header("webhook-id"), header("webhook-attempt"));
    if forged(message.said().as_bytes()) || forged(&message.body) {
        ledger.stranger(format!("{id} has something of its event's: {message:?}"));
    }
    if message.redelivered
        && let Some(times @ 1..) = unsure.get_mut(&id)
    {
        *times -= 1;
        return;
    }
    ledger.arrived(&id, attempt.parse().unwrap_or_default(), true);
    seen.push(id);
}
