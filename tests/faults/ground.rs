//! What a run stands on: the home broker, a broker of the subscribers' own, the queues there and
//! the endpoint, all of them real.

use std::{ops::Deref, sync::Arc};

use hookbridge::cli::demo::node::{NodeOptions, Plugin, PrivateNode};
use lapin::{ExchangeKind, types::AMQPValue};
use tokio::task::{JoinSet, spawn_blocking};

use super::{
    cast::{FULL, Who},
    chance::Mood,
    collector::collect,
    ledger::{Ledger, forged},
};
use crate::support::{
    client::Client,
    cluster::Cluster,
    http::{Answer, Arrival, Receiver},
    program::Setup,
    proxy::Proxy,
};

/// Where nothing listens: below the ports that anything here takes.
const REFUSED: &str = "http://127.0.0.1:9/hook";
/// What docs/operators.md advises for every node: a delivery that a queue without a leader refused, when
/// its retry was due, is tried again after ten seconds instead of three minutes.
pub const ADVISED: &str = include_str!("../../deploy/rabbitmq/advanced.config");
/// A name that no resolver knows (RFC 6761).
const UNRESOLVABLE: &str = "http://nobody.invalid/hook";

/// The home broker: one node, or three that are one cluster. It can be used as a node, which is the
/// cluster's first.
pub enum Home {
    Node(PrivateNode),
    Cluster(Cluster),
}

impl Home {
    fn node() -> Self {
        Self::Node(node(Some(ADVISED)))
    }

    fn cluster(advanced: Option<&str>) -> Self {
        Self::Cluster(Cluster::start_with(advanced))
    }

    /// The cluster, where it is one.
    pub fn as_cluster(&self) -> &Cluster {
        match self {
            Self::Node(_) => panic!("one node is no cluster"),
            Self::Cluster(cluster) => cluster,
        }
    }

    fn nodes(&self) -> Vec<&PrivateNode> {
        match self {
            Self::Node(node) => vec![node],
            Self::Cluster(cluster) => (0..3).map(|index| cluster.node(index)).collect(),
        }
    }

    /// A line to any of its nodes that is there.
    fn line(&self) -> Proxy {
        let ports: Vec<_> = self.nodes().iter().map(|node| node.amqp_port()).collect();
        Proxy::balance(&ports)
    }

    /// Makes its nodes write to disk which queues there are.
    pub fn remember(&self) {
        for node in self.nodes() {
            node.sync().unwrap();
        }
    }
}

impl Deref for Home {
    type Target = PrivateNode;

    fn deref(&self) -> &PrivateNode {
        self.nodes()[0]
    }
}

/// The brokers and the endpoint.
pub struct Ground {
    pub home: Home,
    pub away: PrivateNode,
    /// The line of the bridge to its home broker.
    pub home_line: Proxy,
    /// The line of the bridge to the subscribers' broker.
    pub away_line: Proxy,
    /// The line of everybody else to the home broker, which no fault is made on.
    clients: Proxy,
    pub http: Receiver,
}

impl Ground {
    pub async fn new(ledger: &Arc<Ledger>, seed: u64, guests: &[Who]) -> Self {
        Self::on(Home::node, ledger, seed, guests).await
    }

    /// The same with a cluster of three nodes as home broker, which have this `advanced.config`.
    pub async fn on_cluster(
        ledger: &Arc<Ledger>,
        seed: u64,
        advanced: Option<&'static str>,
    ) -> Self {
        Self::on(move || Home::cluster(advanced), ledger, seed, &[]).await
    }

    async fn on(
        home: impl FnOnce() -> Home + Send + 'static,
        ledger: &Arc<Ledger>,
        seed: u64,
        guests: &[Who],
    ) -> Self {
        let (home, away) = tokio::join!(spawn_blocking(home), spawn_blocking(|| node(None)));
        let (home, away) = (home.unwrap(), away.unwrap());
        for (node, queues) in [
            (&*home, ["home.well", "home.full"]),
            (&away, ["away.well", "away.full"]),
        ] {
            declare(&node.amqp_uri("/"), queues).await;
        }
        for who in guests {
            let node = if who.away() { &away } else { &home };
            let client = Client::connect(&node.amqp_uri("/")).await;
            client.declare_quorum(queue(*who)).await;
            if let Some(exchange) = exchange(*who) {
                open(&client, exchange, queue(*who)).await;
            }
        }
        Self {
            home_line: home.line(),
            clients: home.line(),
            away_line: Proxy::start(away.amqp_port()),
            http: receiver(ledger, seed).await,
            home,
            away,
        }
    }

    /// The home broker, for the bridge.
    pub fn bridge_uri(&self) -> String {
        through(&self.home, &self.home_line)
    }

    /// The home broker, for all who are not the bridge.
    pub fn client_uri(&self) -> String {
        through(&self.home, &self.clients)
    }

    /// Writes the files of all subscribers and these guests.
    pub fn write_subscribers(&self, setup: &Setup, guests: &[Who]) {
        for who in Who::ALL.iter().chain(guests).copied() {
            let text = format!(
                "id = \"{who}\"\nparty = \"{}\"\nevents = [\"*\"]\n{}\n",
                who.party(),
                self.target(who),
            );
            setup.subscriber(who.id(), &text);
        }
    }

