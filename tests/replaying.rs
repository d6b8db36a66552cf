//! Dead letters are replayed: through the line, with the webhook ids that they had, once each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hookbridge::{
    cli::demo::node::{NodeOptions, PrivateNode},
    replay::DEFAULT_RATE,
    store::{
        NewDeadLetter,
        dead_letters::Kind,
        filter::Filter,
        replays::{Replay, State},
        subscribers::Condition,
    },
    subscriber::SubscriberId,
};
use jiff::Timestamp;
use lapin::BasicProperties;

use crate::{
    archiving::{kept, wait_kept},
    support::{
        bridge::{RunningBridge, Setup},
        broker::Vhost,
        client::Client,
        eventually::eventually,
        faults::Alarm,
        http::{Answer, Receiver},
        program::event,
    },
};

const LONG: Duration = Duration::from_mins(1);

async fn ended(bridge: &RunningBridge, id: i64) -> Replay {
    let done = async || {
        let replay = bridge.replays().get(id).await.ok()?;
        (replay.state != State::Running).then_some(replay)
    };
    eventually("the replay ends", LONG, done).await
}

fn letter(number: u32, subscriber: &str) -> NewDeadLetter {
    let then = Timestamp::from_second(1_700_000_000 + i64::from(number)).unwrap();
    NewDeadLetter {
        kind: Kind::Dead,
        message_id: String::new(),
        webhook_id: Some(uuid::Uuid::from_u128(number.into()).to_string()),
        replay: 0,
        subscriber: Some(subscriber.into()),
        webhook: Some("StatusUpdate".into()),
        case: Some("c".into()),
        reason: "timeout".into(),
        detail: "slow".into(),
        attempts: Some(2),
        first_reason: None,
        first_detail: None,
        event_time: Some(then),
        received_at: Some(then),
        failed_at: then,
        routing_key: "fast.00.500.x".into(),
        redelivered: false,
        traceparent: None,
        payload: b"{}".into(),
    }
}

