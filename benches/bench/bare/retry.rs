//! Nack, wait in a queue with a time to live, and come back: the yardstick of the retry path.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{Channel, options::BasicNackOptions};
use reqwest::Url;
use tokio::sync::{Semaphore, mpsc};

use super::{
    consume,
    http::{acknowledge, client, post},
};
use crate::ground::connect;

pub(super) async fn run(uri: &str, work: &str, second: &str, url: Option<&str>, concurrent: usize) {
    let connection = connect(uri).await;
    let url: Option<Url> = url.map(|url| url.parse().expect("a URL"));
    let slots = Arc::new(Semaphore::new(concurrent));
    let client = client();
    let (nacking, mut first) = consume(&connection, work).await;
    let (acking, mut back) = consume(&connection, second).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    if url.is_none() {
        tokio::spawn(tell(acknowledged.clone()));
    }
    let (done, posted) = mpsc::unbounded_channel();
    tokio::spawn(acknowledge(acking, posted));
    loop {
        // Whichever of the two has a message.
        let (delivery, is_first) = tokio::select! {
            Some(delivery) = first.next() => (delivery, true),
            Some(delivery) = back.next() => (delivery, false),
            else => return,
        };
        let delivery = delivery.expect("a message");
        let tag = delivery.delivery_tag;
        let Some(url) = url.clone() else {
            if is_first {
                nack(&nacking, tag).await;
            } else {
                done.send(tag).expect("a listener");
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        };
        let slot = slots.clone().acquire_owned().await.expect("a slot");
        let (client, nacking, done) = (client.clone(), nacking.clone(), done.clone());
        tokio::spawn(async move {
            let attempt = if is_first { "1" } else { "2" };
            let status = post(&client, url, delivery.data.into(), attempt).await;
            if is_first {
                nack(&nacking, tag).await;
            } else {
                assert!(status.is_success(), "the receiver answers {status}");
                done.send(tag).expect("a listener");
            }
            drop(slot);
        });
    }
}

async fn nack(channel: &Channel, tag: u64) {
    let options = BasicNackOptions {
        multiple: false,
        requeue: false,
    };
    channel.basic_nack(tag, options).await.expect("a nack");
}

/// Nobody else sees how far a loop is that posts nothing.
async fn tell(acknowledged: Arc<AtomicU64>) {
    loop {
        println!("{}", acknowledged.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