    fn target(&self, who: Who) -> String {
        let http = |url: &str| format!("[http]\nurl = {url:?}");
        let home = |queue: &str| format!("[amqp]\nqueue = {queue:?}");
        let uri = through(&self.away, &self.away_line);
        let away = |queue: &str| format!("[amqp]\nuri = {uri:?}\nqueue = {queue:?}");
        match who {
            Who::HttpWell => http(&self.http.url("/well")),
            Who::HttpMoody => http(&self.http.url("/moody")),
            Who::HttpRefused => http(REFUSED),
            Who::HttpUnresolvable => http(UNRESOLVABLE),
            Who::HomeWell => home("home.well"),
            Who::HomeMissing => home("home.missing"),
            Who::HomeFull => home("home.full"),
            Who::AwayWell => away("away.well"),
            Who::AwayMissing => away("away.missing"),
            Who::AwayFull => away("away.full"),
            Who::AwayClosing => format!(
                "[amqp]\nuri = {uri:?}\nexchange = \"away.closing\"\nrouting_key = \"{{type}}\""
            ),
            Who::HomeStuck => home("home.stuck"),
            Who::HomeDenied | Who::HomeGone => {
                let exchange = exchange(who).unwrap();
                format!("[amqp]\nexchange = {exchange:?}\nrouting_key = \"{{type}}\"")
            }
        }
    }

    /// Makes the exchange of a guest, with its queue bound to it.
    pub async fn open_exchange(&self, who: Who) {
        let client = self.client_of(who).await;
        open(&client, exchange(who).unwrap(), queue(who)).await;
    }

    /// Deletes the exchange of a guest.
    pub async fn delete_exchange(&self, who: Who) {
        let client = self.client_of(who).await;
        client.delete_exchange(exchange(who).unwrap()).await;
    }

    /// A client of the broker that a subscriber's queue is on.
    pub async fn client_of(&self, who: Who) -> Client {
        let node = if who.away() { &self.away } else { &self.home };
        Client::connect(&node.amqp_uri("/")).await
    }

    /// Lets the subscribers that read their queues do so, for as long as these tasks live.
    pub fn collectors(&self, ledger: &Arc<Ledger>, guests: &[Who]) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for who in [Who::HomeWell, Who::AwayWell].iter().chain(guests) {
            let uri = if who.away() {
                self.away.amqp_uri("/")
            } else {
                self.client_uri()
            };
            tasks.spawn(collect(uri, queue(*who), Arc::clone(ledger)));
        }
        tasks
    }
}

fn node(advanced: Option<&str>) -> PrivateNode {
    PrivateNode::start(&NodeOptions {
        plugins: vec![Plugin::Management],
        advanced: advanced.map(str::to_owned),
        ..NodeOptions::default()
    })
    .unwrap()
}

/// The queue that a subscriber reads.
fn queue(who: Who) -> &'static str {
    match who {
        Who::HomeWell => "home.well",
        Who::AwayWell => "away.well",
        Who::AwayClosing => "away.behind-closing",
        Who::HomeStuck => "home.stuck",
        Who::HomeDenied => "home.behind-denied",
        Who::HomeGone => "home.behind-gone",
        other => panic!("{other} reads no queue"),
    }
}

/// The exchange that a guest's queue is behind.
fn exchange(who: Who) -> Option<&'static str> {
    match who {
        Who::AwayClosing => Some("away.closing"),
        Who::HomeDenied => Some("home.denied"),
        Who::HomeGone => Some("home.gone"),
        _ => None,
    }
}

async fn open(client: &Client, exchange: &str, queue: &str) {
    client.declare_exchange(exchange, ExchangeKind::Topic).await;
    client.bind(queue, exchange, "#").await;
}

/// The address of a node by way of a line to it.
fn through(node: &PrivateNode, line: &Proxy) -> String {
    let own = format!("127.0.0.1:{}", node.amqp_port());
    let uri = node.amqp_uri("/");
    uri.replace(&own, &format!("127.0.0.1:{}", line.port()))
}

/// A queue that takes everything, and one that is soon full.
async fn declare(uri: &str, [well, full]: [&str; 2]) {
    let client = Client::connect(uri).await;
    client.declare_quorum(well).await;
    let arguments = [
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-max-length", AMQPValue::LongLongInt(FULL)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    client.declare(full, arguments).await;
}

/// The endpoint: it notes what comes, and takes it well or as its mood is.
async fn receiver(ledger: &Arc<Ledger>, seed: u64) -> Receiver {
    let receiver = Receiver::forgetful().await;
    let noting = |mood: fn(u64, usize, u8) -> Mood| {
        let ledger = Arc::clone(ledger);
        move |arrival: &Arrival, _: usize| {
            let header = |name| arrival.header(name).unwrap_or_default();
            let (id, attempt) = (header("webhook-id"), header("webhook-attempt"));
            let attempt = attempt.parse().unwrap_or_default();
            if forged(format!("{:?}", arrival.headers).as_bytes()) || forged(&arrival.body) {
                ledger.stranger(format!("{id} has something of its event's: {arrival:?}"));
            }
            let event = ledger.event_of(id);
            let mood = event.map_or(Mood::Well, |event| mood(seed, event, attempt));
            ledger.arrived(id, attempt, mood == Mood::Well);
            match mood {
                Mood::Well => Answer::Status(200),
                Mood::Status(status) => Answer::Status(status),
                Mood::Hang => Answer::Hang,
                Mood::Reset => Answer::CutOff(200),
                Mood::Drip => Answer::Drip(200),
            }
        }
    };
    receiver.answer_with("/well", noting(|_, _, _| Mood::Well));
    receiver.answer_with("/moody", noting(Mood::of));
    receiver
}