fn queue(name: &str) -> String {
    format!("scope = \"all\"\nevents = [\"*\"]\n[amqp]\nqueue = \"{name}\"\ndeclare = true\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_delivers_what_failed_under_the_same_webhook_id_and_marks_it() {
    let vhost = Vhost::new("replay");
    let receiver = Receiver::start().await;
    let answers = vec![
        Answer::Status(500),
        Answer::Status(500),
        Answer::Status(200),
    ];
    receiver.answer_in_turn("/hook", answers);
    let text = format!(
        "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{}\"\n",
        receiver.url("/hook")
    );
    let bridge = Setup::new(&vhost)
        .sqlite()
        .subscriber("fixit", &text)
        .start()
        .await;
    bridge.publish(&event("evt", &[])).await;
    let dead = wait_kept(&bridge.store(), 1).await.remove(0);

    let filter = Filter {
        subscriber: Some("fixit".into()),
        ..Filter::default()
    };
    let count = bridge.replays().count(&filter).await.unwrap();
    assert_eq!((count.total, count.skipped.gone), (1, 0));
    let replay = bridge
        .replays()
        .begin(filter.clone(), DEFAULT_RATE, "ops")
        .await
        .unwrap();
    assert_eq!((replay.total, replay.by.as_str()), (1, "ops"));
    let done = ended(&bridge, replay.id).await;
    assert_eq!((done.state, done.replayed), (State::Done, 1));

    let arrivals = receiver.wait_for(3, LONG).await;
    let ids: BTreeSet<_> = arrivals
        .iter()
        .map(|one| one.header("webhook-id"))
        .collect();
    assert_eq!(ids.len(), 1);
    let attempts: Vec<_> = arrivals
        .iter()
        .map(|one| one.header("webhook-attempt"))
        .collect();
    assert_eq!(attempts, [Some("1"), Some("2"), Some("1")]);
    assert_eq!(arrivals[2].body, arrivals[0].body);
    let marked = bridge.store().dead_letter(dead.id).await.unwrap().letter;
    assert_eq!(marked.replayed_by, Some(replay.id));
    assert!(marked.replayed_at.is_some());
    bridge
        .wait_for_metric("hookbridge_dead_letters", &[], 0)
        .await;

    // There is nothing left to replay.
    assert_eq!(bridge.replays().count(&filter).await.unwrap().total, 0);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_fails_again_is_a_dead_letter_of_its_own() {
    let vhost = Vhost::new("replay");
    let receiver = Receiver::start().await;
    receiver.answer("/hook", Answer::Status(500));
    let text = format!(
        "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{}\"\n",
        receiver.url("/hook")
    );
    let bridge = Setup::new(&vhost)
        .sqlite()
        .subscriber("fixit", &text)
        .start()
        .await;
    bridge.publish(&event("evt", &[])).await;
    let first = wait_kept(&bridge.store(), 1).await.remove(0);
    let replay = bridge
        .replays()
        .begin(Filter::default(), DEFAULT_RATE, "ops")
        .await
        .unwrap();
    let all = wait_kept(&bridge.store(), 2).await;
    assert_eq!(
        ended(&bridge, replay.id).await.replayed,
        1,
        "not the one that it made"
    );
    let again = all.iter().find(|one| one.id != first.id).unwrap();
    assert_eq!((again.replay, &again.webhook_id), (1, &first.webhook_id));
    assert!(again.replayed_at.is_none());
    let full = bridge.store().dead_letter(again.id).await.unwrap();
    assert_eq!(full.related[0].id, first.id);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_events_go_back_to_where_they_came_from() {
    let vhost = Vhost::new("replay");
    let setup = Setup::new(&vhost)
        .sqlite()
        .settings("[source]\nunknown_events = \"reject\"");
    let bridge = setup.start().await;
    bridge
        .publish_raw("any", b"never json", BasicProperties::default())
        .await;
    wait_kept(&bridge.store(), 1).await;
    let replay = bridge
        .replays()
        .begin(Filter::default(), DEFAULT_RATE, "ops")
        .await
        .unwrap();
    let done = ended(&bridge, replay.id).await;
    assert_eq!(
        done.replayed, 1,
        "not again and again, though it comes back each time"
    );
    let counted = async || {
        let all = kept(&bridge.store(), &Filter::default()).await;
        (all[0].count == 2 && all[0].replayed_at.is_none()).then_some(())
    };
    eventually("it is rejected once more, and open again", LONG, counted).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gone_or_disabled_in_between_is_said() {
    let vhost = Vhost::new("replay");
    let setup = Setup::new(&vhost)
        .sqlite()
        .subscriber("here", &queue("here"));
    let bridge = setup
        .subscriber("off", &format!("enabled = false\n{}", queue("off")))
        .start()
        .await;
    bridge.client.declare_quorum("here").await;
    let of = ["here", "off", "gone", "gone"];
    let letters = (0..)
        .zip(of)
        .map(|(number, subscriber)| letter(number, subscriber));
    bridge.store().archive(letters.collect()).await.unwrap();
    let count = bridge.replays().count(&Filter::default()).await.unwrap();
    let told = BTreeMap::from([("gone".to_owned(), 2), ("off".to_owned(), 1)]);
    assert_eq!(
        (count.total, count.skipped.gone, count.skipped.disabled),
        (4, 2, 1)
    );
    assert_eq!(count.skipped.subscribers, told);
    let replay = bridge
        .replays()
        .begin(Filter::default(), DEFAULT_RATE, "ops")
        .await
        .unwrap();
    let done = ended(&bridge, replay.id).await;
    assert_eq!((done.replayed, done.skipped), (1, count.skipped));
    bridge.client.receive("here", 1, LONG).await;
    assert_eq!(
        bridge.store().open_dead_letters().await,
        Ok(3),
        "those are not replayed"
    );
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_keeps_its_rate_and_stops_when_it_is_told_to() {
    let vhost = Vhost::new("replay");
    let setup = Setup::new(&vhost)
        .sqlite()
        .subscriber("here", &queue("here"));
    let bridge = setup.start().await;
    let letters = (0..300).map(|number| letter(number, "here"));
    bridge.store().archive(letters.collect()).await.unwrap();
    let began = std::time::Instant::now();
    let replay = bridge
        .replays()
        .begin(Filter::default(), 50, "ops")
        .await
        .unwrap();
    let some = async || {
        let now = bridge.replays().get(replay.id).await.ok()?;
        (now.replayed >= 100).then_some(now)
    };
    eventually("100 are replayed", LONG, some).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "50 a second");
    let stopped = bridge.replays().stop(replay.id).await.unwrap();
    assert_eq!(stopped.state, State::Stopped);
    let next = bridge
        .replays()
        .begin(Filter::default(), DEFAULT_RATE, "ops")
        .await
        .unwrap();
    let next = ended(&bridge, next.id).await;
    let stopped = bridge.replays().get(replay.id).await.unwrap();
    assert_eq!(stopped.state, State::Stopped);
    assert!(stopped.replayed < 300, "{stopped:?}");
    assert_eq!(stopped.replayed + next.replayed, 300);
    assert_eq!(bridge.replays().list(None, 10).await.unwrap().len(), 2);
    bridge.client.receive("here", 300, LONG).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_a_crash_and_repeats_no_more_than_a_batch() {
    const LETTERS: u32 = 2_000;
    const BATCH: usize = 200;
    let vhost = Vhost::new("replay");
    let url = crate::support::postgres::server().database().await;
    let setup = || {
        Setup::new(&vhost)
            .postgres(&url)
            .subscriber("here", &queue("here"))
    };
    let (one, other) = (setup().start().await, setup().start().await);
    for some in (0..LETTERS).collect::<Vec<_>>().chunks(500) {
        let letters = some.iter().map(|number| letter(*number, "here"));
        one.store().archive(letters.collect()).await.unwrap();
    }
    let replay = one
        .replays()
        .begin(Filter::default(), 2_000, "ops")
        .await
        .unwrap();
    let some = async || {
        let now = one.replays().get(replay.id).await.ok()?;
        (now.replayed >= 400).then_some(())
    };
    eventually("some are replayed", LONG, some).await;
    one.crash();
    let done = ended(&other, replay.id).await;
    assert_eq!((done.state, done.replayed), (State::Done, LETTERS.into()));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let all_came = async || {
        for message in other.client.drain("here").await {
            let id = message.properties.message_id().clone().unwrap().to_string();
            *seen.entry(id).or_default() += 1;
        }
        (seen.len() == LETTERS as usize).then_some(())
    };
    eventually("everything is delivered", LONG, all_came).await;
    let repeated: usize = seen.values().map(|count| count - 1).sum();
    // What the crashed bridge had in flight in the line itself is repeated, too.
    assert!(repeated <= 2 * BATCH, "{repeated} were repeated");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_put_back_gets_what_it_missed() {
    let vhost = Vhost::new("replay");
    let setup = Setup::new(&vhost)
        .sqlite()
        .subscriber("here", &queue("here"));
    let bridge = setup.start().await;
    bridge.client.declare_quorum("here").await;
    let known = bridge.registry.live().load().get("here").unwrap().clone();
    let back = hookbridge::subscriber::Subscriber {
        id: SubscriberId::new("back"),
        ..(*known).clone()
    };
    bridge
        .store()
        .archive(vec![letter(1, "back")])
        .await
        .unwrap();
    assert_eq!(
        bridge
            .replays()
            .count(&Filter::default())
            .await
            .unwrap()
            .skipped
            .gone,
        1
    );
    let given = hookbridge::store::subscribers::Given::default();
    bridge
        .registry
        .put(&back, given, Condition::None, "ops")
        .await
        .unwrap();
    let replay = bridge
        .replays()
        .begin(Filter::default(), DEFAULT_RATE, "ops")
        .await
        .unwrap();
    assert_eq!(ended(&bridge, replay.id).await.replayed, 1);
    bridge.client.receive("here", 1, LONG).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_an_alarm_holds_up_stays_with_its_bridge_and_repeats_nothing() {
    const LETTERS: u32 = 40;
    // Longer than a bridge has a replay for itself without a sign of life.
    const HOLD: Duration = Duration::from_secs(40);
    let node = tokio::task::spawn_blocking(|| PrivateNode::start(&NodeOptions::default()));
    let node = node.await.unwrap().unwrap();
    let vhost = Vhost::new("replay");
    let url = crate::support::postgres::server().database().await;
    let setup = || {
        Setup::new(&vhost)
            .uri(node.amqp_uri("/"))
            .postgres(&url)
            .subscriber("here", &queue("here"))
    };
    let (one, other) = (setup().start().await, setup().start().await);
    let client = Client::connect(&node.amqp_uri("/")).await;
    // The bridge declares it when it first publishes there, which is after the first look.
    client.declare_quorum("here").await;
    let letters = (0..LETTERS).map(|number| letter(number, "here"));
    one.store().archive(letters.collect()).await.unwrap();
    Alarm::Memory.raise(&node);
    let replays = one.replays();
    let replay = replays.begin(Filter::default(), DEFAULT_RATE, "ops");
    let replay = replay.await.unwrap();
    tokio::time::sleep(HOLD).await;
    assert_eq!(replays.get(replay.id).await.unwrap().replayed, 0);
    Alarm::Memory.clear(&node);
    let done = ended(&one, replay.id).await;
    assert_eq!((done.state, done.replayed), (State::Done, LETTERS.into()));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let all_came = async || {
        for message in client.drain("here").await {
            let id = message.properties.message_id().clone().unwrap().to_string();
            *seen.entry(id).or_default() += 1;
        }
        (seen.len() == LETTERS as usize).then_some(())
    };
    eventually("everything is delivered", LONG, all_came).await;
    one.stop().await;
    other.stop().await;
    // What was published twice has come, too, or is still in the line.
    for message in client.drain("here").await {
        let id = message.properties.message_id().clone().unwrap().to_string();
        *seen.entry(id).or_default() += 1;
    }
    // The broker counts a quorum queue's messages every few seconds.
    let line_is_empty = async || {
        let queues = node.rabbitmqctl(&["-q", "list_queues", "name", "messages"]);
        let queues = queues.unwrap();
        let filled = queues.lines().filter_map(|line| line.split_once('\t'));
        let mut filled = filled.filter(|(_, messages)| *messages != "0");
        (!filled.any(|(name, _)| name.starts_with("hookbridge."))).then_some(())
    };
    eventually("nothing is left in the line", LONG, line_is_empty).await;
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
}
