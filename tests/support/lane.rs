//! Deliveries in the lanes, by the rules in the documentation.

use jiff::Timestamp;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use sha2::{Digest, Sha256};

use super::{
    client::{Client, Published},
    line::{WEBHOOK, webhook_id},
};

/// The routing key of a delivery in a fast lane.
pub fn fast(subscriber: &str, delay: u32) -> String {
    format!("fast.{:02}.{delay}.{subscriber}", number(subscriber, 8))
}

/// The routing key of a delivery in a slow lane.
pub fn slow(subscriber: &str, delay: u32) -> String {
    let lane = slow_lane(subscriber);
    format!("slow.{lane:02}.{delay}.{subscriber}")
}

/// The number of a subscriber's slow lane.
pub fn slow_lane(subscriber: &str) -> u32 {
    number(subscriber, 16)
}

fn number(subscriber: &str, lanes: u32) -> u32 {
    let digest = Sha256::digest(subscriber);
    let number = digest[..4].iter().fold(0_u32, |number, byte| {
        number.wrapping_mul(256) + u32::from(*byte)
    });
    number % lanes
}

/// Puts a delivery of the example into the set `first`, as intake does, with these headers besides.
pub async fn hand_in(client: &Client, event: &str, key: &str, more: &[(&str, AMQPValue)]) {
    let webhook: serde_json::Value = serde_json::from_str(WEBHOOK).unwrap();
    let subscriber = key.split('.').skip(3).collect::<Vec<_>>().join(".");
    let mut headers = vec![
        ("webhook-type", text("StatusUpdate")),
        ("hookbridge-subscriber", text(&subscriber)),
        (
            "hookbridge-received-at",
            AMQPValue::LongLongInt(Timestamp::now().as_millisecond()),
        ),
        ("hookbridge-replay", AMQPValue::LongLongInt(0)),
    ];
    headers.extend_from_slice(more);
    let id = webhook_id("/order-hub", event, &subscriber);
    let properties = BasicProperties::default()
        .with_message_id(id.into())
        .with_headers(table(&headers));
    let body = webhook.to_string();
    let published = client
        .publish_with("hookbridge.first", key, body.as_bytes(), properties)
        .await;
    assert_eq!(published, Published::Routed);
}

pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

pub fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    table
}
