//! Three private nodes that are one cluster, with members that can be killed, suspended and cut
//! off from the others. A node without a majority confirms nothing, and where the broker knows
//! `pause_minority` it serves nobody until it has one again.

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use hookbridge::cli::demo::node::{NodeError, NodeOptions, Plugin, PrivateNode};
use serde_json::Value;
use uuid::Uuid;

use super::{broker::unique, faults};

const SIZE: usize = 3;

/// A node that has said nothing for so many seconds, give or take a quarter, is gone to the
/// others. It is a minute by default.
const TICK_TIME: u8 = 6;

/// Three nodes in one cluster, numbered from 0. Dropping it removes them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<PrivateNode>,
    /// Those that are suspended or cut off, and so cannot speak for the cluster.
    away: [AtomicBool; SIZE],
}

impl Cluster {
    /// Starts three nodes with the management plugin and waits until all know each other.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same with this `advanced.config`.
    pub fn start_with(advanced: Option<&str>) -> Self {
        let (id, cookie) = (unique("cluster"), Uuid::new_v4().simple().to_string());
        let name = |index: usize| format!("hb{}-{id}-{index}@localhost", process::id());
        let options = |index: usize| NodeOptions {
            plugins: vec![Plugin::Management],
            config: vec![
                "cluster_partition_handling = pause_minority".to_owned(),
                format!("net_ticktime = {TICK_TIME}"),
            ],
            advanced: advanced.map(str::to_owned),
            name: Some(name(index)),
            cookie: Some(cookie.clone()),
            ..NodeOptions::default()
        };
        // The first stands before the others look for it, so there is never a second cluster.
        let first = PrivateNode::start(&options(0)).unwrap();
        let join = |index: usize| {
            let mut options = options(index);
            options.epmd_port = Some(first.epmd_port());
            let formation = "cluster_formation";
            options.config.extend([
                format!("{formation}.peer_discovery_backend = classic_config"),
                format!("{formation}.classic_config.nodes.1 = {}", name(0)),
                format!("{formation}.classic_config.nodes.2 = {}", name(index)),
            ]);
            PrivateNode::start(&options).unwrap()
        };
        let (second, third) = thread::scope(|scope| {
            let second = scope.spawn(|| join(1));
            let third = join(2);
            (second.join().unwrap(), third)
        });
        let cluster = Self {
            nodes: vec![first, second, third],
            away: Default::default(),
        };
        assert_eq!(cluster.running(), [0, 1, 2]);
        cluster
    }

    pub fn node(&self, index: usize) -> &PrivateNode {
        &self.nodes[index]
    }

    /// Kills a node's process. The others go on.
    pub fn kill(&self, index: usize) {
        self.nodes[index].kill().unwrap();
        self.away[index].store(false, Ordering::SeqCst);
    }

    /// Stops a node's process in good order, as an upgrade does. The others go on.
    pub fn stop(&self, index: usize) {
        self.nodes[index].halt().unwrap();
        self.away[index].store(false, Ordering::SeqCst);
    }

