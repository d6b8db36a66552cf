//! Dead letters are moved into the store, each once, and wait in their queues while it is away.

use std::time::Duration;

use hookbridge::store::{
    Store,
    dead_letters::{DeadLetter, Kind},
    filter::Filter,
};
use lapin::{BasicProperties, ExchangeKind};
use serde_json::json;

use crate::support::{
    bridge::{RunningBridge, Setup},
    broker::Vhost,
    client::{Client, Published},
    eventually::eventually,
    http::{Answer, Receiver},
    postgres::{self, Postgres},
    program::event,
    proxy::Proxy,
};

/// What needs a database that was just started on a busy machine.
const LONG: Duration = Duration::from_mins(1);

fn everything(url: &str) -> String {
    format!("scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{url}\"\n")
}

pub(crate) async fn kept(store: &Store, filter: &Filter) -> Vec<DeadLetter> {
    store
        .dead_letters(filter, None, 1_000)
        .await
        .map(|page| page.items)
        .unwrap_or_default()
}

/// Waits until the store holds as many dead letters, and gives the latest of them.
pub(crate) async fn wait_kept(store: &Store, count: u64) -> Vec<DeadLetter> {
    let what = format!("{count} dead letters in the store");
    let everything = Filter::default();
    let all = async || {
        let held = store.count_dead_letters(&everything).await.ok()?;
        assert!(
            held <= count,
            "{held} dead letters in the store, and {count} were expected"
        );
        (held == count).then_some(())
    };
    eventually(&what, LONG, all).await;
    kept(store, &everything).await
}

async fn empty(client: &Client, queue: &str) {
    client
        .wait_for_depth(&format!("hookbridge.{queue}"), 0, LONG)
        .await;
}

/// Puts what looks like dead letters into the queue `dead`.
async fn die(client: &Client, ids: std::ops::Range<u32>) {
    die_with(client, ids, b"{}").await;
}

