//! Consume, post, acknowledge: the yardstick of delivering over HTTP.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::StreamExt;
use lapin::{Channel, options::BasicAckOptions};
use reqwest::{Client, Url, header};
use tokio::sync::{Semaphore, mpsc};

use super::consume;
use crate::ground::connect;

/// Somewhere to post to, with as many posts at once as a subscriber may have.
struct Endpoint {
    url: Url,
    slots: Arc<Semaphore>,
}

pub(super) async fn run(uri: &str, from: &str, urls: &[String], concurrent: usize) {
    let connection = connect(uri).await;
    let (channel, mut consumer) = consume(&connection, from).await;
    let client = client();
    let endpoints: Vec<_> = urls
        .iter()
        .map(|url| Endpoint {
            url: url.parse().expect("a URL"),
            slots: Arc::new(Semaphore::new(concurrent)),
        })
        .collect();
    let (done, posted) = mpsc::unbounded_channel();
    tokio::spawn(acknowledge(channel, posted));
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.expect("a message");
        let body = bytes::Bytes::from(delivery.data);
        // Dropped with the last of its posts, which is when the message is done.
        let settled = Arc::new(Settled {
            tag: delivery.delivery_tag,
            done: done.clone(),
        });
        for Endpoint { url, slots } in &endpoints {
            let slot = slots.clone().acquire_owned().await.expect("a slot");
            let (client, url, body) = (client.clone(), url.clone(), body.clone());
            let settled = settled.clone();
            tokio::spawn(async move {
                let status = post(&client, url, body, "1").await;
                assert!(status.is_success(), "the receiver answers {status}");
                drop((slot, settled));
            });
        }
    }
}

/// The client of the bridge, set as the bridge sets it.
pub(super) fn client() -> Client {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()
        .expect("an HTTP client")
}

/// Posts, and reads the answer to its end.
pub(super) async fn post(
    client: &Client,
    url: Url,
    body: bytes::Bytes,
    attempt: &'static str,
) -> reqwest::StatusCode {
    let response = client
        .post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-attempt", attempt)
        .body(body)
        .send()
        .await
        .expect("an answer");
    let status = response.status();
    response.bytes().await.expect("an answer's end");
    status
}

struct Settled {
    tag: u64,
    done: mpsc::UnboundedSender<u64>,
}

impl Drop for Settled {
    fn drop(&mut self) {
        // Nobody listens at the very end.
        self.done.send(self.tag).ok();
    }
}

/// Acknowledges what is done up to the first that is not, in one step however many they are.
pub(super) async fn acknowledge(channel: Channel, mut done: mpsc::UnboundedReceiver<u64>) {
    let (mut acknowledged, mut ahead) = (0, BTreeSet::new());
    let mut batch = Vec::new();
    while done.recv_many(&mut batch, 1_000).await > 0 {
        ahead.extend(batch.drain(..));
        let mut upto = acknowledged;
        while ahead.remove(&(upto + 1)) {
            upto += 1;
        }
        if upto > acknowledged {
            let multiple = BasicAckOptions { multiple: true };
            channel.basic_ack(upto, multiple).await.expect("an ack");
            acknowledged = upto;
        }
    }
}
