//! 100,000 dead letters, as the bridge itself publishes them, and the archiver that moves them into
//! the store.

use std::time::{Duration, Instant};

use hookbridge::{
    broker::message::{HeaderValue, Message},
    delivery::{
        Attempt, Delivery, Failure, Reason,
        wire::{Consumed, Lanes},
    },
    subscriber::SubscriberId,
    webhook::WebhookType,
};
use jiff::Timestamp;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    Size,
    bridge::{Bridge, Setup},
    figure,
    subscribers::replayed_to,
};

/// When the first of them failed: one follows the other after a second.
pub(crate) const FIRST: i64 = 1_700_000_000;
/// Rejected events, and lost messages.
const OTHERS: u32 = 1_000;
const ARCHIVED: &str = "hookbridge_dead_letters_archived_total";
/// What is published before it is waited for confirms.
const AT_ONCE: usize = 1_000;

pub(crate) const REASONS: [Reason; 4] = [
    Reason::HttpStatus,
    Reason::Timeout,
    Reason::Connect,
    Reason::Tls,
];

/// Types and reasons go together so that half of the pairs do not occur: the worst case of a filter.
fn letter(lanes: &Lanes, number: u32) -> Message {
    let failed = Timestamp::from_second(FIRST + i64::from(number)).expect("a time");
    let index = usize::try_from(number).expect("a number");
    let delivery = Delivery {
        webhook_id: uuid::Uuid::from_u128(u128::from(number) + 1),
        kind: WebhookType::ALL[index % WebhookType::ALL.len()],
        subscriber: SubscriberId::new(replayed_to(number / 7)),
        payload: vec![b'x'; 500].into(),
        event_time: failed,
        received_at: failed,
        replay: 0,
        case: Some(format!("case-{}", number % 10_000)),
        traceparent: None,
    };
    let first = Failure::new(Reason::Timeout, "no answer within 15s");
    let consumed = Consumed {
        first: Some(first),
        ..Consumed::fresh(delivery)
    };
    let reason = REASONS[index % REASONS.len()];
    let failure = Failure::new(reason, "the endpoint answered 500: internal error");
    lanes.dead(&consumed, Attempt::Second, &failure, failed)
}

async fn channel(setup: &Setup) -> (Connection, Channel) {
    let connection = Connection::connect(&setup.uri, ConnectionProperties::default());
    let connection = connection.await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.expect("confirms");
    (connection, channel)
}

async fn publish_one(channel: &Channel, message: &Message) {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
            HeaderValue::Number(number) => AMQPValue::LongLongInt(*number),
        };
        headers.insert((*name).into(), value);
    }
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(message.message_id.as_str().into())
        .with_headers(headers);
    let sent = channel.basic_publish(
        message.exchange.as_str().into(),
        message.routing_key.as_str().into(),
        BasicPublishOptions::default(),
        &message.body,
        properties,
    );
    // Its confirm is waited for with those of others.
    drop(sent.await.expect("it is published"));
}

/// Puts them into the queue `dead`, where no bridge takes them yet.
pub(crate) async fn publish(setup: &Setup, size: Size) {
    let (_connection, channel) = channel(setup).await;
    let lanes = Lanes::new("hookbridge", Duration::from_secs(30));
    let numbers: Vec<u32> = (0..size.letters).collect();
    for some in numbers.chunks(AT_ONCE) {
        for number in some {
            publish_one(&channel, &letter(&lanes, *number)).await;
        }
        let returned = channel.wait_for_confirms().await.expect("confirms");
        assert!(returned.is_empty(), "nothing is returned");
    }
    assert_eq!(depth(&channel, "dead").await, size.letters);
}

async fn depth(channel: &Channel, queue: &str) -> u32 {
    let options = QueueDeclareOptions {
        passive: true,
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let queue = format!("hookbridge.{queue}");
    let declared = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
    declared.await.expect("the queue").message_count()
}

/// Starts the bridge on the full queue, and waits until everything is in the store and acknowledged.
pub(crate) async fn archive(setup: &Setup, size: Size) -> Bridge {
    let (_connection, channel) = channel(setup).await;
    let bridge = setup.start().await;
    let all = f64::from(size.letters);
    // From when it was seen at work, so that its start is not counted.
    let (mut first, mut began) = (0.0, Instant::now());
    loop {
        let archived = bridge.metric(ARCHIVED).await;
        if first == 0.0 && archived > 0.0 {
            (first, began) = (archived, Instant::now());
        }
        if archived >= all && depth(&channel, "dead").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = (all - first) / began.elapsed().as_secs_f64();
    figure(
        "dead letters of 500 bytes from the queue into the store, acknowledged",
        &format!("{rate:.0}/s"),
        rate >= 2_000.0,
    );
    let (now, peak) = (bridge.process.memory(), bridge.process.peak_memory());
    println!("  resident after that, and at most: {now:.0}, {peak:.0} MiB");
    bridge
}

/// Puts rejected events and lost messages beside them, and waits until they are in the store.
pub(crate) async fn publish_others(setup: &Setup, bridge: &Bridge) {
    let (_connection, channel) = channel(setup).await;
    let before = bridge.metric(ARCHIVED).await;
    for number in 0..OTHERS {
        let queue = ["rejected", "lost"][usize::from(number % 2 == 0)];
        let message = Message::plain(
            "",
            format!("hookbridge.{queue}"),
            format!("other-{number}"),
            "not a delivery",
        );
        publish_one(&channel, &message).await;
    }
    channel.wait_for_confirms().await.expect("confirms");
    while bridge.metric(ARCHIVED).await < before + f64::from(OTHERS) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
