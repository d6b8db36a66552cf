//! The bridge itself, in this process, against a virtual host of the shared node: built from
//! settings and subscribers' files by the code that reads them, and asked by the listener that
//! operators ask.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hookbridge::{
    bridge::{Bridge, BridgeError, Handle},
    registry::Registry,
    replay::Replays,
    settings,
    store::{Store, filter::Filter},
    subscriber::loading::{Rules, load_directory},
};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{sleep, timeout},
};
use toml::{Table, Value};

use super::{
    api::{self, Api},
    broker::{Vhost, unique},
    client::{Client, Message, Published},
    eventually::eventually,
    planted, postgres,
};

/// The exchange that domain events are published to.
pub const SOURCE: &str = "domain.events";
/// Fifty queues are declared at a start, on a machine that may be busy.
const START: Duration = Duration::from_mins(1);
/// Longer than `delivery.shutdown_timeout` below.
const STOP: Duration = Duration::from_secs(20);

const SETTINGS: &str = r#"
[delivery]
retry_delay = "500ms"
timeout = "5s"
shutdown_timeout = "10s"
[targets]
allow_networks = ["127.0.0.0/8"]
[subscribers]
directory = "subscribers"
[store]
url = ""
[admin]
listen = "127.0.0.1:0"
"#;

/// Where a store is.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    Sqlite,
    Postgres,
}

/// Has each of these run with a store in SQLite, and with one in PostgreSQL.
macro_rules! in_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            use $crate::support::bridge::Place;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(Place::Sqlite).await;
            })+
        }
        mod postgres {
            use $crate::support::bridge::Place;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(Place::Postgres).await;
            })+
        }
    };
}
pub(crate) use in_both;

/// What a bridge is started with.
pub struct Setup {
    uri: String,
    user: String,
    settings: Table,
    folder: TempDir,
    client_uri: String,
}

impl Setup {
    /// A bridge in this virtual host, with a user of its own, so that its connections can be told
    /// from those of the test.
    pub fn new(vhost: &Vhost) -> Self {
        let user = unique("bridge");
        vhost.add_user(&user, [".*"; 3]);
        let setup = Self {
            uri: vhost.uri_as(&user),
            user,
            settings: SETTINGS.parse().unwrap(),
            folder: TempDir::new().unwrap(),
            client_uri: vhost.uri(),
        };
        std::fs::create_dir(setup.folder.path().join("subscribers")).unwrap();
        setup
    }

    /// Lays these settings, as a file would state them, over those of all tests.
    pub fn settings(mut self, text: &str) -> Self {
        overlay(&mut self.settings, text.parse().unwrap());
        self
    }

    /// Lets the bridge reach its broker at this address: as another user, or through a proxy.
    pub fn uri(mut self, uri: String) -> Self {
        self.uri = uri;
        self
    }

    /// Adds a subscriber: what its file says besides its id.
    pub fn subscriber(self, id: &str, text: &str) -> Self {
        write_subscriber(self.folder.path(), id, text);
        self
    }

    /// Gives the bridge a store of its own in SQLite.
    pub fn sqlite(self) -> Self {
        self.store("sqlite://store.db")
    }

    /// Gives the bridge a store in PostgreSQL, whose key is the same for all bridges.
    pub fn postgres(self, url: &str) -> Self {
        self.store(url)
    }

    /// Gives the bridge a store of its own, there.
    pub async fn store_in(self, place: Place) -> Self {
        match place {
            Place::Sqlite => self.sqlite(),
            Place::Postgres => self.postgres(&postgres::server().database().await),
        }
    }

    fn store(self, url: &str) -> Self {
        let key = self.folder.path().join("store.key");
        std::fs::write(key, planted::STORE_KEY).unwrap();
        self.settings(&format!(
            "[store]\nurl = \"{url}\"\nsecret_key_file = \"store.key\""
        ))
    }

    /// Where the bridge's files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the bridge and waits until it says that it is ready.
    pub async fn start(self) -> RunningBridge {
        let bridge = self.start_unready().await;
        bridge.wait_until_ready().await;
        bridge
    }

