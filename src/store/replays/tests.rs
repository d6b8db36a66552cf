use super::*;
use crate::{
    settings::{StorePlace, StoreSettings},
    store::NewDeadLetter,
};

fn rejected(number: u32, failed_at: i64) -> NewDeadLetter {
    NewDeadLetter {
        kind: dead_letters::Kind::Rejected,
        message_id: number.to_string(),
        webhook_id: None,
        replay: 0,
        subscriber: None,
        webhook: None,
        case: None,
        reason: "not_json".into(),
        detail: "one line".into(),
        attempts: None,
        first_reason: None,
        first_detail: None,
        event_time: None,
        received_at: None,
        failed_at: time(failed_at),
        routing_key: "any".into(),
        redelivered: false,
        traceparent: None,
        payload: b"never json".into(),
    }
}

#[tokio::test]
async fn what_fails_once_more_before_it_is_marked_stays_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(StoreSettings {
        place: StorePlace::Sqlite(folder.path().join("store.db")),
        secret_key_file: folder.path().join("key"),
        dead_letter_retention: None,
    });
    store.open().await.unwrap();
    let letters = (0..3).map(|number| rejected(number, 1));
    store.archive(letters.collect()).await.unwrap();
    let begun = store.begin_replay(&Filter::default(), 100, "ops").await;
    assert!(begun.is_ok());
    let replay = store.claim_replay("one").await.unwrap().unwrap();
    let batch = store.replay_batch(&replay).await.unwrap().unwrap();
    assert_eq!(batch.letters.len(), 3);

    // It is quicker round the line than its replay is to the store.
    let again = rejected(1, Timestamp::now().as_microsecond());
    store.archive(vec![again]).await.unwrap();
    let progress = Progress {
        replayed: batch.letters.iter().map(|(one, _)| one.into()).collect(),
        skipped: Skipped::default(),
        at: batch.at,
    };
    let goes_on = store.replay_progress(&replay, "one", &progress).await;
    assert_eq!(goes_on, Ok(true));
    let page = store
        .dead_letters(&Filter::default(), None, 10)
        .await
        .unwrap();
    let open = page.items.iter().filter(|one| one.replayed_at.is_none());
    let open: Vec<_> = open.map(|one| one.count).collect();
    assert_eq!(open, [2], "one, the one that came twice");
    let count = store.replay(replay.id).await.map(|one| one.replayed);
    assert_eq!(count, Ok(3), "it was published");
}
