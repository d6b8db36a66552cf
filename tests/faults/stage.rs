//! One run: the ground, the load and the bridges on it; faults that are made and cleared; and at
//! the end the account of every delivery.

use std::{
    cell::RefCell,
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::{JoinSet, block_in_place},
    time::sleep,
};

use super::{
    account::Window,
    cast::Who,
    chance::{Chance, seed},
    ground::Ground,
    ledger::Ledger,
    load::{Load, flood},
    process::{Process, Remains},
    report::Recovery,
};
use crate::support::{client::Message, program::Setup};

mod ending;
mod fault;
mod recovery;

pub use fault::{Fault, RECOVERY};

/// The variable that makes the bridges say more, in their logs beside the table. Too much then.
const LOG: &str = "FAULTS_LOG";
/// How long nothing may move, while something is on its way at the end, unless a run asks for more.
const SETTLE: Duration = Duration::from_mins(1);
/// A node that boots elects all its leaders anew. What is refused meanwhile on its way out of a wait queue
/// waits for the broker's own clock, ten seconds as advised, up to twice as long, and others wait for it.
const BOOT_LAG: Duration = Duration::from_secs(25);
/// `delivery.shutdown_timeout` of the runs.
pub const SHUTDOWN: Duration = Duration::from_secs(10);

/// What a run is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name in the report.
    pub name: &'static str,
    /// Events a second.
    pub rate: u32,
    pub retry_delay: Duration,
    pub timeout: Duration,
    /// What a retry may be late by without a fault: a wait queue expires at its head, and the lane has
    /// others in it.
    pub late: Duration,
    /// How long nothing may move at the end, while something is on its way.
    pub patience: Duration,
    /// The subscribers that the faults hurt besides their own plan.
    pub hurt: Vec<Who>,
    /// Whether the faults delete queues.
    pub queues_deleted: bool,
    /// How long after a fault first attempts may still fail whose retries come late.
    pub lag: Duration,
    /// Who takes part besides the regular cast.
    pub guests: Vec<Who>,
    /// Further settings of the bridges.
    pub settings: Vec<(&'static str, toml::Value)>,
}

