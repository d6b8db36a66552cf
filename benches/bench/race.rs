//! Throughput: the bridge and its peers do the same job in turns, so that all see the same machine.

use hookbridge::cli::demo::node::PrivateNode;
use serde_json::json;

use crate::{
    bare::Job,
    bridge::{Setup, Subscriber},
    ground::Ground,
    load::{Route, SOURCE, heap},
    peers,
    process::Process,
    receiver::Receiver,
    stats::median,
    watch::{Count, Round, watch},
};

/// Posts under way to one endpoint: `delivery.max_in_flight_per_subscriber` as it is built in.
pub(crate) const CONCURRENT: usize = 64;

/// Who does the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// hookbridge.
    Bridge,
    /// A loop of the same libraries.
    Bare,
    /// A client that does not consume, and only publishes the copies.
    Publisher,
    /// RabbitMQ's shovel plugin, on-confirm, over TCP.
    Shovel,
    /// The same inside the broker, without connections.
    DirectShovel,
    /// A consumer for Node, as a user writes it. Into queues it publishes what the bridge does.
    Node,
    /// The same, but into queues it publishes bodies alone.
    NodeBodies,
    /// A consumer for Python, as a user writes it. Into queues it publishes what the bridge does.
    Python,
}

impl Side {
    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "hookbridge",
            Self::Bare => "bare loop",
            Self::Publisher => "bare publisher",
            Self::Shovel => "shovel",
            Self::DirectShovel => "shovel, direct",
            Self::Node => "Node",
            Self::NodeBodies => "Node, bodies only",
            Self::Python => "Python",
        }
    }
}

/// Where the events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// To HTTP endpoints.
    Http,
    /// To queues of the same broker.
    Queue,
}

/// A job, and how much of it.
#[derive(Clone, Copy)]
pub(crate) struct Race<'a> {
    /// Where it is done.
    pub(crate) ground: &'a Ground,
    /// The broker that the ground is of.
    pub(crate) node: &'a PrivateNode,
    /// Where HTTP subscribers listen.
    pub(crate) receiver: &'a Receiver,
    /// Where the events go.
    pub(crate) transport: Transport,
    /// To how many subscribers.
    pub(crate) fan: usize,
    /// Each side's turns.
    pub(crate) rounds: usize,
}

/// A side's rounds, in short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Result {
    /// Whose.
    pub(crate) side: Side,
    /// Medians; of the memory, the most.
    pub(crate) round: Round,
}