    /// Starts the bridge, whether or not it gets ready.
    pub async fn start_unready(mut self) -> RunningBridge {
        let broker = Table::from_iter([("uri".to_owned(), Value::from(self.uri))]);
        overlay(
            &mut self.settings,
            Table::from_iter([("broker".to_owned(), Value::from(broker))]),
        );
        let file = self.folder.path().join("hookbridge.toml");
        std::fs::write(&file, self.settings.to_string()).unwrap();
        let settings =
            settings::load(&file, std::iter::empty()).unwrap_or_else(|error| panic!("{error}"));
        let rules = Rules::from(&settings);
        let loaded = load_directory(&settings.subscribers.directory, &rules)
            .unwrap_or_else(|error| panic!("{error}"));
        planted::watch_log();
        // A runtime of its own, which can be taken away like the process of a bridge.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let built = runtime.spawn(Bridge::build(settings, loaded));
        let bridge = built.await.unwrap().unwrap();
        let (handle, admin) = (bridge.handle(), bridge.admin_address());
        let (registry, replays) = (bridge.registry(), bridge.replays());
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        RunningBridge {
            client: Arc::new(Client::connect(&self.client_uri).await),
            running: runtime.spawn(bridge.run()),
            runtime: Some(runtime),
            stopped: false,
            folder: self.folder,
            user: self.user,
            handle,
            registry,
            replays,
            admin,
            http,
        }
    }
}

/// A bridge that runs. A test ends it with [`Self::stop`] or [`Self::crash`].
pub struct RunningBridge {
    /// The test's own connection, in the virtual host of the bridge.
    pub client: Arc<Client>,
    pub handle: Handle,
    pub registry: Registry,
    user: String,
    replays: Option<Replays>,
    admin: SocketAddr,
    running: JoinHandle<Result<(), BridgeError>>,
    runtime: Option<Runtime>,
    stopped: bool,
    folder: TempDir,
    http: reqwest::Client,
}

impl RunningBridge {
    /// Where its admin listener is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A client of its API, with the token of [`super::api::TOKENS`] that may change things.
    pub fn api(&self) -> Api {
        Api::new(self.admin, Some(api::OPERATOR))
    }

    /// The store, which the bridge must have.
    pub fn store(&self) -> Store {
        self.registry
            .store()
            .expect("the bridge has a store")
            .clone()
    }

    /// Its replays.
    pub fn replays(&self) -> &Replays {
        self.replays.as_ref().expect("the bridge has a store")
    }

    /// The status and the words of `/readyz`.
    pub async fn readiness(&self) -> (u16, String) {
        self.ask("/readyz").await
    }

    /// Waits until `/readyz` says yes.
    pub async fn wait_until_ready(&self) {
        let mut last = String::from("nothing");
        let until = tokio::time::Instant::now() + START;
        while tokio::time::Instant::now() < until {
            assert!(!self.running.is_finished(), "the bridge ended: {last}");
            let (status, words) = self.readiness().await;
            if status == 200 {
                return;
            }
            last = words;
            sleep(Duration::from_millis(20)).await;
        }
        panic!("not ready within {START:?}: {last}");
    }

    /// The metrics as they are now.
    pub async fn metrics(&self) -> Samples {
        let (status, text) = self.ask("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Samples(text)
    }

    /// Waits until a metric with these labels has this value.
    pub async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let what = format!("{name}{labels:?} is {value}");
        let reached = async || (self.metrics().await.value(name, labels) == value).then_some(());
        eventually(&what, START, reached).await;
    }

    /// Publishes a domain event under its `type`; it must be routed.
    pub async fn publish(&self, event: &serde_json::Value) {
        let key = event["type"].as_str().unwrap_or("none").to_owned();
        self.publish_raw(
            &key,
            event.to_string().as_bytes(),
            BasicProperties::default(),
        )
        .await;
    }

    /// Publishes any bytes to the source exchange; they must be routed.
    pub async fn publish_raw(&self, key: &str, body: &[u8], properties: BasicProperties) {
        let published = self
            .client
            .publish_with(SOURCE, key, body, properties)
            .await;
        assert_eq!(published, Published::Routed);
    }

