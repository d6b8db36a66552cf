//! Properties and headers that look like the bridge's and the broker's own, and messages published
//! past intake, straight into the bridge's exchanges.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable},
};
use uuid::Uuid;

use crate::faults::{chance::Chance, ledger::FORGED};

/// Headers whose values are texts.
const TEXTS: [&str; 20] = [
    "hookbridge-subscriber",
    "hookbridge-reason",
    "hookbridge-detail",
    "hookbridge-first-reason",
    "hookbridge-first-detail",
    "hookbridge-failed-at",
    "hookbridge-case",
    "webhook-id",
    "webhook-type",
    "webhook-attempt",
    "webhook-timestamp",
    "webhook-signature",
    "x-first-death-queue",
    "x-first-death-exchange",
    "x-first-death-reason",
    "x-last-death-queue",
    "x-last-death-exchange",
    "x-last-death-reason",
    "traceparent",
    "authorization",
];
/// Headers whose values are numbers.
const NUMBERS: [&str; 4] = [
    "hookbridge-attempts",
    "hookbridge-replay",
    "hookbridge-received-at",
    "x-delivery-count",
];

/// Longer than a run: a message that expires in `lost` is gone, as its publisher asked for.
const EXPIRATION: &str = "3600000";

/// A message that somebody who may publishes into the bridge's own exchanges.
pub struct Stray {
    pub exchange: &'static str,
    pub key: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    /// Why it is dead at the end; nothing if it must be in `lost`.
    pub reason: Option<&'static str>,
    pub attempts: &'static str,
}

/// Properties with whatever a publisher may forge. On the source exchange every further key leads to
/// the one queue.
pub fn properties(chance: &mut Chance) -> BasicProperties {
    let copies = ["CC", "BCC"].into_iter().filter(|_| chance.below(3) == 0);
    let copies: Vec<_> = copies.collect();
    forged(chance, &copies)
}

fn forged(chance: &mut Chance, copies: &[&str]) -> BasicProperties {
    let mut table = FieldTable::default();
    for name in TEXTS {
        if chance.below(2) == 0 {
            table.insert(name.into(), text(FORGED));
        }
    }
    for name in NUMBERS {
        if chance.below(2) == 0 {
            table.insert(name.into(), AMQPValue::LongLongInt(2_000_000_000));
        }
    }
    if chance.below(2) == 0 {
        table.insert("x-death".into(), AMQPValue::FieldArray(death()));
    }
    for name in copies {
        let keys = vec![text(FORGED), text("fast.00.2000.forged")];
        table.insert((*name).into(), AMQPValue::FieldArray(keys.into()));
    }
    let properties = BasicProperties::default().with_headers(table);
    match chance.below(4) {
        0 => properties,
        1 => properties
            .with_message_id(FORGED.into())
            .with_expiration(EXPIRATION.into())
            .with_priority(255),
        2 => properties
            .with_content_type("text/forged".into())
            .with_content_encoding("gzip".into())
            .with_type(FORGED.into())
            .with_app_id(FORGED.into()),
        _ => properties
            .with_correlation_id(FORGED.into())
            .with_reply_to(FORGED.into())
            .with_timestamp(u64::MAX),
    }
}

/// The history of a message that was rejected in every queue of the line.
fn death() -> FieldArray {
    let queues = ["events", "first.fast.00", "retry.2000", "second.fast.00"];
    let entries = queues.map(|queue| {
        let mut entry = FieldTable::default();
        entry.insert("queue".into(), text(&format!("hookbridge.{queue}")));
        entry.insert("reason".into(), text("rejected"));
        entry.insert("exchange".into(), text(FORGED));
        entry.insert("count".into(), AMQPValue::LongLongInt(99));
        entry.insert(
            "routing-keys".into(),
            AMQPValue::FieldArray(vec![text(FORGED)].into()),
        );
        AMQPValue::FieldTable(entry)
    });
    entries.to_vec().into()
}

/// A message past intake that is no delivery, or one for nobody.
pub fn stray(chance: &mut Chance, number: usize) -> Stray {
    let body = format!("stray {number} \u{0}");
    let key = format!("fast.0{}.2000.stray", chance.below(8));
    let garbage = Stray {
        exchange: "hookbridge.first",
        key,
        body: body.into_bytes(),
        properties: forged(chance, &[]),
        reason: Some("protocol"),
        attempts: "1",
    };
    match chance.below(5) {
        0 => garbage,
        1 => Stray {
            exchange: "hookbridge.second",
            attempts: "2",
            ..garbage
        },
        2 => Stray {
            exchange: "hookbridge.retry",
            attempts: "2",
            ..garbage
        },
        3 => Stray {
            key: FORGED.to_owned(),
            reason: None,
            ..garbage
        },
        _ => Stray {
            properties: delivery_for_nobody(number),
            reason: Some("subscriber_removed"),
            attempts: "2",
            ..garbage
        },
    }
}

/// What a delivery carries, with a subscriber that there is not.
fn delivery_for_nobody(number: usize) -> BasicProperties {
    let mut table = FieldTable::default();
    let subscriber = format!("stray-{number}");
    table.insert("hookbridge-subscriber".into(), text(&subscriber));
    table.insert("webhook-type".into(), text("StatusUpdate"));
    table.insert("hookbridge-received-at".into(), AMQPValue::LongLongInt(0));
    table.insert("hookbridge-reason".into(), text("http_status"));
    table.insert("hookbridge-detail".into(), text(FORGED));
    table.insert("x-death".into(), AMQPValue::FieldArray(death()));
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, subscriber.as_bytes());
    BasicProperties::default()
        .with_headers(table)
        .with_message_id(id.to_string().into())
        .with_expiration(EXPIRATION.into())
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
