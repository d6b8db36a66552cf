//! Everything that runs while the demo is shown: the bridge, as `hookbridge run` would run it, and
//! the subscribers' ends.

use std::net::SocketAddr;

use anyhow::{Context, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Duration, Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    arrival::{Arrival, HEADERS},
    cast::{CAST, Member, Target},
    ground::Ground,
    node::free_listener,
    receiver::Receiver,
};
use crate::{
    bridge::{self, Bridge, BridgeError, Handle},
    broker::{
        connection::{Connection, Dialer},
        consumer::{self, Options, Session},
        home,
        topology::passing,
    },
    cli::healthcheck,
    settings::Settings,
    subscriber::loading::{Rules, load_directory},
    telemetry::logs,
};

/// Arrivals that may wait to be shown.
const ARRIVALS: usize = 256;
/// How often the bridge is asked whether it is ready.
const ASK: Duration = Duration::from_millis(50);

/// What runs.
pub(super) struct Stage {
    /// What the bridge runs with.
    pub(super) settings: Settings,
    /// The demo's own connection to the home broker.
    pub(super) home: Connection,
    /// Where the bridge's admin listener is.
    pub(super) admin: SocketAddr,
    /// The root of the HTTP receiver.
    pub(super) receiver: String,
    /// What comes to the subscribers.
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    /// Cancelled when the bridge has ended.
    pub(super) bridge_ends: CancellationToken,
    own: Connection,
    handle: Handle,
    bridge: JoinHandle<Result<(), BridgeError>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A signing secret for each member of the cast.
pub(super) fn secrets() -> Vec<String> {
    let random = || [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    let secret = |_: &Member| format!("whsec_{}", BASE64_STANDARD.encode(random()));
    CAST.iter().map(secret).collect()
}

impl Stage {
    /// Starts everything; the bridge last, so that what fails before leaves none running.
    pub(super) async fn raise(
        ground: &Ground,
        secrets: &[String],
        keep: bool,
    ) -> anyhow::Result<Self> {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let receiver = Receiver::bind(sender.clone())
            .await
            .context("cannot listen")?;
        let receiver_url = format!("http://{}", receiver.address()?);
        // Port 0 would do, but whoever reads the settings should find the real one there.
        let admin_port = if keep {
            free_listener()?.local_addr()?.port()
        } else {
            0
        };
        ground
            .write_settings(admin_port, &receiver_url, secrets)
            .context("cannot write the settings")?;
        let settings = ground.load_settings()?;
        let loaded = load_directory(&settings.subscribers.directory, &Rules::from(&settings))
            .map_err(|mistakes| anyhow!("the subscribers are wrong:\n{mistakes}"))?;
        logs::start(&settings.log)?;

        let connect = async |dialer: Dialer, whose: &str| {
            let name = "hookbridge demo".to_owned();
            let connecting = Dialer { name, ..dialer };
            connecting
                .connect()
                .await
                .with_context(|| format!("cannot connect to {whose}"))
        };
        let home = connect(bridge::home_dialer(&settings.broker), "the home broker").await?;
        let own = connect(ground.own_dialer(&settings), "the subscriber's broker").await?;
        ground.use_it();
        for member in &CAST {
            if matches!(member.target, Target::Http(_)) {
                continue;
            }
            let connection = if member.target == Target::OwnBroker {
                &own
            } else {
                &home
            };
            let (exchanges, queues) = member.declares(ground);
            passing::declare(connection, &exchanges, &queues).await?;
            let session = consume(connection, member.queue(ground), &stop).await?;
            tasks.spawn(inbox(session, member, sender.clone()));
        }
        tasks.spawn(receiver.serve(stop.clone(), tasks.clone()));
        let bridge = Bridge::build(settings.clone(), loaded).await?;
        Ok(Self {
            settings,
            home,
            admin: bridge.admin_address(),
            receiver: receiver_url,
            arrivals,
            bridge_ends: bridge.ends(),
            own,
            handle: bridge.handle(),
            bridge: tasks.spawn(bridge.run()),
            stop,
            tasks,
        })
    }

    /// Waits until the bridge is ready.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        while !self.ask("/readyz").await?.0 {
            sleep(ASK).await;
        }
        Ok(())
    }

    /// Asks the bridge's admin listener for `path`: whether the answer is 200, and its body.
    pub(super) async fn ask(&self, path: &'static str) -> anyhow::Result<(bool, String)> {
        let admin = self.admin;
        tokio::task::spawn_blocking(move || healthcheck::ask(admin, path))
            .await?
            .with_context(|| format!("cannot ask http://{admin}{path}"))
    }

    /// The headers of the dead letter with this message id, which stays where it is.
    pub(super) async fn dead_letter(
        &self,
        id: &str,
    ) -> anyhow::Result<Vec<(&'static str, String)>> {
        const NAMES: [&str; 6] = [
            "hookbridge-subscriber",
            "hookbridge-reason",
            "hookbridge-detail",
            "hookbridge-attempts",
            "hookbridge-first-reason",
            "hookbridge-first-detail",
        ];
        let queue = format!("{}.dead", self.settings.broker.prefix);
        let mut session = consume(&self.home, queue.clone(), &self.stop).await?;
        // Not acknowledged: with the session it goes back to its queue.
        while let Some(letters) = session.next(1).await {
            let Some(letter) = letters.iter().find(|one| one.message_id() == Some(id)) else {
                continue;
            };
            let headers = NAMES.map(|name| {
                let number = || letter.number(name).map(|number| number.to_string());
                let value = letter.text(name).map(str::to_owned).or_else(number);
                (name, value.unwrap_or_default())
            });
            session.end().await;
            return Ok(headers.into());
        }
        bail!("the broker ended the consumer of {queue}")
    }

    /// Stops everything in order; the error is the bridge's.
    pub(super) async fn strike(mut self) -> anyhow::Result<()> {
        self.handle.stop();
        // Nobody may wait to show what nobody looks at any more.
        let drain = async { while self.arrivals.recv().await.is_some() {} };
        let ended = tokio::select! {
            ended = &mut self.bridge => ended,
            () = drain => (&mut self.bridge).await,
        };
        self.stop.cancel();
        self.arrivals.close();
        self.tasks.close();
        self.tasks.wait().await;
        home::close(&self.own).await;
        home::close(&self.home).await;
        Ok(ended??)
    }
}

async fn consume(
    connection: &Connection,
    queue: String,
    stop: &CancellationToken,
) -> anyhow::Result<Session> {
    let options = Options {
        queue,
        prefetch: 16,
        bytes: None,
        gate: None,
        listens_to: None,
    };
    consumer::start(connection, &options, stop)
        .await
        .with_context(|| format!("cannot consume from {}", options.queue))
}

/// Takes what comes to a queue.
async fn inbox(mut session: Session, member: &'static Member, arrivals: mpsc::Sender<Arrival>) {
    let settler = session.settler();
    while let Some(messages) = session.next(1).await {
        let at = Instant::now();
        for message in messages {
            let mut headers = HeaderMap::new();
            for name in HEADERS {
                if let Some(Ok(value)) = message.text(name).map(HeaderValue::from_str) {
                    headers.insert(name, value);
                }
            }
            settler.ack(message.tag).await;
            let arrival = Arrival {
                member,
                at,
                headers,
                body: message.body,
                status: None,
            };
            if arrivals.send(arrival).await.is_err() {
                return;
            }
        }
    }
}
