//! Dead letters in the store itself, in SQLite and in PostgreSQL: put there once each, found by any
//! filter and by an index, and removed.

use hookbridge::{
    settings::StorePlace,
    store::{
        NewDeadLetter, Store, StoreError,
        dead_letters::{DeadLetter, Kind, Removed},
        filter::{Cursor, Filter},
    },
};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use crate::store::both;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A dead letter that differs with its number in all that a filter asks for.
fn letter(number: i64) -> NewDeadLetter {
    let pick = |from: &[&str], step: i64| {
        let index = usize::try_from(number / step).unwrap() % from.len();
        from[index].to_owned()
    };
    let kind = Kind::ALL[usize::try_from(number % 3).unwrap()];
    NewDeadLetter {
        kind,
        message_id: format!("m-{number}"),
        webhook_id: (kind == Kind::Dead).then(|| format!("w-{number}")),
        replay: 0,
        subscriber: (kind != Kind::Rejected).then(|| pick(&["a", "b", "c", "d"], 3)),
        webhook: (kind != Kind::Rejected).then(|| pick(&["StatusUpdate", "NewMessage"], 2)),
        case: Some(format!("c-{}", number % 7)),
        reason: pick(&["timeout", "http_status", "connect"], 5),
        detail: "one line".into(),
        attempts: Some(2),
        first_reason: Some("timeout".into()),
        first_detail: None,
        event_time: Some(at(number)),
        received_at: Some(at(number)),
        failed_at: at(number / 2),
        routing_key: "fast.00.1000.a".into(),
        redelivered: false,
        traceparent: None,
        payload: format!("{{\"number\":{number}}}").into_bytes(),
    }
}

/// Every combination of what can be asked for.
fn filters() -> Vec<Filter> {
    (0..64_u32)
        .map(|bits| {
            let given = |bit: u32| bits & (1 << bit) != 0;
            Filter {
                ids: Vec::new(),
                kind: given(0).then_some(Kind::Dead),
                subscriber: given(1).then(|| "b".into()),
                webhook: given(2).then(|| "NewMessage".into()),
                reason: given(3).then(|| "timeout".into()),
                since: given(4).then(|| at(40)),
                until: given(5).then(|| at(200)),
            }
        })
        .collect()
}

fn passes(filter: &Filter, letter: &DeadLetter) -> bool {
    filter.kind.is_none_or(|kind| kind == letter.kind)
        && (filter.subscriber.is_none() || filter.subscriber == letter.subscriber)
        && (filter.webhook.is_none() || filter.webhook == letter.webhook)
        && filter
            .reason
            .as_ref()
            .is_none_or(|reason| *reason == letter.reason)
        && filter.since.is_none_or(|since| letter.failed_at >= since)
        && filter.until.is_none_or(|until| letter.failed_at < until)
}

