//! What is measured.

use hookbridge::cli::demo::node::PrivateNode;

use crate::{
    ground::Ground,
    options::Options,
    peers,
    plot::{Bar, Group},
    race::{Race, Result, Side, Transport},
    receiver::Receiver,
    report::{Must, Report, Row, Unit, thousands},
    watch::Round,
};

mod brokers;
mod ceiling;
mod fan_out;
mod http;
mod isolation;
mod lane;
mod latency;
mod pair;
mod queue;
mod retry;

/// A part of the benchmark, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// How much the receiver can take.
    Ceiling,
    /// Events to one HTTP endpoint.
    Http,
    /// Events to one queue on the home broker.
    Queue,
    /// Events to ten HTTP endpoints.
    FanOutHttp,
    /// Events to ten queues on the home broker.
    FanOutQueue,
    /// The retry path.
    Retry,
    /// How long a delivery takes at a moderate rate.
    Latency,
    /// Two bridges.
    Pair,
    /// Many subscribers' brokers.
    Brokers,
    /// Healthy subscribers beside bad ones.
    Isolation,
    /// Two slow subscribers in one slow lane.
    Lane,
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Ceiling,
        Self::Http,
        Self::Queue,
        Self::FanOutHttp,
        Self::FanOutQueue,
        Self::Retry,
        Self::Latency,
        Self::Pair,
        Self::Brokers,
        Self::Isolation,
        Self::Lane,
    ];

    /// Its name, which is its virtual host's, too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Http => "http",
            Self::Queue => "queue",
            Self::FanOutHttp => "fan-out-http",
            Self::FanOutQueue => "fan-out-queue",
            Self::Retry => "retry",
            Self::Latency => "latency",
            Self::Pair => "two-bridges",
            Self::Brokers => "outside-brokers",
            Self::Isolation => "isolation",
            Self::Lane => "slow-lane",
        }
    }

    /// Measures it.
    pub(crate) async fn run(self, bench: &mut Bench<'_>) {
        match self {
            Self::Ceiling => ceiling::run(bench).await,
            Self::Http => http::run(bench).await,
            Self::Queue => queue::run(bench).await,
            Self::FanOutHttp => fan_out::http(bench).await,
            Self::FanOutQueue => fan_out::queue(bench).await,
            Self::Retry => retry::run(bench).await,
            Self::Latency => latency::run(bench).await,
            Self::Pair => pair::run(bench).await,
            Self::Brokers => brokers::run(bench).await,
            Self::Isolation => isolation::run(bench).await,
            Self::Lane => lane::run(bench).await,
        }
    }
}

/// What a part needs.
pub(crate) struct Bench<'a> {
    /// What was asked for.
    pub(crate) options: &'a Options,
    /// The broker.
    pub(crate) node: &'a PrivateNode,
    /// The part's own virtual host of it.
    pub(crate) ground: &'a Ground,
    /// The HTTP subscribers' endpoint.
    pub(crate) receiver: &'a Receiver,
    /// Where the figures go.
    pub(crate) report: &'a mut Report,
    /// Throughput to one HTTP subscriber, if it was measured.
    pub(crate) http: &'a mut Option<f64>,
    /// The most memory that the bridge had under full load.
    pub(crate) memory: &'a mut f64,
}

impl Bench<'_> {
    /// Lets these sides race. `others` are left out if they are not to be had.
    async fn race(
        &mut self,
        title: &str,
        transport: Transport,
        fan: usize,
        sides: &[(Side, u64)],
        rounds: usize,
    ) -> Results {
        let mut there = Vec::new();
        for &(side, events) in sides {
            if matches!(side, Side::Node | Side::NodeBodies | Side::Python)
                && let Err(why) = peers::install(side)
            {
                self.report
                    .miss(format!("{title} beside {}: {why}", side.name()));
                continue;
            }
            there.push((side, self.options.pick(events, events.div_ceil(20))));
        }
        let race = Race {
            ground: self.ground,
            node: self.node,
            receiver: self.receiver,
            transport,
            fan,
            rounds: self.options.pick(rounds, 1),
        };
        let results = Results(race.run(&there).await);
        let bars = results.0.iter().map(|result| Bar {
            name: result.side.name().to_owned(),
            figure: result.round.per_second,
            text: format!("{}/s", thousands(result.round.per_second)),
            ours: result.side == Side::Bridge,
        });
        self.report.throughput.push(Group {
            title: title.to_owned(),
            bars: bars.collect(),
        });
        *self.memory = self.memory.max(results.ours().memory);
        results
    }

    /// A row of throughput beside a side.
    fn beside(&mut self, what: &str, results: &Results, side: Side, must: Must) {
        let Some(peer) = results.of(side) else { return };
        self.report.add(Row {
            what: what.to_owned(),
            unit: Unit::PerSecond,
            ours: results.ours().per_second,
            peer: Some((side.name().to_owned(), peer.per_second)),
            must,
        });
    }

    /// A row of throughput beside the better of the consumers that users write.
    fn beside_consumers(&mut self, what: &str, results: &Results) {
        let sides = [Side::Node, Side::Python];
        let consumers = sides
            .iter()
            .filter_map(|side| Some((*side, results.of(*side)?.per_second)));
        let best = consumers.max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((side, _)) = best {
            self.beside(what, results, side, Must::Reach(1.4));
            for other in sides.into_iter().filter(|other| *other != side) {
                self.beside(what, results, other, Must::Nothing);
            }
        }
    }

    /// A row of the bridge's own processor time.
    fn processor_time(&mut self, what: &str, results: &Results, most: f64, peer: Side) {
        let peer = results.of(peer);
        self.report.add(Row {
            what: format!("processor time of its own, {what}"),
            unit: Unit::Microseconds,
            ours: results.ours().micros_each,
            peer: peer
                .filter(|peer| peer.micros_each > 0.0)
                .map(|peer| ("bare loop".to_owned(), peer.micros_each)),
            must: Must::AtMost(most),
        });
    }
}

/// What a race came to.
struct Results(Vec<Result>);

impl Results {
    fn of(&self, side: Side) -> Option<Round> {
        let result = self.0.iter().find(|result| result.side == side)?;
        Some(result.round)
    }

    fn ours(&self) -> Round {
        self.of(Side::Bridge).expect("the bridge takes part")
    }
}

/// The row of the most memory under full load.
pub(crate) fn memory(report: &mut Report, most: f64) {
    if most > 0.0 {
        report.add(Row {
            what: "memory at full load, the most of all rounds".to_owned(),
            unit: Unit::Mebibytes,
            ours: most,
            peer: None,
            must: Must::AtMost(80.0),
        });
    }
}
