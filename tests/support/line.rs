//! A whole bridge in this process, against a real broker: from settings and subscribers' files to
//! what lies in its queues.

use std::{fmt::Write as _, fs, time::Duration};

use hookbridge::{
    bridge::{Bridge, BridgeError, Handle},
    settings,
    subscriber::loading::{Rules, load_directory},
};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, Message, Published},
    eventually::{SOON, eventually},
    planted,
};

/// The documented example that tests publish, and the webhook made of it.
pub const EVENT: &str = include_str!("../examples/01-status-update.event.json");
pub const WEBHOOK: &str = include_str!("../examples/01-status-update.webhook.json");
/// Where tests publish domain events, and with which key this one.
pub const SOURCE: &str = "domain.events";
pub const KEY: &str = "case.status.updated";

/// What differs from one line to another.
#[derive(Debug, Clone)]
pub struct Setup {
    pub retry_delay: Duration,
    pub timeout: Duration,
    /// Whether targets on this machine may be called.
    pub local_targets: bool,
    /// Further lines of `[targets]`.
    pub targets: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            retry_delay: Duration::from_millis(700),
            timeout: Duration::from_secs(3),
            local_targets: true,
            targets: String::new(),
        }
    }
}

impl Setup {
    /// The settings file for the broker at `uri`, with the subscribers in `subscribers` beside it.
    pub fn settings(&self, uri: &str) -> String {
        let networks = if self.local_targets {
            r#""127.0.0.0/8", "::1/128""#
        } else {
            ""
        };
        format!(
            "[broker]\nuri = {uri:?}\n\
             [delivery]\nretry_delay = \"{}ms\"\ntimeout = \"{}ms\"\nshutdown_timeout = \"15s\"\n\
             [targets]\nallow_networks = [{networks}]\n{}\n\
             [subscribers]\ndirectory = \"subscribers\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n",
            self.retry_delay.as_millis(),
            self.timeout.as_millis(),
            self.targets,
        )
    }
}

/// A subscriber to every event, and its target: the lines of `[http]` or `[amqp]`, that header
/// included.
pub fn everything(id: &str, target: &str) -> String {
    subscriber(id, "", target)
}

/// The same with further lines at its top.
pub fn subscriber(id: &str, lines: &str, target: &str) -> String {
    format!("id = {id:?}\nscope = \"all\"\nevents = [\"*\"]\n{lines}\n{target}\n")
}

/// An HTTP target.
pub fn http(url: &str) -> String {
    format!("[http]\nurl = {url:?}")
}

/// The documented example as an event with this id.
pub fn event(id: &str) -> Vec<u8> {
    let mut event: Value = serde_json::from_str(EVENT).unwrap();
    event["id"] = id.into();
    event.to_string().into_bytes()
}

/// Settings and subscribers in a folder, as an operator writes them.
pub struct Folder(TempDir);

impl Folder {
    pub fn new(settings: &str, subscribers: &[String]) -> Self {
        let folder = Self(TempDir::new().unwrap());
        fs::write(folder.settings(), settings).unwrap();
        fs::create_dir(folder.subscribers()).unwrap();
        folder.set_subscribers(subscribers);
        folder
    }

    pub fn settings(&self) -> std::path::PathBuf {
        self.0.path().join("hookbridge.toml")
    }

    fn subscribers(&self) -> std::path::PathBuf {
        self.0.path().join("subscribers")
    }

    /// Replaces the subscribers' files by one for each of these.
    pub fn set_subscribers(&self, subscribers: &[String]) {
        for file in fs::read_dir(self.subscribers()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        for (number, text) in subscribers.iter().enumerate() {
            let mut name = String::new();
            write!(name, "{number:03}.toml").unwrap();
            fs::write(self.subscribers().join(name), planted::in_subscriber(text)).unwrap();
        }
    }
}

/// A running bridge, and a client of its home broker. Dropping it without [`Self::stop`] aborts
/// it, as a crash would.
pub struct Line {
    pub client: Client,
    folder: Folder,
    handle: Handle,
    admin: String,
    ends: CancellationToken,
    running: JoinSet<Result<(), BridgeError>>,
}

impl Line {
    /// Starts a bridge on the broker at `uri` with these subscribers, and waits until it is ready.
    pub async fn start(uri: &str, setup: &Setup, subscribers: &[String]) -> Self {
        let line = Self::start_unready(uri, setup, subscribers).await;
        line.wait_until_ready().await;
        line
    }

    /// Starts a bridge, whether or not it gets ready.
    pub async fn start_unready(uri: &str, setup: &Setup, subscribers: &[String]) -> Self {
        planted::watch_log();
        let folder = Folder::new(&setup.settings(uri), subscribers);
        let settings = settings::load(&folder.settings(), std::iter::empty())
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let rules = Rules::from(&settings);
        let loaded = load_directory(&settings.subscribers.directory, &rules)
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let bridge = Bridge::build(settings, loaded).await.unwrap();
        let mut line = Self {
            client: Client::connect(uri).await,
            folder,
            handle: bridge.handle(),
            admin: format!("http://{}", bridge.admin_address()),
            ends: bridge.ends(),
            running: JoinSet::new(),
        };
        line.running.spawn(bridge.run());
        line
    }

