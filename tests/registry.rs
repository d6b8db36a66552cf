//! Subscribers that are changed while bridges run.

use std::{sync::Arc, time::Duration};

use hookbridge::{
    registry::ChangeError,
    settings::{StorePlace, StoreSettings},
    store::{
        Store,
        subscribers::{Condition, Given},
    },
    subscriber::{Subscriber, SubscriberId, Target},
};
use tokio::time::Instant;

use crate::support::{
    api::TOKENS,
    bridge::{RunningBridge, Setup},
    broker::Vhost,
    eventually::eventually,
    http::Receiver,
    planted, postgres,
    program::event,
};

const LONG: Duration = Duration::from_mins(1);

/// A subscriber to everything, which does not come from a file.
fn subscriber(id: &str, url: &str, authorization: Option<&str>) -> Subscriber {
    use hookbridge::{
        subscriber::{HttpTarget, Interest, Origin},
        webhook::WebhookType,
    };
    Subscriber {
        id: SubscriberId::new(id),
        enabled: true,
        interest: Interest::All,
        events: WebhookType::ALL.into_iter().collect(),
        signing_secrets: Vec::new(),
        timeout: Duration::from_secs(5),
        max_in_flight: 8,
        target: Target::Http(HttpTarget {
            url: url.parse().unwrap(),
            authorization: authorization.map(Into::into),
            headers: Vec::new(),
        }),
        origin: Origin::Store { version: 0 },
    }
}

async fn put(bridge: &RunningBridge, one: &Subscriber) {
    let put = bridge
        .registry
        .put(one, Given::default(), Condition::None, "ops")
        .await;
    put.unwrap();
}

