//! Subscribers as a store holds many of them, and how they get into it. The other benchmark fills its
//! stores with them, too.

use std::{path::Path, time::Duration};

use hookbridge::{
    settings,
    store::{
        Store,
        subscribers::{Condition, Given},
    },
    subscriber::{HttpTarget, Interest, Origin, Subscriber, SubscriberId, Target},
    webhook::WebhookType,
};

/// One in so many belongs to a party; the others are hooks of one case each.
const OF_A_PARTY: u32 = 50;

/// One of many that never gets anything here.
pub(crate) fn hook(number: u32) -> Subscriber {
    let case = format!("8d30cc21-8e21-4e6b-9f1a-{number:012}");
    let (id, interest) = if number.is_multiple_of(OF_A_PARTY) {
        let party = Interest::Party {
            party: format!("party-{}", number % 1_000),
            cases: None,
        };
        (format!("party-{number:08}"), party)
    } else {
        let cases = Interest::Cases([case].into());
        (format!("case-{number:032x}"), cases)
    };
    subscriber(
        id,
        interest,
        &format!("https://hooks.example/cases/{number}?token=0123456789"),
    )
}

/// One that gets all by HTTP that this interest is in.
pub(crate) fn subscriber(id: String, interest: Interest, url: &str) -> Subscriber {
    Subscriber {
        id: SubscriberId::new(id),
        enabled: true,
        interest,
        events: WebhookType::ALL.into_iter().take(6).collect(),
        signing_secrets: Vec::new(),
        timeout: Duration::from_secs(15),
        max_in_flight: 64,
        target: Target::Http(HttpTarget {
            url: url.parse().expect("a URL"),
            authorization: Some("Bearer 0123456789abcdef0123456789abcdef".into()),
            headers: Vec::new(),
        }),
        origin: Origin::Store { version: 0 },
    }
}

/// Puts them into the store that a settings file names, one by one.
pub(crate) async fn put(file: &Path, subscribers: impl Iterator<Item = Subscriber>) {
    let settings = settings::load(file, std::iter::empty()).expect("settings");
    let store = Store::new(settings.store.expect("a store"));
    store.open().await.expect("it opens");
    for one in subscribers {
        let put = store.put_subscriber(&one, Given::default(), Condition::None, "bench");
        put.await.expect("it is put");
    }
}
