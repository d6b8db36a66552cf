//! One run: the ground, the load and the bridges on it; faults that are made and cleared; and at
//! the end the account of every delivery.

use std::{
    cell::RefCell,
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use hookbridge::broker::topology::Topology;
use tokio::{
    task::{JoinSet, block_in_place},
    time::sleep,
};

use super::{
    account::{Account, Terms, Window},
    cast::Who,
    chance::{Chance, seed},
    ground::Ground,
    ledger::Ledger,
    load::{Load, flood},
    process::{Process, Remains, Sample},
    report::{Recovery, Report},
};
use crate::support::{
    client::{Client, Message},
    eventually::eventually,
    line::SOURCE,
    program::{Line, Setup},
};

/// The variable that makes the bridges say more, in their logs beside the table. Too much then.
const LOG: &str = "FAULTS_LOG";
/// Within this the bridge must work again by itself, once the broker is back.
pub const RECOVERY: Duration = Duration::from_secs(10);
/// How long it is waited for all the same, so that the run tells the figure.
const RECOVERY_PATIENCE: Duration = Duration::from_mins(1);
/// How long nothing may move, while something is on its way at the end, unless a run asks for more.
const SETTLE: Duration = Duration::from_mins(1);
/// How long an event may take to one whom the fault does not concern.
const UNDISTURBED: Duration = Duration::from_secs(4);
/// How long a queue may take to give a message, or none.
const ANSWER: Duration = Duration::from_secs(5);
/// `delivery.shutdown_timeout` of the runs.
pub const SHUTDOWN: Duration = Duration::from_secs(10);
/// The queues in which a delivery has come to its end.
const ENDS: [&str; 3] = ["dead", "rejected", "lost"];
/// Lines that one fault may write into the log of a bridge in a minute, besides those on failed
/// attempts.
const LINES: usize = 20;
/// What subscribers that fail by plan, and strays, write there, one line for each.
const BY_PLAN: [&str; 2] = ["attempt failed", "a message in a lane"];

/// What a run is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name in the report.
    pub name: &'static str,
    /// Events a second.
    pub rate: u32,
    pub retry_delay: Duration,
    pub timeout: Duration,
    /// How long nothing may move at the end, while something is on its way.
    pub patience: Duration,
    /// The subscribers that the faults hurt besides their own plan.
    pub hurt: Vec<Who>,
    /// Who takes part besides the regular cast.
    pub guests: Vec<Who>,
    /// Further settings of the bridges.
    pub settings: Vec<(&'static str, toml::Value)>,
}

impl Options {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            rate: 40,
            retry_delay: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            patience: SETTLE,
            hurt: Vec::new(),
            guests: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// A fault that is on.
#[must_use = "a fault is cleared, and its recovery awaited"]
pub struct Fault {
    what: String,
    from: Instant,
    /// How long after it is in force `/readyz` must say no, until [`Self::clearing`].
    unready: Option<Duration>,
    in_force: Instant,
    clearing: Option<Instant>,
    cleared: Option<Instant>,
    /// Whether what was in flight may be repeated.
    repeats: bool,
    /// Whether `/readyz` must not notice.
    unnoticed: bool,
    /// Whether it touches only those that the run hurts.
    only_hurt: bool,
    /// How long the bridge may take to work again.
    within: Duration,
    /// How many lines a bridge may write about it in a minute.
    lines: usize,
}

impl Fault {
    /// Nothing of the bridge and of its home broker is interrupted by it, so nothing may be repeated,
    /// and `/readyz` must not say no.
    pub fn that_repeats_nothing(mut self) -> Self {
        self.repeats = false;
        self.unnoticed = true;
        self
    }

    /// Says that making it took a while: only from now on must the bridge notice.
    pub fn in_force(&mut self) {
        self.in_force = Instant::now();
    }

    /// When it began.
    pub fn from(&self) -> Instant {
        self.from
    }

    /// Says that it is being undone: from now on the bridge may be ready again.
    pub fn clearing(&mut self) {
        self.clearing = Some(Instant::now());
    }

    /// Gives the bridge another time than [`RECOVERY`] to work again.
    pub fn within(&mut self, time: Duration) {
        self.within = time;
    }

    /// Allows another number of lines a minute than [`LINES`].
    pub fn may_say(&mut self, lines: usize) {
        self.lines = lines;
    }

    /// Says that it is undone: from now on the time of recovery runs.
    pub fn cleared(&mut self) {
        self.cleared = Some(Instant::now());
    }
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
            .watch("the bridge is ready", RECOVERY_PATIENCE, ready)
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
        let now = Instant::now();
        Fault {
            what: what.into(),
            from: now,
            unready,
            in_force: now,
            clearing: None,
            cleared: None,
            repeats: true,
            unnoticed: false,
            only_hurt: false,
            within: RECOVERY,
            lines: LINES,
        }
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

    /// The fault is cleared, now if not before: waits until these bridges are ready, and events that
    /// are published from then on reach every subscriber that is well; notes how long that takes.
    pub async fn recovered(&self, fault: Fault, bridges: &[&Process]) -> Duration {
        self.recovered_for(fault, bridges, &Who::WELL).await
    }

    /// The same, where only these subscribers can be reached.
    pub async fn recovered_for(
        &self,
        fault: Fault,
        bridges: &[&Process],
        reached: &[Who],
    ) -> Duration {
        let cleared = fault.cleared.unwrap_or_else(Instant::now);
        self.flows(cleared, reached).await;
        let ready = async || bridges.iter().all(|bridge| bridge.ready()).then_some(());
        eventually("every bridge is ready again", RECOVERY_PATIENCE, ready).await;
        let took = cleared.elapsed();
        let mut lines = 0;
        for bridge in bridges {
            let log = bridge.program.log();
            let by_plan = |line: &Line| BY_PLAN.iter().any(|words| line.text.contains(words));
            let told = |line: &&Line| line.at >= fault.from && !by_plan(line);
            lines += log.iter().filter(told).count();
            self.judge_truth(&fault, &bridge.samples());
        }
        self.over(&fault);
        println!("{}: back after {took:.1?}", fault.what);
        // What is summed up is said again every few seconds.
        let minutes = usize::try_from(fault.from.elapsed().as_secs() / 60).unwrap();
        if lines > fault.lines * (1 + minutes) {
            self.wrong(format!("{}: {lines} lines of log", fault.what));
        }
        if took > fault.within {
            self.wrong(format!("{}: back after {took:?}", fault.what));
        }
        self.recoveries.borrow_mut().push(Recovery { took, lines });
        took
    }

    /// Sees that what is published now reaches these as if nothing were wrong.
    pub async fn undisturbed(&self, whom: &[Who]) {
        let since = Instant::now();
        self.flows(since, whom).await;
        let took = since.elapsed();
        if took > UNDISTURBED {
            self.wrong(format!("{whom:?} had to wait {took:?}"));
        }
    }

    /// The fault is over; how long the recovery takes is not what this run is about.
    pub fn over(&self, fault: &Fault) {
        self.windows.borrow_mut().push(Window {
            from: fault.from,
            to: Instant::now(),
            repeats: fault.repeats,
            only_hurt: fault.only_hurt,
        });
    }

    /// Waits until an event published after `since` has reached each of these.
    pub async fn flows(&self, since: Instant, to: &[Who]) {
        let flows = async || self.ledger.waiting(to, since).is_empty().then_some(());
        let until = Instant::now() + RECOVERY_PATIENCE;
        while Instant::now() < until {
            if flows().await.is_some() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let waiting = self.ledger.waiting(to, since);
        let (sent, confirmed) = self.ledger.published_since(since);
        let wrong = format!(
            "nothing new reaches {waiting:?} within {RECOVERY_PATIENCE:?}: {sent} events were sent, \
             {confirmed} of them confirmed"
        );
        println!("{wrong}");
        self.wrong(wrong);
    }

    /// Whether `/readyz` said no while the fault was on, or yes while nothing was interrupted.
    fn judge_truth(&self, fault: &Fault, samples: &[Sample]) {
        let away = |sample: &&Sample| sample.status == 503 && sample.asked >= fault.from;
        if fault.unnoticed
            && fault.unready.is_none()
            && let Some(sample) = samples.iter().find(away)
        {
            self.wrong(format!("{}: /readyz said no: {}", fault.what, sample.words));
        }
        let (Some(grace), Some(clearing)) = (fault.unready, fault.clearing) else {
            return;
        };
        let lie = samples.iter().find(|sample| {
            sample.status == 200 && sample.asked > fault.in_force + grace && sample.asked < clearing
        });
        if let Some(lie) = lie {
            let after = lie.asked - fault.in_force;
            let wrong = format!("{}: /readyz said yes {after:?} into it", fault.what);
            self.wrong.borrow_mut().push(wrong);
        }
    }

    /// Publishes as many events at once beside the steady load, if the broker takes them.
    pub async fn burst(&self, count: usize) {
        flood(&self.ground.client_uri(), count, &self.ledger).await;
    }

    /// Notes what has come to its end so far. The home broker must be there.
    pub async fn take_what_ended(&self) {
        let client = Client::connect(&self.ground.client_uri()).await;
        self.take_everything(&client).await;
    }

    /// Keeps what is left of a bridge that has ended.
    pub fn keep(&self, remains: Remains) {
        self.remains.borrow_mut().push(remains);
    }

    /// Says something about the run that is shown at its end.
    pub fn remark(&self, what: String) {
        self.remarks.borrow_mut().push(what);
    }

    /// Says that something is wrong with the run; it fails at its end.
    pub fn wrong(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }

    /// Publishes no more, waits until every delivery is somewhere and nothing is on its way, stops
    /// the bridges, and makes up the account.
    pub async fn finish(self, bridges: Vec<Process>) -> Report {
        let client = self.come_to_rest().await;
        for bridge in bridges {
            let remains = bridge.stop(SHUTDOWN * 2).await;
            if remains.code != Some(0) {
                self.wrong(format!("a stop ended with {:?}", remains.code));
            }
            self.keep(remains);
        }
        // What was unacknowledged is ready again, and counts.
        let left = self.on_its_way(&client).await;
        if left > 0 {
            self.wrong(format!("{left} deliveries are still on their way"));
        }
        self.take_everything(&client).await;
        self.report()
    }

    /// Publishes no more, and waits until every delivery is somewhere and nothing is on its way.
    pub async fn come_to_rest(&self) -> Client {
        let load = self.load.borrow_mut().take();
        if let Some(load) = load {
            load.stop().await;
        }
        let client = Client::connect(&self.ground.client_uri()).await;
        self.settle(&client).await;
        client
    }

    /// The dead letters so far, once the run has come to rest.
    pub fn letters(&self) -> Vec<Message> {
        self.letters.borrow().clone()
    }

    /// Waits until every delivery is somewhere, and the line is empty; gives up when nothing moves.
    async fn settle(&self, client: &Client) {
        let patience = self.options.patience;
        let began = Instant::now();
        let (mut moved, mut before) = (began, None);
        while moved.elapsed() < patience {
            self.take_everything(client).await;
            let now = (self.ledger.open(), self.on_its_way(client).await);
            if now == (0, 0) {
                let took = began.elapsed();
                self.remark(format!("at rest {took:.0?} after the last event"));
                return;
            }
            if before.replace(now) != Some(now) {
                moved = Instant::now();
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Messages that wait in the line.
    async fn on_its_way(&self, client: &Client) -> u32 {
        let bindings = ["#".to_owned()];
        let delay = self.options.retry_delay;
        let topology = Topology::new("hookbridge", SOURCE, &bindings, delay);
        let mut messages = 0;
        for (group, queue) in topology.groups() {
            if !ENDS.contains(&group) {
                messages += client.depth(queue).await.unwrap_or_default();
            }
        }
        messages
    }

    /// Notes what is dead, lost, or in the queues that are looked at only now.
    async fn take_everything(&self, client: &Client) {
        let dead = |letter: &Message| {
            let reason = letter.header("hookbridge-reason");
            let reason = reason.unwrap_or_else(|| "broker".to_owned());
            self.ledger.dead(&id_of(letter), reason);
            self.letters.borrow_mut().push(letter.clone());
        };
        client.take("hookbridge.dead", ANSWER, dead).await;
        let lost = |message: &Message| {
            if message.header("hookbridge-subscriber").is_some() {
                self.ledger.lost(&id_of(message));
            } else {
                self.ledger.lost_event(&message.body);
            }
        };
        client.take("hookbridge.lost", ANSWER, lost).await;
        let arrived = |message: &Message| {
            let attempt = message.header("webhook-attempt").unwrap_or_default();
            let attempt = attempt.parse().unwrap_or_default();
            self.ledger.arrived(&id_of(message), attempt, true);
        };
        client.take("home.full", ANSWER, arrived).await;
        let away = Client::connect(&self.ground.away.amqp_uri("/")).await;
        away.take("away.full", ANSWER, arrived).await;
    }

    fn report(self) -> Report {
        let terms = Terms {
            seed: self.seed,
            retry_delay: self.options.retry_delay,
            timeout: self.options.timeout,
            hurt: self.options.hurt.clone(),
        };
        let account = Account::of(&self.ledger.book(), &terms, &self.windows.borrow());
        let wrong = self.wrong.take();
        let version = block_in_place(|| self.ground.home.rabbitmqctl(&["version"]).unwrap());
        Report {
            name: self.options.name,
            version,
            seed: self.seed,
            took: self.began.elapsed(),
            account,
            interruptions: self.windows.take().len(),
            recoveries: self.recoveries.take(),
            log: log(self.remains.take()),
            notes: self.remarks.take(),
            wrong,
            delays_promised: true,
        }
    }
}

fn log(remains: Vec<Remains>) -> Vec<Line> {
    remains
        .into_iter()
        .flat_map(|remains| remains.log)
        .collect()
}

fn id_of(message: &Message) -> String {
    let id = message.properties.message_id().as_ref();
    id.map_or_else(|| "no id".to_owned(), ToString::to_string)
}