    /// Waits until `/readyz` says yes.
    pub async fn wait_until_ready(&self) {
        let ready = async || {
            assert!(!self.ends.is_cancelled(), "the bridge ended by itself");
            (self.readiness().await?.0 == 200).then_some(())
        };
        eventually("the bridge is ready", SOON * 2, ready).await;
    }

    /// The status and the words of `/readyz`, if it answers.
    pub async fn readiness(&self) -> Option<(u16, String)> {
        let answer = reqwest::get(self.url("/readyz")).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.admin)
    }

    /// Publishes the documented example as an event with this id.
    pub async fn publish(&self, id: &str) {
        let published = self.client.publish(SOURCE, KEY, &event(id)).await;
        assert_eq!(published, Published::Routed);
    }

    /// Publishes as many events at once, without waiting for one after the other.
    pub async fn publish_many(&self, ids: impl Iterator<Item = String>) {
        let channel = self.client.connection.create_channel().await.unwrap();
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.unwrap();
        for id in ids {
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel
                .basic_publish(SOURCE.into(), KEY.into(), options, &event(&id), properties)
                .await
                .unwrap();
        }
        channel.wait_for_confirms().await.unwrap();
        channel.close(200, "OK".into()).await.unwrap();
    }

    /// Waits for `count` dead letters and takes them.
    pub async fn dead_letters(&self, count: usize) -> Vec<Message> {
        self.client.receive("hookbridge.dead", count, SOON).await
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> String {
        let answer = reqwest::get(self.url("/metrics")).await.unwrap();
        answer.text().await.unwrap()
    }

    /// The value of one series, written as `/metrics` writes it; 0 if there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics().await;
        let value = metrics.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == series).then(|| value.parse().unwrap())
        });
        value.unwrap_or_default()
    }

    /// Waits until a series has this value.
    pub async fn wait_for_metric(&self, series: &str, value: f64) {
        let what = format!("{series} is {value}");
        let reached = async || {
            let now = self.metric(series).await;
            ((now - value).abs() < 0.5).then_some(())
        };
        eventually(&what, SOON, reached).await;
    }

    /// Replaces the subscribers by `enabled` enabled ones and others, and waits until they count.
    /// There must be another number of them than before.
    pub async fn reload(&self, subscribers: &[String], enabled: u32) {
        let series = r#"hookbridge_subscribers{state="enabled"}"#;
        let before = self.metric(series).await;
        assert!((before - f64::from(enabled)).abs() > 0.5, "visible at all");
        self.folder.set_subscribers(subscribers);
        self.handle.reload();
        self.wait_for_metric(series, f64::from(enabled)).await;
    }

    /// Stops the bridge and waits for its clean end; it must have shown no secret.
    pub async fn stop(mut self) {
        planted::shows_nothing("/metrics", &self.metrics().await);
        let began = Instant::now();
        self.handle.stop();
        let ended = timeout(SOON, self.running.join_next()).await;
        ended
            .unwrap_or_else(|_| panic!("not stopped after {:?}", began.elapsed()))
            .expect("it ran")
            .expect("no panic")
            .expect("a clean end");
        planted::log_shows_nothing();
    }
}

/// Everything of a dead letter that the contract fixes, but for reason and detail: `attempts`
/// failed ones of the delivery of event `event` to `subscriber`.
#[track_caller]
pub fn assert_dead_letter(message: &Message, event: &str, subscriber: &str, attempts: u32) {
    let header = |name: &str| message.header(name).unwrap_or_default();
    assert_eq!(header("hookbridge-subscriber"), subscriber);
    assert_eq!(
        header("hookbridge-attempts"),
        attempts.to_string(),
        "{subscriber}: {}",
        header("hookbridge-detail")
    );
    let id = webhook_id("/order-hub", event, subscriber);
    let message_id = message.properties.message_id().as_ref();
    assert_eq!(
        message_id.map(lapin::types::ShortString::as_str),
        Some(&*id)
    );
    assert_eq!(header("webhook-type"), "StatusUpdate");
    assert_eq!(header("hookbridge-replay"), "0");
    let first = message.header("hookbridge-first-reason");
    assert_eq!(
        first.is_some(),
        attempts == 2,
        "{subscriber}: first {first:?}"
    );
    let webhook: Value = serde_json::from_str(WEBHOOK).unwrap();
    let payload: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(payload, webhook, "{subscriber}");
}

/// The webhook's id by the rule in the documentation.
pub fn webhook_id(source: &str, event: &str, subscriber: &str) -> String {
    use uuid::Uuid;
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:hookbridge:webhook");
    let name = format!("[{source:?},{event:?},{subscriber:?}]");
    Uuid::new_v5(&namespace, name.as_bytes()).to_string()
}

/// The dead letter of one subscriber.
#[track_caller]
pub fn of<'m>(messages: &'m [Message], subscriber: &str) -> &'m Message {
    let mut of = messages
        .iter()
        .filter(|message| message.header("hookbridge-subscriber").as_deref() == Some(subscriber));
    let found = of.next();
    assert!(of.next().is_none(), "{subscriber} has more than one");
    found.unwrap_or_else(|| panic!("{subscriber} has none"))
}
