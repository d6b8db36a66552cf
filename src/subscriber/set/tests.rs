//! Who gets an event: each rule by itself, then all of them against a plain filter.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::subscriber::{
    AmqpTarget, Cases, Destination, Interest, Origin, SubscriberId, Target, WebhookTypes,
};

fn subscriber(id: &str, interest: Interest, events: &[WebhookType]) -> Subscriber {
    Subscriber {
        id: SubscriberId::new(id),
        enabled: true,
        interest,
        events: events.iter().copied().collect(),
        signing_secrets: Vec::new(),
        timeout: Duration::from_secs(1),
        max_in_flight: 1,
        target: Target::Amqp(AmqpTarget {
            broker: None,
            destination: Destination::Queue {
                name: id.to_owned(),
                declare: false,
            },
        }),
        origin: Origin::File {
            file: std::path::Path::new("test.toml").into(),
            line: 1,
        },
    }
}

fn party(party: &str, cases: Option<&[&str]>) -> Interest {
    Interest::Party {
        party: party.to_owned(),
        cases: cases.map(texts),
    }
}

fn cases(cases: &[&str]) -> Interest {
    Interest::Cases(texts(cases))
}

fn texts(texts: &[&str]) -> Cases {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn audience(case: Option<&str>, parties: &[&str], sender: Option<&str>) -> Audience {
    Audience {
        case: case.map(str::to_owned),
        parties: parties.iter().map(|party| (*party).to_owned()).collect(),
        sender: sender.map(str::to_owned),
    }
}

/// Whether a lone subscriber that wants everything gets this webhook.
fn gets(interest: Interest, kind: WebhookType, audience: &Audience) -> bool {
    let set = SubscriberSet::new(vec![subscriber("one", interest, &WebhookType::ALL)]);
    let matching = set.matching(kind, audience).count();
    assert!(matching <= 1);
    matching == 1
}

const STATUS: WebhookType = WebhookType::StatusUpdate;
const MESSAGE: WebhookType = WebhookType::NewMessage;

#[test]
fn a_party_gets_the_events_of_its_cases() {
    let event = audience(Some("c1"), &["fixit", "glass"], None);
    assert!(gets(party("fixit", None), STATUS, &event));
    assert!(gets(party("glass", None), STATUS, &event));
    assert!(!gets(party("other", None), STATUS, &event));
}

#[test]
fn an_event_without_parties_reaches_no_party() {
    let event = audience(Some("c1"), &[], None);
    assert!(!gets(party("fixit", None), STATUS, &event));
    assert!(!gets(party("fixit", Some(&["c1"])), STATUS, &event));
}

#[test]
fn listed_cases_are_had_whoever_their_parties_are() {
    let event = audience(Some("c1"), &[], None);
    assert!(gets(cases(&["c0", "c1"]), STATUS, &event));
    assert!(!gets(cases(&["c2"]), STATUS, &event));
    assert!(!gets(
        cases(&["c1"]),
        STATUS,
        &audience(None, &["fixit"], None)
    ));
}

#[test]
fn with_party_and_cases_both_must_hold() {
    let both = || party("fixit", Some(&["c1"]));
    assert!(gets(
        both(),
        STATUS,
        &audience(Some("c1"), &["fixit"], None)
    ));
    assert!(!gets(
        both(),
        STATUS,
        &audience(Some("c2"), &["fixit"], None)
    ));
    assert!(!gets(
        both(),
        STATUS,
        &audience(Some("c1"), &["glass"], None)
    ));
    assert!(!gets(both(), STATUS, &audience(None, &["fixit"], None)));
}

#[test]
fn everything_is_everything() {
    assert!(gets(Interest::All, STATUS, &audience(None, &[], None)));
    assert!(gets(
        Interest::All,
        STATUS,
        &audience(Some("c1"), &["fixit"], None)
    ));
}

#[test]
fn a_message_goes_to_the_other_parties_and_not_to_its_sender() {
    let message = audience(Some("c1"), &["fixit", "glass"], Some("glass"));
    assert!(gets(party("fixit", None), MESSAGE, &message));
    assert!(gets(party("fixit", Some(&["c1"])), MESSAGE, &message));
    assert!(!gets(party("glass", None), MESSAGE, &message));
    assert!(!gets(party("other", None), MESSAGE, &message));
}

#[test]
fn a_message_goes_to_nobody_without_a_party() {
    let message = audience(Some("c1"), &["fixit", "glass"], Some("glass"));
    assert!(!gets(Interest::All, MESSAGE, &message));
    assert!(!gets(cases(&["c1"]), MESSAGE, &message));
}

#[test]
fn a_message_without_a_sender_goes_to_nobody() {
    let message = audience(Some("c1"), &["fixit"], None);
    assert!(!gets(party("fixit", None), MESSAGE, &message));
}

#[test]
fn a_sender_matters_to_messages_only() {
    let event = audience(Some("c1"), &["fixit"], Some("fixit"));
    assert!(gets(party("fixit", None), STATUS, &event));
}

#[test]
fn only_types_that_are_wanted_come() {
    let wants = subscriber("one", Interest::All, &[STATUS]);
    let set = SubscriberSet::new(vec![wants]);
    let event = audience(Some("c1"), &[], None);
    assert_eq!(set.matching(STATUS, &event).count(), 1);
    assert_eq!(set.matching(WebhookType::ActivityChange, &event).count(), 0);
}

#[test]
fn nothing_is_made_for_the_disabled() {
    let mut disabled = subscriber("one", Interest::All, &WebhookType::ALL);
    disabled.enabled = false;
    let set = SubscriberSet::new(vec![disabled]);
    assert_eq!(set.matching(STATUS, &audience(None, &[], None)).count(), 0);
    assert!(set.get("one").is_some());
    assert_eq!(set.counts(), (0, 1));
}

#[test]
fn subscribers_are_found_by_id_and_listed_in_its_order() {
    let of = |id| subscriber(id, Interest::All, &[STATUS]);
    let set = SubscriberSet::new(vec![of("b"), of("a"), of("c")]);
    assert_eq!(set.get("b").unwrap().id.as_str(), "b");
    assert!(set.get("d").is_none());
    let ids: Vec<_> = set.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(set.counts(), (3, 0));
}

#[test]
fn many_subscribers_stay_in_order_as_they_come_and_go() {
    let id = |number: u32| format!("s{:05}", number.wrapping_mul(7_919) % 5_000);
    let mut set = SubscriberSet::default();
    for number in 0..5_000 {
        set.insert(Arc::new(subscriber(&id(number), cases(&["c"]), &[STATUS])));
    }
    for number in (0..5_000).filter(|number| number % 3 == 0) {
        assert!(set.remove(&id(number)).is_some());
    }
    let listed: Vec<_> = set.iter().map(|one| one.id.as_str().to_owned()).collect();
    let mut expected: Vec<_> = (0..5_000)
        .filter(|number| number % 3 != 0)
        .map(id)
        .collect();
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(set.counts(), (expected.len(), 0));
    let page: Vec<_> = set
        .after(&expected[99])
        .take(10)
        .map(|one| one.id.as_str())
        .collect();
    assert_eq!(page, expected[100..110]);
    assert!(expected.iter().all(|id| set.get(id).is_some()));
}

/// The rules as they are written down, one subscriber at a time.
fn is_entitled(subscriber: &Subscriber, kind: WebhookType, audience: &Audience) -> bool {
    let of_case = |cases: &Cases| {
        audience
            .case
            .as_ref()
            .is_some_and(|case| cases.contains(case))
    };
    let of_party = |party: &String| audience.parties.contains(party);
    let may_see = match &subscriber.interest {
        Interest::All => true,
        Interest::Cases(cases) => of_case(cases),
        Interest::Party { party, cases: None } => of_party(party),
        Interest::Party {
            party,
            cases: Some(cases),
        } => of_party(party) && of_case(cases),
    };
    let is_receiver = match (subscriber.interest.party(), audience.sender.as_deref()) {
        (Some(party), Some(sender)) => party != sender,
        _ => false,
    };
    subscriber.enabled
        && subscriber.events.contains(kind)
        && may_see
        && (kind != MESSAGE || is_receiver)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned)
}