impl Options {
    pub fn new(name: &'static str) -> Self {
        let leniency = leniency(name);
        Self {
            name,
            rate: 40 / leniency,
            retry_delay: Duration::from_secs(2),
            timeout: Duration::from_secs(2) * leniency,
            late: Duration::from_secs(3) * leniency,
            patience: SETTLE,
            hurt: Vec::new(),
            queues_deleted: false,
            lag: Duration::ZERO,
            guests: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Of a run in which the home broker boots.
    pub fn booting(name: &'static str) -> Self {
        Self {
            lag: BOOT_LAG,
            ..Self::new(name)
        }
    }
}

/// By how much times may be longer, and the load smaller: the quick selection must hold on whatever
/// machine the tests are run, and it may be a busy one. `make faults` holds to the times themselves.
fn leniency(name: &str) -> u32 {
    if name.ends_with("-quick") { 3 } else { 1 }
}

/// A run in progress. It belongs to the task of its test.
pub struct Stage {
    pub options: Options,
    pub ground: Ground,
    pub setup: Setup,
    pub ledger: Arc<Ledger>,
    pub chance: RefCell<Chance>,
    seed: u64,
    began: Instant,
    load: RefCell<Option<Load>>,
    _collectors: JoinSet<()>,
    windows: RefCell<Vec<Window>>,
    recoveries: RefCell<Vec<Recovery>>,
    remains: RefCell<Vec<Remains>>,
    wrong: RefCell<Vec<String>>,
    letters: RefCell<Vec<Message>>,
    remarks: RefCell<Vec<String>>,
}

impl Stage {
    /// Brings up the ground. No bridge runs, and nothing is published yet.
    pub async fn new(options: Options) -> Self {
        let (seed, guests) = (seed(), &options.guests);
        let ledger = Arc::new(Ledger::new(guests.clone()));
        let ground = Ground::new(&ledger, seed, guests).await;
        Self::on(ground, options, ledger, seed)
    }

    /// The same with a cluster of three nodes as home broker, which have this `advanced.config`.
    pub async fn on_cluster(options: Options, advanced: Option<&'static str>) -> Self {
        let (ledger, seed) = (Arc::new(Ledger::new(Vec::new())), seed());
        let ground = Ground::on_cluster(&ledger, seed, advanced).await;
        Self::on(ground, options, ledger, seed)
    }

    fn on(ground: Ground, options: Options, ledger: Arc<Ledger>, seed: u64) -> Self {
        let setup = Setup::new(&ground.bridge_uri());
        let millis = |time: Duration| format!("{}ms", time.as_millis());
        setup.set("delivery.retry_delay", millis(options.retry_delay));
        setup.set("delivery.timeout", millis(options.timeout));
        setup.set("delivery.shutdown_timeout", millis(SHUTDOWN));
        if let Ok(level) = env::var(LOG) {
            setup.set("log.level", level);
        }
        for (key, value) in &options.settings {
            setup.set(key, value.clone());
        }
        ground.write_subscribers(&setup, &options.guests);
        Self {
            chance: RefCell::new(Chance::new(seed, options.name)),
            _collectors: ground.collectors(&ledger, &options.guests),
            options,
            ground,
            setup,
            ledger,
            seed,
            began: Instant::now(),
            load: RefCell::default(),
            windows: RefCell::default(),
            recoveries: RefCell::default(),
            remains: RefCell::default(),
            wrong: RefCell::default(),
            letters: RefCell::default(),
            remarks: RefCell::default(),
        }
    }

    /// Starts a bridge, and does not wait until it is ready.
    pub async fn launch_bridge(&self) -> Process {
        Process::start(&self.setup).await
    }

    /// Starts a bridge and waits until it is ready.
    pub async fn start_bridge(&self) -> Process {
        let process = self.launch_bridge().await;
        let ready = async || process.ready().then_some(());
        process
            .program
            .watch("the bridge is ready", recovery::PATIENCE, ready)
            .await;
        process
    }

    /// A run with one bridge that works under load, from which faults can begin. The brokers are
    /// told to remember their queues: what a kill within their first second does is not what these
    /// runs are about.
    pub async fn ready(options: Options) -> (Self, Process) {
        let stage = Self::new(options).await;
        let bridge = stage.begin().await;
        (stage, bridge)
    }

    /// Starts a bridge and the load, and waits until it reaches those who are well.
    pub async fn begin(&self) -> Process {
        let bridge = self.start_bridge().await;
        block_in_place(|| {
            self.ground.home.remember();
            self.ground.away.sync().unwrap();
        });
        self.start_load();
        self.flows(Instant::now(), &Who::WELL).await;
        bridge
    }

    /// Publishes from now on.
    pub fn start_load(&self) {
        let uri = self.ground.client_uri();
        let load = Load::start(uri, self.options.rate, Arc::clone(&self.ledger));
        *self.load.borrow_mut() = Some(load);
    }

    /// Lets the load go on for a time between these two, which the seed decides.
    pub async fn carry_on(&self, least: Duration, most: Duration) {
        let time = self.chance.borrow_mut().between(least, most);
        sleep(time).await;
    }

    /// Says that something is interrupted from now on, so that what is in flight may be repeated;
    /// and, if the bridge must notice, after which time `/readyz` must say so.
    #[expect(clippy::unused_self, reason = "it reads as what happens on a stage")]
    pub fn fault(&self, what: impl Into<String>, unready: Option<Duration>) -> Fault {
        Fault::begins(what.into(), unready)
    }

    /// Says that those whom the run hurts are in trouble from now on, and nobody else: nothing of
    /// the others may be repeated, and the bridge stays ready.
    pub fn trouble(&self, what: impl Into<String>) -> Fault {
        Fault {
            only_hurt: true,
            unnoticed: true,
            ..self.fault(what, None)
        }
    }

    /// Says that a bridge is asked to stop from now on: its work waits for the next one, and nothing
    /// may be repeated.
    pub fn stopping(&self, what: impl Into<String>) -> Fault {
        Fault {
            repeats: false,
            ..self.fault(what, None)
        }
    }

    /// Asks a bridge to stop, which must be in good order and in time; returns how long it took.
    pub async fn stop(&self, bridge: Process) -> Duration {
        let began = Instant::now();
        let remains = bridge.stop(SHUTDOWN).await;
        let took = began.elapsed();
        if remains.code != Some(0) {
            self.wrong(format!("a stop ended with {:?}", remains.code));
        }
        self.keep(remains);
        took
    }

    /// Publishes as many events at once beside the steady load, if the broker takes them.
    pub async fn burst(&self, count: usize) {
        flood(&self.ground.client_uri(), count, &self.ledger).await;
    }

    /// Keeps what is left of a bridge that has ended.
    pub fn keep(&self, remains: Remains) {
        self.remains.borrow_mut().push(remains);
    }

    /// How long something may take in this run that usually takes no longer than this.
    pub fn at_most(&self, usual: Duration) -> Duration {
        usual * leniency(self.options.name)
    }

    /// How few of what usually is more than half are enough in this run.
    pub fn a_share(&self, of: usize) -> usize {
        of / 2 / usize::try_from(leniency(self.options.name)).unwrap()
    }

    /// Says something about the run that is shown at its end.
    pub fn remark(&self, what: String) {
        self.remarks.borrow_mut().push(what);
    }

    /// Says that something is wrong with the run; it fails at its end.
    pub fn wrong(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }
}