    /// Publishes many events, each with its key, without waiting for one after the other; all of
    /// them must be routed.
    pub async fn publish_many<'a>(&self, events: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let channel = self.client.connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        for (key, body) in events {
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel
                .basic_publish(SOURCE.into(), key.into(), options, body, properties)
                .await
                .unwrap();
        }
        let returned = channel.wait_for_confirms().await.unwrap();
        assert!(returned.is_empty(), "{returned:?}");
        channel.close(200, "OK".into()).await.unwrap();
    }

    /// Takes everything that is among the dead letters now.
    pub async fn dead(&self) -> Vec<Message> {
        self.client.drain("hookbridge.dead").await
    }

    /// Takes everything that is among the rejected events now.
    pub async fn rejected(&self) -> Vec<Message> {
        self.client.drain("hookbridge.rejected").await
    }

    /// Writes or replaces a subscriber's file; [`Self::reload`] has it read.
    pub fn write_subscriber(&self, id: &str, text: &str) {
        write_subscriber(self.folder.path(), id, text);
    }

    /// Removes a subscriber's file.
    pub fn remove_subscriber(&self, id: &str) {
        let file = self
            .folder
            .path()
            .join("subscribers")
            .join(format!("{id}.toml"));
        std::fs::remove_file(file).unwrap();
    }

    /// Closes the bridge's connections, from the broker's side.
    pub fn close_connections(&self) {
        Vhost::close_connections_of(&self.user);
    }

    /// Has the subscribers read again, and waits until as many are enabled and disabled.
    pub async fn reload(&self, enabled: u64, disabled: u64) {
        self.handle.reload();
        for (state, count) in [("enabled", enabled), ("disabled", disabled)] {
            self.wait_for_metric("hookbridge_subscribers", &[("state", state)], count)
                .await;
        }
    }

    /// Stops the bridge, which must end in time and without an error, and have shown no secret.
    pub async fn stop(mut self) {
        planted::shows_nothing("/metrics", &self.ask("/metrics").await.1);
        planted::shows_nothing("/readyz", &self.ask("/readyz").await.1);
        if let Some(store) = self.registry.store()
            && let Ok(page) = store.dead_letters(&Filter::default(), None, 1_000).await
        {
            planted::shows_nothing("a dead letter", &format!("{page:?}"));
        }
        self.handle.stop();
        let ended = timeout(STOP, &mut self.running).await;
        self.stopped = true;
        ended
            .expect("the bridge stops in time")
            .expect("no panic")
            .expect("a clean end");
        planted::log_shows_nothing();
        for file in ["store.db", "store.db-wal"] {
            planted::holds_nothing(&self.folder.path().join(file));
        }
    }

    /// Takes the bridge away as a crash would: nothing is finished, nothing is settled.
    pub fn crash(mut self) {
        self.stopped = true;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    async fn ask(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("http://{}{path}", self.admin));
        match answer.send().await {
            Ok(answer) => (
                answer.status().as_u16(),
                answer.text().await.unwrap_or_default(),
            ),
            Err(error) => (0, error.to_string()),
        }
    }
}

impl Drop for RunningBridge {
    fn drop(&mut self) {
        // A runtime must not be dropped, and so waited for, inside another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let stopped = self.stopped || std::thread::panicking();
        assert!(stopped, "the test must stop its bridge");
    }
}

/// Metrics in Prometheus' text form.
pub struct Samples(String);

impl Samples {
    /// The sum of all samples of this metric, which counts things, that have these labels; 0 if
    /// there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        self.0
            .lines()
            .filter(of_name)
            .filter(|line| labels.iter().all(|label| line.contains(label.as_str())))
            .map(|line| {
                line.rsplit(' ')
                    .next()
                    .and_then(|n| n.parse::<u64>().ok())
                    .expect(line)
            })
            .sum()
    }
}

fn write_subscriber(folder: &Path, id: &str, text: &str) {
    let file = folder.join("subscribers").join(format!("{id}.toml"));
    let text = planted::in_subscriber(&format!("id = \"{id}\"\n{text}"));
    std::fs::write(file, text).unwrap();
}

/// Lays one table over another, value by value.
fn overlay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => overlay(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}