async fn list(store: &Store, filter: &Filter, limit: usize) -> Vec<DeadLetter> {
    let (mut all, mut after): (Vec<DeadLetter>, Option<Cursor>) = (Vec::new(), None);
    loop {
        let page = store.dead_letters(filter, after, limit).await.unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        match page.next {
            Some(next) => after = Some(next.to_string().parse().unwrap()),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_found_by_every_combination_of_filters_and_by_an_index() {
    for place in both().await {
        let store = place.open().await;
        for some in (0..12_000).collect::<Vec<_>>().chunks(250) {
            store
                .archive(some.iter().map(|number| letter(*number)).collect())
                .await
                .unwrap();
        }
        store.analyse().await.unwrap();
        if let StorePlace::Postgres(url) = &place.settings.place {
            let pool = sqlx::PgPool::connect(url.expose_secret()).await.unwrap();
            sqlx::query("ANALYZE dead_letters")
                .execute(&pool)
                .await
                .unwrap();
        }
        let all = list(&store, &Filter::default(), 1_000).await;
        assert_eq!(all.len(), 12_000);
        let newest_first =
            |pair: &[DeadLetter]| (pair[0].failed_at, pair[0].id) > (pair[1].failed_at, pair[1].id);
        assert!(all.windows(2).all(newest_first));
        for filter in filters() {
            let expected: Vec<_> = all
                .iter()
                .filter(|one| passes(&filter, one))
                .map(|one| one.id)
                .collect();
            let found: Vec<_> = list(&store, &filter, 700)
                .await
                .iter()
                .map(|one| one.id)
                .collect();
            assert_eq!(found, expected, "{filter:?}");
            let count = store.count_dead_letters(&filter).await.unwrap();
            assert_eq!(count, expected.len() as u64, "{filter:?}");
            let after = Some(Cursor {
                failed_at: at(1_000).as_microsecond(),
                id: 7,
            });
            for after in [None, after] {
                let plan = store.explain_dead_letters(&filter, after).await.unwrap();
                by_index(&plan, &filter, &place.settings.place);
            }
        }
    }
}

/// No row is looked at that an index could have told to leave out.
fn by_index(plan: &[String], filter: &Filter, place: &StorePlace) {
    let text = plan.join("\n");
    let indexed = match place {
        StorePlace::Sqlite(_) => {
            text.contains("USING INDEX")
                && !text.contains("TEMP B-TREE")
                && (filter.is_empty() || text.contains("SEARCH"))
        }
        StorePlace::Postgres(_) => text.contains("Index") && !text.contains("Seq Scan"),
    };
    assert!(indexed, "{filter:?}\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_dead_letter_is_stored_once_and_one_more_is_counted() {
    for place in both().await {
        let store = place.open().await;
        // As after a crash between the insert and the acknowledgement.
        for _ in 0..2 {
            store
                .archive(vec![letter(0), letter(1), letter(1)])
                .await
                .unwrap();
        }
        let all = list(&store, &Filter::default(), 10).await;
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|one| one.count == 1), "{all:?}");

        let later = |number| NewDeadLetter {
            failed_at: at(500),
            detail: "once more".into(),
            ..letter(number)
        };
        store.archive(vec![later(1)]).await.unwrap();
        let rejected = Filter {
            kind: Some(Kind::Rejected),
            ..Filter::default()
        };
        let again = list(&store, &rejected, 10).await;
        assert_eq!((again[0].count, again[0].detail.as_str()), (2, "once more"));

        // One that failed before that, but came later; and the same from a bridge that crashed.
        for redelivered in [false, true] {
            let earlier = NewDeadLetter {
                failed_at: at(499),
                redelivered,
                ..letter(1)
            };
            store.archive(vec![earlier]).await.unwrap();
            let again = list(&store, &rejected, 10).await;
            assert_eq!((again[0].count, again[0].failed_at), (3, at(500)));
        }

        // A replay that fails is another dead letter, and linked to the first.
        let replayed = NewDeadLetter {
            replay: 1,
            ..letter(0)
        };
        store.archive(vec![replayed]).await.unwrap();
        let dead = Filter {
            kind: Some(Kind::Dead),
            ..Filter::default()
        };
        let dead = list(&store, &dead, 10).await;
        assert_eq!(dead.len(), 2);
        let first = dead.iter().find(|one| one.replay == 0).unwrap();
        let full = store.dead_letter(first.id).await.unwrap();
        assert_eq!(full.payload, b"{\"number\":0}");
        assert_eq!(
            full.related
                .iter()
                .map(|one| one.replay)
                .collect::<Vec<_>>(),
            [1]
        );
        assert_eq!(full.related[0].webhook_id.as_deref(), Some("w-0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_wrote_does_not_keep_the_rest_out() {
    for place in both().await {
        let store = place.open().await;
        let strange = NewDeadLetter {
            routing_key: "nul\0key".into(),
            detail: "x\0".repeat(50_000),
            subscriber: Some("ü".repeat(100_000)),
            payload: vec![0, 159, 146, 150],
            ..letter(2)
        };
        store.archive(vec![strange, letter(3)]).await.unwrap();
        let all = list(&store, &Filter::default(), 10).await;
        assert_eq!(all.len(), 2);
        let strange = all.iter().find(|one| one.kind == Kind::Lost).unwrap();
        let full = store.dead_letter(strange.id).await.unwrap();
        assert_eq!(full.payload, [0, 159, 146, 150]);
        let filter = Filter {
            subscriber: Some("a\0b".into()),
            ..Filter::default()
        };
        assert_eq!(store.count_dead_letters(&filter).await, Ok(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_removed_by_filter_and_by_age() {
    for place in both().await {
        let store = place.open().await;
        for some in (0..3_000).collect::<Vec<_>>().chunks(250) {
            store
                .archive(some.iter().map(|number| letter(*number)).collect())
                .await
                .unwrap();
        }
        let all = |removed: Removed| removed.ended.map(|()| removed.count);
        let none = store.delete_dead_letters(&Filter::default()).await;
        assert_eq!(all(none), Err(StoreError::NoFilter));
        let rejected = Filter {
            kind: Some(Kind::Rejected),
            ..Filter::default()
        };
        assert_eq!(all(store.delete_dead_letters(&rejected).await), Ok(1_000));
        assert_eq!(store.open_dead_letters().await, Ok(2_000));
        let id = list(&store, &Filter::default(), 1_000).await[0].id;
        let one = Filter {
            ids: vec![id, i64::MAX],
            ..Filter::default()
        };
        assert_eq!(all(store.delete_dead_letters(&one).await), Ok(1));
        assert_eq!(store.dead_letter(id).await.err(), Some(StoreError::Missing));
        assert_eq!(all(store.delete_older(at(0)).await), Ok(0));
        assert_eq!(all(store.delete_older(Timestamp::now()).await), Ok(1_999));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_breaks_off_tells_how_many_are_gone() {
    let [sqlite, _] = both().await;
    let store = sqlite.open().await;
    for some in (0..2_500).collect::<Vec<_>>().chunks(500) {
        let letters = some.iter().map(|number| letter(*number));
        store.archive(letters.collect()).await.unwrap();
    }
    let StorePlace::Sqlite(path) = &sqlite.settings.place else {
        panic!("{:?}", sqlite.settings.place);
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let trigger = "CREATE TRIGGER enough BEFORE DELETE ON dead_letters \
                   WHEN (SELECT count(*) FROM dead_letters) <= 1000 \
                   BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END";
    sqlx::query(trigger).execute(&pool).await.unwrap();
    let removed = store.delete_older(Timestamp::now()).await;
    assert_eq!(removed.count, 1_000);
    let why = removed.ended.unwrap_err().to_string();
    assert!(why.contains("the disk is gone"), "{why}");
}
