//! What a test does to a private node, beyond stopping it: suspending its process, stopping the
//! broker inside it, and the alarms that block every publisher.

use std::process::Command;

use hookbridge::cli::demo::node::PrivateNode;

/// Suspends the node's process: its connections stay open and nothing on them is answered.
pub fn pause(node: &PrivateNode) {
    signal(node, "STOP");
}

/// Lets a suspended node go on.
pub fn resume(node: &PrivateNode) {
    signal(node, "CONT");
}

/// Stops the broker in good order and leaves the Erlang machine running: AMQP is closed, and
/// `rabbitmqctl` still answers.
pub fn stop_app(node: &PrivateNode) {
    node.rabbitmqctl(&["stop_app"]).unwrap();
}

/// Starts the broker that [`stop_app`] stopped, and returns when it is up.
pub fn start_app(node: &PrivateNode) {
    node.rabbitmqctl(&["start_app"]).unwrap();
}

/// What the broker can run short of. It then reads nothing more from connections that publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    Memory,
    Disk,
}

impl Alarm {
    /// Makes the broker believe that there is too little left. In force when this returns.
    pub fn raise(self, node: &PrivateNode) {
        self.set(node, ["0.0000001", "1000000000000000"]);
    }

    /// Gives the broker back the limits that private nodes start with. Over when this returns.
    pub fn clear(self, node: &PrivateNode) {
        self.set(node, ["0.6", "50000000"]);
    }

    fn set(self, node: &PrivateNode, [memory, disk]: [&str; 2]) {
        let command = match self {
            Self::Memory => ["set_vm_memory_high_watermark", memory],
            Self::Disk => ["set_disk_free_limit", disk],
        };
        node.rabbitmqctl(&command).unwrap();
    }
}

fn signal(node: &PrivateNode, name: &str) {
    let pid = node.pid().unwrap().expect("the node runs").to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success(), "kill -s {name}");
}
