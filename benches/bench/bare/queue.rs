//! Consume, publish confirmed, acknowledge: the yardstick of delivering into queues; and a client
//! that only publishes.

use futures_util::{StreamExt, future::join_all};
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;

use super::{BATCH, consume};
use crate::{
    event,
    ground::{confirming, connect},
    load::{Route, confirmed, publish as publish_one, publish_webhook},
};

/// Batches whose confirms are waited for.
const BATCHES: usize = 4;

pub(super) async fn run(uri: &str, from: &str, to: &[String]) {
    let (consuming, publishing) = (connect(uri).await, connect(uri).await);
    let (channel, consumer) = consume(&consuming, from).await;
    let outgoing = confirming(&publishing).await;
    let (published, mut unconfirmed) = mpsc::channel::<(u64, Vec<_>)>(BATCHES);
    tokio::spawn(async move {
        while let Some((last, confirms)) = unconfirmed.recv().await {
            for confirm in confirms {
                confirmed(confirm).await;
            }
            let multiple = BasicAckOptions { multiple: true };
            channel.basic_ack(last, multiple).await.expect("an ack");
        }
    });
    // As many copies in each step, however many queues there are.
    let mut batches = consumer.ready_chunks((BATCH / to.len()).max(1));
    while let Some(batch) = batches.next().await {
        let batch: Vec<_> = batch
            .into_iter()
            .map(|delivery| delivery.expect("a message"))
            .collect();
        let Some(last) = batch.last().map(|delivery| delivery.delivery_tag) else {
            continue;
        };
        let copies = batch.iter().flat_map(|delivery| {
            to.iter()
                .map(|queue| publish_webhook(&outgoing, Route::queue(queue), &delivery.data))
        });
        let confirms = join_all(copies).await;
        published.send((last, confirms)).await.expect("a listener");
    }
}

pub(super) async fn publish(uri: &str, to: &[String], events: u64) {
    let connection = connect(uri).await;
    let channel = confirming(&connection).await;
    let (published, mut unconfirmed) = mpsc::channel::<Vec<_>>(BATCHES);
    let confirms = tokio::spawn(async move {
        while let Some(confirms) = unconfirmed.recv().await {
            for confirm in confirms {
                confirmed(confirm).await;
            }
        }
    });
    let step = u64::try_from((BATCH / to.len()).max(1)).expect("a number");
    let mut left = events;
    while left > 0 {
        let bodies: Vec<_> = (0..step.min(left))
            .map(|_| event::body(event::now(), "everyone"))
            .collect();
        let copies = bodies.iter().flat_map(|body| {
            to.iter()
                .map(|queue| publish_one(&channel, Route::queue(queue), body))
        });
        let batch = join_all(copies).await;
        published.send(batch).await.expect("a listener");
        left -= step.min(left);
    }
    drop(published);
    confirms.await.expect("confirms");
    // The figures are taken from the queues; this process is ended like the others.
    std::future::pending::<()>().await;
}