/// The same, with this payload.
pub(crate) async fn die_with(client: &Client, ids: std::ops::Range<u32>, payload: &[u8]) {
    for id in ids {
        let headers = [
            ("webhook-type", "StatusUpdate"),
            ("hookbridge-subscriber", "nobody"),
            ("hookbridge-reason", "http_status"),
            ("hookbridge-detail", "500"),
            ("hookbridge-failed-at", "2026-01-22T11:29:38.258Z"),
        ];
        let mut table = lapin::types::FieldTable::default();
        for (name, value) in headers {
            table.insert(
                name.into(),
                lapin::types::AMQPValue::LongString(value.into()),
            );
        }
        table.insert(
            "hookbridge-attempts".into(),
            lapin::types::AMQPValue::LongLongInt(2),
        );
        table.insert(
            "hookbridge-received-at".into(),
            lapin::types::AMQPValue::LongLongInt(1_700_000_000_000),
        );
        let id = uuid::Uuid::from_u128(id.into()).to_string();
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(id.into())
            .with_headers(table);
        let published = client
            .publish_with("", "hookbridge.dead", payload, properties)
            .await;
        assert_eq!(published, Published::Routed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dead_rejected_or_lost_is_kept_in_the_store_and_told_apart() {
    let vhost = Vhost::new("archive");
    let receiver = Receiver::start().await;
    receiver.answer_in_turn(
        "/hook",
        vec![Answer::Status(503), Answer::Body(410, b"gone".into())],
    );
    let setup = Setup::new(&vhost).sqlite();
    let bridge = setup
        .subscriber("fixit", &everything(&receiver.url("/hook")))
        .start()
        .await;
    bridge.publish(&event("evt", &[])).await;
    bridge
        .publish_raw("any", b"no json", BasicProperties::default())
        .await;
    let lost = bridge
        .client
        .publish("hookbridge.lost", "some.key", b"stray")
        .await;
    assert_eq!(lost, Published::Routed);

    let store = bridge.store();
    let all = wait_kept(&store, 3).await;
    let of = |kind| all.iter().find(|one| one.kind == kind).unwrap();
    let dead = of(Kind::Dead);
    assert_eq!(dead.subscriber.as_deref(), Some("fixit"));
    assert_eq!(dead.webhook.as_deref(), Some("StatusUpdate"));
    assert_eq!(
        (dead.reason.as_str(), dead.attempts),
        ("http_status", Some(2))
    );
    assert!(dead.detail.contains("410"), "{}", dead.detail);
    assert_eq!(dead.first_reason.as_deref(), Some("http_status"));
    assert!(dead.first_detail.as_deref().unwrap().contains("503"));
    assert_eq!(dead.case.as_deref(), Some("evt"));
    assert_eq!((dead.replay, dead.count), (0, 1));
    let full = store.dead_letter(dead.id).await.unwrap();
    let arrived = &receiver.arrivals()[0];
    assert_eq!(full.payload, arrived.body);
    assert_eq!(
        full.letter.webhook_id.as_deref(),
        arrived.header("webhook-id")
    );
    let rejected = of(Kind::Rejected);
    assert_eq!(rejected.reason, "not_json");
    assert_eq!(
        store.dead_letter(rejected.id).await.unwrap().payload,
        b"no json"
    );
    let lost = of(Kind::Lost);
    assert_eq!(
        (lost.reason.as_str(), lost.routing_key.as_str()),
        ("broker", "some.key")
    );
    for queue in ["dead", "rejected", "lost"] {
        empty(&bridge.client, queue).await;
    }
    bridge
        .wait_for_metric("hookbridge_dead_letters", &[], 3)
        .await;
    bridge
        .wait_for_metric("hookbridge_dead_letters_archived_total", &[], 3)
        .await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_keep_each_dead_letter_once_though_one_of_them_crashes() {
    const LETTERS: u32 = 3_000;
    let vhost = Vhost::new("archive");
    let url = postgres::server().database().await;
    let bridge = async || Setup::new(&vhost).postgres(&url).start().await;
    let (one, other) = (bridge().await, bridge().await);
    let store = other.store();
    die(&one.client, 0..LETTERS / 2).await;
    let some = async || {
        let held = store.count_dead_letters(&Filter::default()).await.unwrap();
        (held > 0).then_some(())
    };
    eventually("some are kept", LONG, some).await;
    let (client, publishing) = (one.client.clone(), die(&other.client, LETTERS / 2..LETTERS));
    one.crash();
    publishing.await;
    drop(client);
    wait_kept(&store, LETTERS.into()).await;
    empty(&other.client, "dead").await;
    wait_kept(&store, LETTERS.into()).await;
    let counted_twice = kept(&store, &Filter::default())
        .await
        .iter()
        .any(|one| one.count != 1);
    assert!(!counted_twice);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_while_the_store_is_away_and_dead_letters_wait() {
    let vhost = Vhost::new("archive");
    let postgres = Postgres::start();
    let url = postgres.database().await;
    let receiver = Receiver::start().await;
    receiver.answer("/bad", Answer::Status(500));
    let setup = Setup::new(&vhost).postgres(&url);
    let setup = setup.subscriber("good", &everything(&receiver.url("/good")));
    let bridge = setup
        .subscriber("bad", &everything(&receiver.url("/bad")))
        .start()
        .await;
    let store = bridge.store();
    bridge.publish(&event("before", &[])).await;
    wait_kept(&store, 1).await;

    postgres.stop();
    for number in 0..20 {
        bridge.publish(&event(&format!("evt-{number}"), &[])).await;
    }
    eventually("deliveries go on", LONG, async || {
        (receiver.arrivals_at("/good").len() == 21).then_some(())
    })
    .await;
    bridge
        .client
        .wait_for_depth("hookbridge.dead", 20, LONG)
        .await;
    let why = store.away().expect("the store is away");
    assert!(!why.is_empty());
    assert_eq!(bridge.readiness().await.0, 200, "the line goes on");
    bridge
        .wait_for_metric("hookbridge_store_connected", &[], 0)
        .await;

    postgres.restart();
    let all = wait_kept(&store, 21).await;
    assert!(all.iter().all(|one| one.count == 1));
    empty(&bridge.client, "dead").await;
    bridge
        .wait_for_metric("hookbridge_dead_letters", &[], 21)
        .await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_holds_nobody_up() {
    let vhost = Vhost::new("archive");
    let server = postgres::server();
    let line = Proxy::start(server.port());
    let url = server.database().await;
    let url = url.replace(&server.port().to_string(), &line.port().to_string());
    let receiver = Receiver::start().await;
    let setup = Setup::new(&vhost).postgres(&url);
    let bridge = setup
        .subscriber("good", &everything(&receiver.url("/good")))
        .start()
        .await;
    let store = bridge.store();
    line.freeze();
    die(&bridge.client, 0..50).await;
    bridge.publish(&event("evt", &[])).await;
    receiver.wait_for(1, LONG).await;
    let found = eventually("it is found not to answer", LONG, async || store.away()).await;
    assert!(
        found.contains("did not answer") || found.contains("in time"),
        "{found}"
    );
    bridge.publish(&event("evt-2", &[])).await;
    receiver.wait_for(2, LONG).await;
    bridge
        .client
        .wait_for_depth("hookbridge.dead", 50, LONG)
        .await;
    line.forward().await;
    let all = wait_kept(&store, 50).await;
    assert!(all.iter().all(|one| one.count == 1));
    empty(&bridge.client, "dead").await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_locked_for_long_loses_nothing() {
    let vhost = Vhost::new("archive");
    let setup = Setup::new(&vhost).sqlite();
    let file = setup.folder().join("store.db");
    let bridge = setup.start().await;
    let store = bridge.store();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    die(&bridge.client, 0..50).await;
    eventually("the store is found locked", LONG, async || store.away()).await;
    let why = store.away().unwrap_or_default();
    assert!(why.contains("locked"), "{why}");
    bridge
        .client
        .wait_for_depth("hookbridge.dead", 50, LONG)
        .await;
    lock.rollback().await.unwrap();
    let all = wait_kept(&store, 50).await;
    assert!(all.iter().all(|one| one.count == 1));
    empty(&bridge.client, "dead").await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_loses_nothing() {
    let vhost = Vhost::new("archive");
    let setup = Setup::new(&vhost).sqlite();
    let file = setup.folder().join("store.db");
    let bridge = setup.start().await;
    let store = bridge.store();
    // What SQLite says on a full disk, for those who cannot mount one: see full_disk.rs.
    wait_kept(&store, 0).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON dead_letters \
                   BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END";
    sqlx::query(trigger).execute(&pool).await.unwrap();
    die(&bridge.client, 0..50).await;
    eventually("the store is found full", LONG, async || {
        store.away().filter(|why| why.contains("full"))
    })
    .await;
    sqlx::query("DROP TRIGGER full")
        .execute(&pool)
        .await
        .unwrap();
    wait_kept(&store, 50).await;
    empty(&bridge.client, "dead").await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_consumed_before_the_store_was_loaded_once() {
    let vhost = Vhost::new("archive");
    let postgres = Postgres::start();
    let url = postgres.database().await;
    postgres.stop();
    let receiver = Receiver::start().await;
    let setup = Setup::new(&vhost).postgres(&url);
    let setup = setup.subscriber("good", &everything(&receiver.url("/good")));
    let bridge: RunningBridge = setup.start_unready().await;
    // Declared by whoever comes first: publishing to what is not there costs the channel.
    bridge
        .client
        .declare_exchange("domain.events", ExchangeKind::Topic)
        .await;
    let says = async || {
        let (status, words) = bridge.readiness().await;
        (status == 503 && words.contains("store: nothing is consumed")).then_some(())
    };
    eventually("it says what it waits for", LONG, says).await;
    // It is bound last.
    let routed = async || {
        let body = event("evt", &[]).to_string();
        let published = bridge
            .client
            .publish("domain.events", "any", body.as_bytes())
            .await;
        (published == Published::Routed).then_some(())
    };
    eventually("events are taken", LONG, routed).await;
    bridge
        .client
        .wait_for_depth("hookbridge.events", 1, LONG)
        .await;
    assert!(receiver.arrivals().is_empty());

    postgres.restart();
    bridge.wait_until_ready().await;
    let arrived = receiver.wait_for(1, LONG).await;
    let body: serde_json::Value = serde_json::from_slice(&arrived[0].body).unwrap();
    assert_eq!(body["guid"], json!("evt"));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dead_letters_are_removed_and_counted() {
    let vhost = Vhost::new("archive");
    let setup = Setup::new(&vhost).sqlite();
    let setup = setup.settings("[store]\ndead_letter_retention = \"3s\"");
    let bridge = setup.start().await;
    die(&bridge.client, 0..10).await;
    bridge
        .wait_for_metric("hookbridge_dead_letters_archived_total", &[], 10)
        .await;
    bridge
        .wait_for_metric("hookbridge_dead_letters_removed_total", &[], 10)
        .await;
    wait_kept(&bridge.store(), 0).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_rejected_many_times_in_one_batch_is_counted_as_often() {
    const TIMES: i64 = 100;
    let vhost = Vhost::new("archive");
    let bridge = Setup::new(&vhost).sqlite().start().await;
    let same = (0..TIMES).map(|_| ("any", &b"no json"[..]));
    bridge.publish_many(same).await;
    let counted = async || {
        let all = kept(&bridge.store(), &Filter::default()).await;
        (all.first()?.count == TIMES).then_some(())
    };
    eventually("each of them is counted", LONG, counted).await;
    bridge.stop().await;
}
