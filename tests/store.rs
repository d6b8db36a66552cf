//! Subscribers in the store itself, in SQLite and in PostgreSQL: the same must hold in both.

use std::{path::Path, time::Duration};

use hookbridge::{
    settings::{StorePlace, StoreSettings},
    store::{
        Store, StoreError,
        subscribers::{Condition, Given},
    },
    subscriber::{
        Subscriber, SubscriberId, Target,
        loading::{Rules, load_directory},
    },
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::support::postgres;

const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";
const OTHER_KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n";

/// A store in a database of its own, and the settings to open it once more.
pub(crate) struct Place {
    pub(crate) settings: StoreSettings,
    folder: TempDir,
}

impl Place {
    fn new(place: impl FnOnce(&Path) -> StorePlace) -> Self {
        let folder = TempDir::new().unwrap();
        let secret_key_file = folder.path().join("store.key");
        std::fs::write(&secret_key_file, KEY).unwrap();
        let settings = StoreSettings {
            place: place(folder.path()),
            secret_key_file,
            dead_letter_retention: None,
        };
        Self { settings, folder }
    }

    pub(crate) async fn open(&self) -> Store {
        let store = Store::new(self.settings.clone());
        store.open().await.unwrap();
        store
    }

    /// Everything that the database holds, as bytes.
    async fn bytes(&self) -> Vec<u8> {
        match &self.settings.place {
            StorePlace::Sqlite(path) => {
                let mut bytes = Vec::new();
                for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
                    let path = entry.unwrap().path();
                    if path.to_string_lossy().contains(".db") {
                        bytes.extend(std::fs::read(path).unwrap());
                    }
                }
                bytes
            }
            StorePlace::Postgres(url) => {
                let sql = "SELECT CAST(s AS TEXT) FROM subscribers s";
                let pool = sqlx::PgPool::connect(url.expose_secret()).await.unwrap();
                let rows: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&pool).await.unwrap();
                rows.into_iter()
                    .flat_map(|(row,)| row.into_bytes())
                    .collect()
            }
        }
    }
}

pub(crate) async fn both() -> [Place; 2] {
    let url = postgres::server().database().await;
    [
        Place::new(|folder| StorePlace::Sqlite(folder.join("store.db"))),
        Place::new(|_| StorePlace::Postgres(url.into())),
    ]
}

fn rules() -> Rules {
    Rules {
        timeout: Duration::from_secs(15),
        shutdown_timeout: Duration::from_secs(30),
        max_in_flight: 64,
        prefix: "hookbridge".into(),
        source_exchange: "domain.events".into(),
    }
}

/// A subscriber, as its file says it.
fn subscriber(text: &str) -> Subscriber {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("one.toml"), text).unwrap();
    let loaded = load_directory(folder.path(), &rules());
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    let one = loaded.set.iter().next().unwrap();
    Subscriber::clone(one)
}

fn case_hook(case: &str, url: &str) -> Subscriber {
    let text =
        format!("id = \"hook\"\ncases = [\"{case}\"]\nevents = [\"*\"]\n[http]\nurl = \"{url}\"\n");
    Subscriber {
        id: SubscriberId::new(format!("case-{case}")),
        ..subscriber(&text)
    }
}

async fn stored(store: &Store, id: &str) -> Option<Subscriber> {
    let all = store.subscribers_after("", 1_000, &rules()).await.unwrap();
    let found = all.into_iter().find(|(found, _)| found == id)?;
    Some(found.1.unwrap())
}

/// What of a subscriber must survive the store, secrets and all.
fn told(subscriber: &Subscriber) -> String {
    let secret = |secret: &secrecy::SecretString| secret.expose_secret().to_owned();
    let target = match &subscriber.target {
        Target::Http(http) => format!(
            "{} {:?} {:?}",
            http.url,
            http.authorization.as_ref().map(secret),
            http.headers
                .iter()
                .map(|(name, value)| (name, secret(value)))
                .collect::<Vec<_>>()
        ),
        Target::Amqp(amqp) => format!(
            "{:?} {:?}",
            amqp.broker.as_ref().map(|broker| secret(&broker.uri)),
            amqp.destination
        ),
    };
    format!(
        "{} {} {:?} {:?} {:?} {:?} {} {target}",
        subscriber.id,
        subscriber.enabled,
        subscriber.interest,
        subscriber.events,
        subscriber
            .signing_secrets
            .iter()
            .map(secret)
            .collect::<Vec<_>>(),
        subscriber.timeout,
        subscriber.max_in_flight,
    )
}