/// Waits until a bridge knows a subscriber as it is wanted.
async fn knows(
    bridge: &RunningBridge,
    id: &str,
    wanted: impl Fn(Option<&Arc<Subscriber>>) -> bool,
) {
    let what = format!("the bridge knows of {id}");
    let known = async || wanted(bridge.registry.live().load().get(id)).then_some(());
    eventually(&what, LONG, known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_through_one_bridge_is_at_once_one_of_the_others() {
    let vhost = Vhost::new("registry");
    let url = postgres::server().database().await;
    let receiver = Receiver::start().await;
    let bridge = async || Setup::new(&vhost).postgres(&url).start().await;
    let (one, other) = (bridge().await, bridge().await);
    let bystander = subscriber("bystander", &receiver.url("/by"), None);
    put(&one, &bystander).await;
    knows(&other, "bystander", |found| found.is_some()).await;
    let untouched = other
        .registry
        .live()
        .load()
        .get("bystander")
        .unwrap()
        .clone();

    put(
        &one,
        &subscriber("fixit", &receiver.url("/hook"), Some("Bearer one")),
    )
    .await;
    knows(&other, "fixit", |found| found.is_some()).await;
    other
        .wait_for_metric("hookbridge_subscribers", &[("state", "enabled")], 2)
        .await;
    other.publish(&event("first", &[])).await;
    receiver.wait_for(2, LONG).await;

    put(
        &one,
        &subscriber("fixit", &receiver.url("/hook"), Some("Bearer two")),
    )
    .await;
    let has_two = |found: Option<&Arc<Subscriber>>| {
        found.is_some_and(|one| format!("{:?}", one.origin).contains("version: 3"))
    };
    knows(&other, "fixit", has_two).await;
    other.publish(&event("second", &[])).await;
    receiver.wait_for(4, LONG).await;
    let sent = receiver.arrivals_at("/hook");
    let sent: Vec<_> = sent
        .iter()
        .map(|one| one.header("authorization").unwrap())
        .collect();
    assert_eq!(sent, ["Bearer one", "Bearer two"]);

    let id = SubscriberId::new("fixit");
    one.registry
        .enable(&id, false, Condition::Exists, "ops")
        .await
        .unwrap();
    knows(&other, "fixit", |found| {
        found.is_some_and(|one| !one.enabled)
    })
    .await;
    one.registry.delete(&id, Condition::None).await.unwrap();
    knows(&other, "fixit", |found| found.is_none()).await;
    let still = other
        .registry
        .live()
        .load()
        .get("bystander")
        .unwrap()
        .clone();
    assert!(
        Arc::ptr_eq(&still, &untouched),
        "nobody else was read again"
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_through_one_bridge_is_one_of_the_other_within_a_second() {
    // The middle one of many: everything else that runs on this machine may hold up a few.
    const CHANGES: usize = 15;
    let vhost = Vhost::new("registry");
    let url = postgres::server().database().await;
    let bridge = async || Setup::new(&vhost).postgres(&url).start().await;
    let (one, other) = (bridge().await, bridge().await);
    // The first is heard of once both listen.
    put(&one, &subscriber("first", "https://first.example/", None)).await;
    knows(&other, "first", |found| found.is_some()).await;
    let mut took = Vec::with_capacity(CHANGES);
    for number in 0..CHANGES {
        let (from, to) = match number % 2 {
            0 => (&one, &other),
            _ => (&other, &one),
        };
        let id = format!("one-{number}");
        put(from, &subscriber(&id, "https://one.example/", None)).await;
        let began = Instant::now();
        while to.registry.live().load().get(&id).is_none() {
            assert!(began.elapsed() < LONG, "never heard of {id}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(began.elapsed());
    }
    took.sort();
    println!("known to the other after {took:?}");
    assert!(took[CHANGES / 2] < Duration::from_secs(1), "{took:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bridge_did_not_hear_it_asks_for_or_finds_when_it_reconnects() {
    let vhost = Vhost::new("registry");
    let url = postgres::server().database().await;
    let receiver = Receiver::start().await;
    let bridge = Setup::new(&vhost).postgres(&url).start().await;
    // Through the store alone, so that nobody tells.
    let store = bridge.store();
    let quiet = async |one: &Subscriber| {
        store
            .put_subscriber(one, Given::default(), Condition::None, "ops")
            .await
            .unwrap();
    };
    quiet(&subscriber("unheard", &receiver.url("/hook"), None)).await;
    assert!(bridge.registry.live().load().get("unheard").is_none());
    let found = async |id: &str| bridge.registry.find(&SubscriberId::new(id)).await.unwrap();
    let unheard = found("unheard").await;
    assert!(
        unheard.is_some(),
        "it asks before it calls somebody unknown"
    );
    assert!(found("nobody").await.is_none());
    // PostgreSQL cannot be asked about this one, and anybody may write it into a message.
    assert!(found("no\0body").await.is_none());

    quiet(&subscriber("missed", &receiver.url("/hook"), None)).await;
    let id = SubscriberId::new("unheard");
    store.delete_subscriber(&id, Condition::None).await.unwrap();
    bridge.close_connections();
    knows(&bridge, "missed", |found| found.is_some()).await;
    knows(&bridge, "unheard", |found| found.is_none()).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_in_a_file_is_changed_there_and_goes_before_the_store() {
    let vhost = Vhost::new("registry");
    let receiver = Receiver::start().await;
    let url = receiver.url("/file");
    let text = format!("scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{url}\"\n");
    let bridge = Setup::new(&vhost)
        .sqlite()
        .subscriber("fixit", &text)
        .start()
        .await;
    let one = subscriber("fixit", &receiver.url("/store"), None);
    let refused = bridge
        .registry
        .put(&one, Given::default(), Condition::None, "ops")
        .await;
    let Err(ChangeError::InFile(place)) = refused else {
        panic!("{refused:?}");
    };
    assert!(place.ends_with("fixit.toml:1"), "{place}");

    let other = subscriber("other", &receiver.url("/store"), None);
    put(&bridge, &other).await;
    bridge.write_subscriber("other", &text);
    bridge.reload(2, 0).await;
    let in_file = |found: Option<&Arc<Subscriber>>| {
        found.is_some_and(|one| one.origin.to_string().ends_with("other.toml:1"))
    };
    knows(&bridge, "other", in_file).await;
    bridge.remove_subscriber("other");
    bridge.handle.reload();
    let in_store = |found: Option<&Arc<Subscriber>>| {
        found.is_some_and(|one| one.origin.to_string() == "the store")
    };
    knows(&bridge, "other", in_store).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_nothing_can_be_changed() {
    let vhost = Vhost::new("registry");
    let bridge = Setup::new(&vhost).start().await;
    let one = subscriber("fixit", "https://fixit.example/", None);
    let refused = bridge
        .registry
        .put(&one, Given::default(), Condition::None, "ops")
        .await;
    assert_eq!(refused.err(), Some(ChangeError::NoStore));
    bridge.stop().await;
}

/// Another key than that of the bridges: 32 bytes in base64.
const STRANGE_KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n";

/// The same store as somebody sees it who has these keys.
async fn with_keys(url: &str, keys: &str) -> Store {
    let folder = tempfile::tempdir().unwrap();
    let secret_key_file = folder.path().join("store.key");
    std::fs::write(&secret_key_file, keys).unwrap();
    let store = Store::new(StoreSettings {
        place: StorePlace::Postgres(url.into()),
        secret_key_file,
        dead_letter_retention: None,
    });
    store.open().await.unwrap();
    store
}

async fn put_quietly(store: &Store, one: &Subscriber) {
    let put = store.put_subscriber(one, Given::default(), Condition::None, "ops");
    put.await.unwrap();
}

/// Waits until the bridge says that it cannot read this many subscribers.
async fn cannot_read(bridge: &RunningBridge, count: usize) -> String {
    let words = format!("{count} of its subscribers");
    let unready = async || {
        let (status, text) = bridge.readiness().await;
        (status == 503 && text.contains(&words)).then_some(text)
    };
    eventually("it is said that rows cannot be read", LONG, unready).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_with_another_key_consumes_nothing_and_says_which_file_to_mend() {
    let vhost = Vhost::new("registry");
    let url = postgres::server().database().await;
    let receiver = Receiver::start().await;
    let one = Setup::new(&vhost).postgres(&url).start().await;
    put(&one, &subscriber("fixit", &receiver.url("/hook"), None)).await;
    put(&one, &subscriber("glass", &receiver.url("/hook"), None)).await;
    one.stop().await;

    let setup = Setup::new(&vhost).postgres(&url).settings(TOKENS);
    let file = "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"https://filed.example/\"\n";
    let setup = setup.subscriber("glass", file);
    let key = setup.folder().join("store.key");
    std::fs::write(&key, STRANGE_KEY).unwrap();
    let other = setup.start_unready().await;
    // A file goes before the row of "glass".
    let why = cannot_read(&other, 1).await;
    assert!(
        why.contains("\"fixit\"") && why.contains(key.to_str().unwrap()),
        "{why}"
    );
    other.publish(&event("evt", &[])).await;
    let api = other.api();
    let list = api.get("/v1/subscribers").await.expect(503);
    assert!(
        list.detail().contains("1 of its subscribers"),
        "{}",
        list.detail()
    );
    api.get("/v1/subscribers/fixit").await.expect(503);
    api.get("/v1/subscribers/glass").await.expect(200);
    api.get("/v1/subscribers/nobody").await.expect(404);
    other
        .client
        .wait_for_depth("hookbridge.events", 1, LONG)
        .await;
    assert_eq!(
        other.metrics().await.value("hookbridge_events_total", &[]),
        0,
        "an event is not acknowledged as nobody's"
    );
    other.stop().await;

    let one = Setup::new(&vhost).postgres(&url).start().await;
    receiver.wait_for(2, LONG).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_and_cannot_be_read_stops_the_bridge_until_it_goes() {
    let vhost = Vhost::new("registry");
    let url = postgres::server().database().await;
    let receiver = Receiver::start().await;
    let bridge = Setup::new(&vhost).postgres(&url).start().await;
    let known = subscriber("known", &receiver.url("/known"), None);
    put(&bridge, &known).await;
    let stranger = with_keys(&url, STRANGE_KEY).await;
    let told = async |id: &str| {
        let exchange = "hookbridge.registry";
        bridge.client.publish(exchange, "", id.as_bytes()).await;
    };
    // What is known of it holds.
    put_quietly(
        &stranger,
        &subscriber("known", "https://other.example/", None),
    )
    .await;
    told("known").await;
    put_quietly(&stranger, &subscriber("new", &receiver.url("/new"), None)).await;
    told("new").await;
    let why = cannot_read(&bridge, 1).await;
    assert!(why.contains("\"new\""), "{why}");
    bridge.publish(&event("evt", &[])).await;
    bridge
        .client
        .wait_for_depth("hookbridge.events", 1, LONG)
        .await;
    let consumes = async || {
        let (_, text) = bridge.readiness().await;
        text.contains("consumer of hookbridge.events").then_some(())
    };
    eventually("its consumers are gone", LONG, consumes).await;
    assert!(receiver.arrivals().is_empty());

    let id = SubscriberId::new("new");
    bridge.registry.delete(&id, Condition::None).await.unwrap();
    bridge.wait_until_ready().await;
    receiver.wait_for(1, LONG).await;
    assert_eq!(receiver.arrivals_at("/known").len(), 1);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_encrypted_anew_once_nothing_stands_in_the_way() {
    let vhost = Vhost::new("registry");
    let url = postgres::server().database().await;
    let hook = |id| subscriber(id, "https://same.example/", None);
    // The URL is taken, but under another key that is not seen.
    put_quietly(
        &with_keys(&url, planted::STORE_KEY).await,
        &hook("case-one"),
    )
    .await;
    let new = with_keys(&url, STRANGE_KEY).await;
    put_quietly(&new, &hook("case-two")).await;
    let setup = Setup::new(&vhost).postgres(&url);
    let both = format!("{STRANGE_KEY}{}", planted::STORE_KEY);
    std::fs::write(setup.folder().join("store.key"), both).unwrap();
    let bridge = setup.start().await;
    let two = SubscriberId::new("case-two");
    bridge.registry.delete(&two, Condition::None).await.unwrap();
    // The next look.
    bridge.close_connections();
    let rules = hookbridge::subscriber::loading::Rules {
        timeout: LONG,
        shutdown_timeout: LONG,
        max_in_flight: 1,
        prefix: "hookbridge".into(),
        source_exchange: "domain.events".into(),
    };
    let anew = async || {
        let all = new.subscribers_after("", 10, &rules).await.unwrap();
        let [(id, read)] = all.as_slice() else {
            return None;
        };
        assert_eq!(id, "case-one");
        read.is_ok().then_some(())
    };
    eventually("the new key alone will do", LONG, anew).await;
    bridge.stop().await;
}