fn interest() -> impl Strategy<Value = Interest> {
    let names = || prop::collection::vec(name(), 0..4).prop_map(Cases::from);
    prop_oneof![
        Just(Interest::All),
        names().prop_map(Interest::Cases),
        (name(), prop::option::of(names()))
            .prop_map(|(party, cases)| Interest::Party { party, cases }),
    ]
}

fn any_subscriber() -> impl Strategy<Value = Subscriber> {
    let kinds = prop::sample::subsequence(WebhookType::ALL.to_vec(), 0..=10);
    (interest(), kinds, prop::bool::weighted(0.8)).prop_map(|(interest, kinds, enabled)| {
        let events: WebhookTypes = kinds.into_iter().collect();
        Subscriber {
            enabled,
            events,
            ..subscriber("", interest, &[])
        }
    })
}

proptest! {
    /// A set that was changed many times, one subscriber at a time, is the set of what is left; and
    /// the set that it was made from is what it was.
    #[test]
    fn a_changed_set_is_the_set_of_what_is_left(
        changes in prop::collection::vec((0..40_u8, prop::option::of(any_subscriber())), 0..200),
        kind in prop::sample::select(WebhookType::ALL.to_vec()),
        case in prop::option::of(name()),
        parties in prop::collection::btree_set(name(), 0..4),
    ) {
        let audience = Audience { case, parties: parties.into_iter().collect(), sender: None };
        let look = |set: &SubscriberSet| {
            let ids = |found: Vec<&Arc<Subscriber>>| -> Vec<SubscriberId> {
                found.into_iter().map(|one| one.id.clone()).collect()
            };
            let mut found = ids(set.matching(kind, &audience).collect());
            found.sort();
            (ids(set.iter().collect()), found, set.counts())
        };
        let mut left = BTreeMap::new();
        let mut set = SubscriberSet::default();
        for (number, change) in changes {
            let id = SubscriberId::new(format!("s{number:02}"));
            let (before, seen) = (set.clone(), look(&set));
            if let Some(one) = change {
                let one = Subscriber { id: id.clone(), ..one };
                left.insert(id, one.clone());
                set.insert(Arc::new(one));
            } else {
                prop_assert_eq!(set.remove(id.as_str()).is_some(), left.remove(&id).is_some());
            }
            prop_assert_eq!(look(&before), seen);
        }
        let ids: Vec<_> = left.keys().cloned().collect();
        let after: Vec<_> = set.after("s20").map(|one| one.id.clone()).collect();
        prop_assert_eq!(after, ids.into_iter().filter(|id| id.as_str() > "s20").collect::<Vec<_>>());
        prop_assert_eq!(look(&set), look(&SubscriberSet::new(left.into_values().collect())));
    }

    #[test]
    fn the_indexes_agree_with_a_plain_filter(
        subscribers in prop::collection::vec(any_subscriber(), 0..24),
        kind in prop::sample::select(WebhookType::ALL.to_vec()),
        case in prop::option::of(name()),
        parties in prop::collection::btree_set(name(), 0..4),
        sender in prop::option::of(name()),
    ) {
        let numbered = subscribers.into_iter().enumerate();
        let subscribers: Vec<_> = numbered
            .map(|(number, one)| Subscriber { id: SubscriberId::new(format!("s{number:02}")), ..one })
            .collect();
        let audience = Audience { case, parties: parties.into_iter().collect(), sender };
        let expected: Vec<_> = subscribers
            .iter()
            .filter(|one| is_entitled(one, kind, &audience))
            .map(|one| one.id.clone())
            .collect();
        let set = SubscriberSet::new(subscribers);
        let mut found: Vec<_> = set.matching(kind, &audience).map(|one| one.id.clone()).collect();
        found.sort();
        prop_assert_eq!(found, expected);
    }
}