    /// Starts a node that was killed or stopped, or one that runs once more, and waits for it, at most a
    /// minute. One that cannot serve before others are there (they know more, or it is a
    /// minority) is an error then, but keeps trying by itself, for some minutes.
    pub fn restart(&self, index: usize) -> Result<(), NodeError> {
        self.nodes[index].restart()?;
        self.away[index].store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Restarts several at once, which is how all of them come back after they were all down. One
    /// may end over the feature flags of another that is starting, too (`badmap`, seen on 3.10.8):
    /// it gets a second try, as from a service manager.
    pub fn restart_together(&self, indices: &[usize]) {
        thread::scope(|scope| {
            let restart =
                |&index| scope.spawn(move || self.restart(index).or_else(|_| self.restart(index)));
            let started: Vec<_> = indices.iter().map(restart).collect();
            for node in started {
                node.join().unwrap().unwrap();
            }
        });
    }

    /// Suspends a node's process. The others take it for gone after some seconds of silence.
    pub fn pause(&self, index: usize) {
        faults::pause(&self.nodes[index]);
        self.away[index].store(true, Ordering::SeqCst);
    }

    /// Lets a suspended node go on. If the others took it for gone, it sees them leave and come
    /// back at once, too fast for `pause_minority`: where the metadata is in Mnesia (by default
    /// before 4.2) it stays a cluster of its own beside theirs until [`Self::restart`].
    pub fn resume(&self, index: usize) {
        faults::resume(&self.nodes[index]);
        self.away[index].store(false, Ordering::SeqCst);
    }

    /// Cuts a node off from the two others, and not from its clients: the lines between them
    /// close, and no new one can be made since it takes their cookie for a wrong one.
    pub fn cut_off(&self, index: usize) {
        self.away[index].store(true, Ordering::SeqCst);
        self.tell_of_peers(
            index,
            "erlang:set_cookie(Peer, nobodys)",
            "erlang:disconnect_node(Peer)",
        );
    }

    /// Ends what [`Self::cut_off`] began; the node comes back by itself. If it pauses, wait until
    /// it does before this, or it may see the others again too early, as in [`Self::resume`].
    pub fn heal(&self, index: usize) {
        self.tell_of_peers(
            index,
            "erlang:set_cookie(Peer, erlang:get_cookie())",
            "net_adm:ping(Peer)",
        );
        self.away[index].store(false, Ordering::SeqCst);
    }

    /// Whether a node that is cut off closes its listeners, as `pause_minority` says. Where the
    /// metadata is in Khepri (by default since 4.2) it stays open and confirms nothing.
    pub fn pauses_minorities(&self) -> bool {
        let ask = "erlang:function_exported(rabbit_khepri, is_enabled, 0)
                   andalso rabbit_khepri:is_enabled().";
        let node = self.speaker().expect("a node that runs");
        node.rabbitmqctl(&["eval", ask]).unwrap() == "false"
    }

    /// The nodes whose broker runs, as those see it that have a say.
    pub fn running(&self) -> Vec<usize> {
        let status = ["cluster_status", "--formatter", "json", "--timeout", "10"];
        let status = self
            .speaker()
            .and_then(|node| node.rabbitmqctl(&status).ok());
        let status = status.unwrap_or_else(|| "{}".to_owned());
        let status: Value = serde_json::from_str(&status).unwrap();
        let names = status["running_nodes"].as_array().cloned();
        let names = names.unwrap_or_default();
        (0..SIZE)
            .filter(|&index| names.iter().any(|name| name == self.nodes[index].name()))
            .collect()
    }

    /// The node that leads a quorum queue, as its members see it that have a say; `None` while
    /// they have none.
    pub fn leader_of(&self, vhost: &str, queue: &str) -> Option<usize> {
        let ask = format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup(
                 rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)),
             {{Name, _}} = amqqueue:get_pid(Queue),
             {{ok, _, {{_, Leader}}}} = ra:members({{Name, node()}}, 5000),
             Leader."
        );
        let leader = self.speaker()?.rabbitmqctl(&["eval", &ask]).ok()?;
        let leader = leader.trim_matches('\'');
        self.nodes.iter().position(|node| node.name() == leader)
    }

    /// A node that runs, and is neither suspended nor cut off.
    fn speaker(&self) -> Option<&PrivateNode> {
        let mut nodes = self.nodes.iter().zip(&self.away);
        let speaks = |(node, away): &(&PrivateNode, &AtomicBool)| {
            !away.load(Ordering::SeqCst) && node.pid().unwrap().is_some()
        };
        nodes.find(speaks).map(|(node, _)| node)
    }

    /// Has a node do two things for each of the others: the first for both, then the second.
    fn tell_of_peers(&self, index: usize, first: &str, then: &str) {
        let others = self
            .nodes
            .iter()
            .filter(|n| n.name() != self.nodes[index].name());
        let names: Vec<_> = others.map(|node| format!("'{}'", node.name())).collect();
        let names = names.join(", ");
        let command = format!(
            "Peers = [{names}], [{first} || Peer <- Peers], [{then} || Peer <- Peers], ok."
        );
        self.nodes[index].rabbitmqctl(&["eval", &command]).unwrap();
    }
}