impl Race<'_> {
    /// Runs every side in turn, with as many events as is said for it, and gives the medians in the
    /// order of the sides. Each round begins with another side, so that nobody is always the first.
    pub(crate) async fn run(&self, sides: &[(Side, u64)]) -> Vec<Result> {
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); sides.len()];
        for turn in 1..=self.rounds {
            for number in 0..sides.len() {
                let at = (turn - 1 + number) % sides.len();
                let (side, events) = sides[at];
                rounds[at].push(self.round(side, events).await);
            }
            let rates = sides.iter().zip(&rounds).map(|((side, _), rounds)| {
                let rate = rounds.last().map_or(0.0, |round| round.per_second);
                format!("{} {rate:.0}/s", side.name())
            });
            let rates: Vec<_> = rates.collect();
            println!("  round {turn} of {}: {}", self.rounds, rates.join(", "));
        }
        let of = |rounds: &[Round], pick: fn(&Round) -> f64| median(rounds.iter().map(pick));
        sides
            .iter()
            .zip(&rounds)
            .map(|(&(side, _), rounds)| Result {
                side,
                round: Round {
                    per_second: of(rounds, |round| round.per_second),
                    micros_each: of(rounds, |round| round.micros_each),
                    memory: rounds.iter().map(|round| round.memory).fold(0.0, f64::max),
                },
            })
            .collect()
    }

    async fn round(&self, side: Side, events: u64) -> Round {
        let ground = self.ground;
        let (queues, urls) = match self.transport {
            Transport::Queue => (ground.queues(self.fan).await, Vec::new()),
            Transport::Http => {
                let numbers = 0..u32::try_from(self.fan).expect("a number");
                let urls = numbers.map(|who| self.receiver.url("ok", who));
                (Vec::new(), urls.collect())
            }
        };
        self.receiver.arrivals.take();
        let deliveries = events * self.fan as u64;
        let count = match self.transport {
            Transport::Queue => Count::Filled(&queues),
            Transport::Http => Count::Arrivals(&self.receiver.arrivals),
        };
        let round = if side == Side::Bridge {
            let http = urls.iter().enumerate();
            let http = http.map(|(n, url)| Subscriber::http(&format!("http-{n}"), None, url));
            let amqp = queues.iter().enumerate();
            let amqp =
                amqp.map(|(n, queue)| Subscriber::queue(&format!("queue-{n}"), None, None, queue));
            let subscribers: Vec<_> = http.chain(amqp).collect();
            let setup = Setup::new(ground, &subscribers);
            heap(ground, SOURCE, "everyone", events).await;
            let mut bridge = setup.start().process;
            let round = watch(ground, &mut [&mut bridge], count, deliveries).await;
            bridge.stop().await;
            round
        } else {
            let from = ground.queue().await;
            if side != Side::Publisher {
                heap(ground, Route::queue(&from), "everyone", events).await;
            }
            let mut process = self.start(side, &from, &queues, &urls, events);
            let mut processes: Vec<_> = process.iter_mut().collect();
            let round = watch(ground, &mut processes, count, deliveries).await;
            drop(process);
            if matches!(side, Side::Shovel | Side::DirectShovel) {
                self.shovel(None);
            }
            ground.purge(&from).await;
            round
        };
        for queue in &queues {
            ground.purge(queue).await;
        }
        round
    }

    fn start(
        &self,
        side: Side,
        from: &str,
        queues: &[String],
        urls: &[String],
        events: u64,
    ) -> Option<Process> {
        let uri = self.ground.uri.clone();
        let job = match (side, self.transport) {
            (Side::Bridge, _) => return None,
            (Side::Bare, Transport::Http) => Job::Http {
                uri,
                from: from.to_owned(),
                urls: urls.to_vec(),
                concurrent: CONCURRENT,
            },
            (Side::Bare, Transport::Queue) => Job::Queue {
                uri,
                from: from.to_owned(),
                to: queues.to_vec(),
            },
            (Side::Publisher, _) => Job::Publish {
                uri,
                to: queues.to_vec(),
                events,
            },
            (Side::Shovel, _) => {
                self.shovel(Some((from, &queues[0], &uri)));
                return None;
            }
            (Side::DirectShovel, _) => {
                let inside = format!("amqp:///{}", self.ground.vhost);
                self.shovel(Some((from, &queues[0], &inside)));
                return None;
            }
            (Side::Node | Side::NodeBodies | Side::Python, transport) => {
                let target = match transport {
                    Transport::Http => json!({ "url": urls[0] }),
                    Transport::Queue => json!({ "to": queues[0] }),
                };
                let mut command = peers::command(side, &uri, from, &target);
                return Some(Process::start("peer", &mut command));
            }
        };
        Some(Process::start("bare-loop", &mut job.command()))
    }

    /// Sets the shovel up, or takes it away.
    fn shovel(&self, way: Option<(&str, &str, &str)>) {
        let vhost = self.ground.vhost.as_str();
        let done = match way {
            Some((from, to, uri)) => {
                let definition = json!({
                    "src-protocol": "amqp091", "src-uri": uri, "src-queue": from, "src-prefetch-count": 1000,
                    "dest-protocol": "amqp091", "dest-uri": uri, "dest-queue": to, "ack-mode": "on-confirm",
                });
                let definition = definition.to_string();
                self.node.rabbitmqctl(&[
                    "set_parameter",
                    "-p",
                    vhost,
                    "shovel",
                    "bench",
                    &definition,
                ])
            }
            None => self
                .node
                .rabbitmqctl(&["clear_parameter", "-p", vhost, "shovel", "bench"]),
        };
        done.expect("the shovel");
    }
}