const HTTP: &str = r#"
id = "fixit"
party = "fixit"
cases = ["c-1", "c-2"]
events = ["StatusUpdate", "NewMessage"]
signing_secret = ["whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"]
timeout = "7s"
max_in_flight = 3
[http]
url = "https://fixit.example/hooks?token=planted-url-secret"
authorization = "Bearer planted-authorization"
headers = { "x-team" = "planted-header", "x-other" = "planted-other" }
"#;
const AMQP: &str = r#"
id = "glass"
enabled = false
scope = "all"
events = ["*"]
[amqp]
uri = "amqps://glass:planted-password@broker.example/%2f"
exchange = "glass"
routing_key = "{type}.{case}"
"#;
const QUEUE: &str = "id = \"queue\"\ncases = [\"c-3\"]\nevents = [\"*\"]\n[amqp]\nqueue = \"q\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_comes_back_as_it_was_and_its_secrets_are_nowhere_to_be_read() {
    for place in both().await {
        let store = place.open().await;
        let given = Given {
            timeout: true,
            max_in_flight: true,
        };
        for text in [HTTP, AMQP, QUEUE] {
            let one = subscriber(text);
            let saved = store
                .put_subscriber(&one, given, Condition::None, "ops")
                .await;
            assert!(saved.unwrap().created);
            let back = stored(&store, one.id.as_str()).await.unwrap();
            assert_eq!(told(&back), told(&one));
        }
        drop(store);
        let bytes = place.bytes().await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("c-2"), "this is where it stands");
        for secret in ["planted", "whsec_", "fixit.example", "broker.example"] {
            assert!(!text.contains(secret), "{secret} is there to be read");
        }
        // Once more from the start, as after a restart.
        let store = place.open().await;
        let back = stored(&store, "fixit").await.unwrap();
        assert_eq!(told(&back), told(&subscriber(HTTP)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_given_follows_the_settings() {
    for place in both().await {
        let store = place.open().await;
        let one = subscriber(HTTP);
        store
            .put_subscriber(&one, Given::default(), Condition::None, "ops")
            .await
            .unwrap();
        let back = stored(&store, "fixit").await.unwrap();
        assert_eq!((back.timeout, back.max_in_flight), (rules().timeout, 64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_only_on_its_condition_and_no_version_comes_twice() {
    for place in both().await {
        let store = place.open().await;
        let one = subscriber(HTTP);
        let id = one.id.clone();
        let put = async |condition| {
            store
                .put_subscriber(&one, Given::default(), condition, "ops")
                .await
        };
        assert_eq!(
            put(Condition::Exists).await,
            Err(StoreError::Changed { now: None })
        );
        let first = put(Condition::Absent).await.unwrap();
        let now = Some(first.version);
        assert_eq!(
            put(Condition::Absent).await,
            Err(StoreError::Changed { now })
        );
        assert_eq!(
            put(Condition::Version(first.version + 1)).await,
            Err(StoreError::Changed { now })
        );
        let second = put(Condition::Version(first.version)).await.unwrap();
        assert!(!second.created && second.version > first.version);

        let disabled = store
            .enable_subscriber(&id, false, Condition::Exists, "ops")
            .await;
        let disabled = disabled.unwrap().version;
        assert!(disabled > second.version);
        assert!(!stored(&store, "fixit").await.unwrap().enabled);
        let stale = Condition::Version(second.version);
        let refused = store.delete_subscriber(&id, stale).await;
        assert!(
            matches!(refused, Err(StoreError::Changed { now: Some(_) })),
            "{refused:?}"
        );
        store.delete_subscriber(&id, Condition::None).await.unwrap();
        assert_eq!(
            store.delete_subscriber(&id, Condition::None).await,
            Err(StoreError::Missing)
        );
        let enabled = store
            .enable_subscriber(&id, true, Condition::None, "ops")
            .await;
        assert_eq!(enabled, Err(StoreError::Missing));
        let again = put(Condition::Absent).await.unwrap();
        assert!(again.created && again.version > disabled, "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_cases_cannot_have_the_same_hook() {
    for place in both().await {
        let store = place.open().await;
        let put = async |case, url| {
            let hook = case_hook(case, url);
            store
                .put_subscriber(&hook, Given::default(), Condition::None, "ops")
                .await
        };
        put("one", "https://a.example/hook").await.unwrap();
        put("two", "https://b.example/hook").await.unwrap();
        put("one", "https://a.example/hook").await.unwrap();
        let taken = put("two", "https://a.example/hook").await;
        assert_eq!(taken, Err(StoreError::UrlTaken));
        put("one", "https://c.example/hook").await.unwrap();
        put("two", "https://a.example/hook").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_losing_a_secret() {
    for place in both().await {
        let one = subscriber(HTTP);
        let hook = case_hook("one", "https://a.example/hook");
        let open = async |keys: &str| {
            std::fs::write(&place.settings.secret_key_file, keys).unwrap();
            place.open().await
        };
        let given = Given {
            timeout: true,
            max_in_flight: true,
        };
        let store = open(KEY).await;
        for one in [&one, &hook] {
            store
                .put_subscriber(one, given, Condition::None, "ops")
                .await
                .unwrap();
        }
        let both = format!("{OTHER_KEY}{KEY}");
        let store = open(&both).await;
        assert_eq!(told(&stored(&store, "fixit").await.unwrap()), told(&one));
        assert_eq!(store.encrypt_anew().await, Ok(2));
        assert_eq!(store.encrypt_anew().await, Ok(0));
        let store = open(OTHER_KEY).await;
        assert_eq!(told(&stored(&store, "fixit").await.unwrap()), told(&one));
        let other = case_hook("two", "https://a.example/hook");
        let taken = store
            .put_subscriber(&other, given, Condition::None, "ops")
            .await;
        assert_eq!(taken, Err(StoreError::UrlTaken));
        // The key that is gone was the only one that could read it.
        let store = open(KEY).await;
        let all = store.subscribers_after("", 10, &rules()).await.unwrap();
        assert!(
            all.iter()
                .all(|(_, read)| matches!(read, Err(StoreError::Unreadable(_))))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_opens_does_not_keep_the_rest_from_being_encrypted_anew() {
    for place in both().await {
        let open = async |keys: &str| {
            std::fs::write(&place.settings.secret_key_file, keys).unwrap();
            place.open().await
        };
        let third = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=\n";
        for (id, key) in [("a", third), ("b", KEY)] {
            let one = Subscriber {
                id: SubscriberId::new(id),
                ..subscriber(HTTP)
            };
            open(key)
                .await
                .put_subscriber(&one, Given::default(), Condition::None, "ops")
                .await
                .unwrap();
        }
        let both = format!("{OTHER_KEY}{KEY}");
        let why = open(&both).await.encrypt_anew().await.unwrap_err();
        assert!(why.to_string().contains("\"a\""), "{why}");
        let store = open(OTHER_KEY).await;
        let all = store.subscribers_after("", 10, &rules()).await.unwrap();
        let readable: Vec<_> = all.iter().map(|(_, read)| read.is_ok()).collect();
        assert_eq!(readable, [false, true]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_used_does_not_get_another_key_by_itself() {
    let place = Place::new(|folder| StorePlace::Sqlite(folder.join("store.db")));
    let key = &place.settings.secret_key_file;
    std::fs::remove_file(key).unwrap();
    let store = place.open().await;
    assert!(key.exists(), "made on the first start");
    let one = subscriber(HTTP);
    store
        .put_subscriber(&one, Given::default(), Condition::None, "ops")
        .await
        .unwrap();
    drop(store);
    std::fs::remove_file(key).unwrap();
    let store = Store::new(place.settings.clone());
    let error = store.open().await.unwrap_err().to_string();
    assert!(
        error.contains("store.key") && error.contains("does not exist"),
        "{error}"
    );
    assert!(!key.exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for entry in std::fs::read_dir(place.folder.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", entry.path().display());
        }
    }
}
