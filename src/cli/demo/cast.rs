//! Who takes part: the subscribers of the demo, their files, and what each of them must get.

use crate::{
    broker::topology::{Argument, Exchange, Queue},
    telemetry::metrics::Transport,
};

use super::ground::Ground;

/// A subscriber of the demo.
#[derive(Debug)]
pub(super) struct Member {
    /// Its id.
    pub(super) id: &'static str,
    /// Who it is, in one line.
    pub(super) about: &'static str,
    /// The lines of its file that say what it may see and what it wants.
    interest: &'static str,
    /// Where its webhooks go.
    pub(super) target: Target,
    /// The numbers of the examples that it must get.
    pub(super) gets: &'static [usize],
}

/// Where the webhooks of a subscriber go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// An endpoint of the demo's HTTP receiver.
    Http(Endpoint),
    /// A queue on the home broker.
    Queue,
    /// An exchange on the home broker, with a queue behind it.
    Exchange,
    /// A queue on a broker that is reached by a URI.
    OwnBroker,
}

/// How an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// It takes everything.
    Sound,
    /// It refuses each webhook the first time.
    Shaky,
    /// It refuses everything.
    Broken,
}

/// Everybody who takes part.
pub(super) const CAST: [Member; 6] = [
    Member {
        id: "northwind-hub",
        about: "party northwind: every webhook of its cases",
        interest: "party = \"northwind\"\nevents = [\"*\"]",
        target: Target::Http(Endpoint::Sound),
        gets: &[1, 2, 3, 4],
    },
    Member {
        id: "fixit-repairs",
        about: "party fixit: the same, but for the message that it sent",
        interest: "party = \"fixit\"\nevents = [\"*\"]",
        target: Target::Queue,
        gets: &[1, 2, 4],
    },
    Member {
        id: "claims-desk",
        about: "one case, by the routing key {type}.{case}",
        interest: "cases = [\"8d30cc21-8e21-45df-96a1-47578d7de26c\"]\nevents = [\"*\"]",
        target: Target::Exchange,
        gets: &[5, 6, 7, 8, 9, 10, 11],
    },
    Member {
        id: "audit-archive",
        about: "everything but messages, which only parties see",
        interest: "scope = \"all\"\nevents = [\"*\"]",
        target: Target::OwnBroker,
        gets: &[1, 2, 4, 5, 6, 7, 8, 9, 10, 11],
    },
    Member {
        id: "shaky-portal",
        about: "cost proposals; refuses each one the first time",
        interest: "scope = \"all\"\nevents = [\"NewCostProposal\"]",
        target: Target::Http(Endpoint::Shaky),
        gets: &[2],
    },
    Member {
        id: "broken-portal",
        about: "status updates; refuses everything",
        interest: "scope = \"all\"\nevents = [\"StatusUpdate\"]",
        target: Target::Http(Endpoint::Broken),
        gets: &[1],
    },
];

impl Target {
    /// In a word or two, for a column of a table.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Http(_) => "HTTP",
            Self::Queue => "AMQP queue",
            Self::Exchange => "AMQP exchange",
            Self::OwnBroker => "AMQP, own broker",
        }
    }

    /// How deliveries to it are counted.
    pub(super) fn transport(self) -> Transport {
        match self {
            Self::Http(_) => Transport::Http,
            Self::Queue | Self::Exchange | Self::OwnBroker => Transport::Amqp,
        }
    }
}

impl Member {
    /// The attempts that each delivery to it must take.
    pub(super) fn attempts(&self) -> u8 {
        match self.target {
            Target::Http(Endpoint::Shaky | Endpoint::Broken) => 2,
            _ => 1,
        }
    }

    /// Whether it takes a webhook at all.
    pub(super) fn takes(&self) -> bool {
        self.target != Target::Http(Endpoint::Broken)
    }

    /// The queue that it reads its webhooks from.
    pub(super) fn queue(&self, ground: &Ground) -> String {
        ground.named(&format!("{}.webhooks", self.id))
    }

    fn exchange(ground: &Ground) -> String {
        ground.named("claims")
    }

    /// What it declares for itself before anything is sent to it.
    pub(super) fn declares(&self, ground: &Ground) -> (Vec<Exchange>, Vec<Queue>) {
        if matches!(self.target, Target::Http(_)) {
            return (Vec::new(), Vec::new());
        }
        let exchange = (self.target == Target::Exchange).then(|| Exchange {
            name: Self::exchange(ground),
            kind: "topic",
            arguments: [].into(),
            foreign: false,
        });
        let queue = Queue {
            name: self.queue(ground),
            arguments: [("x-queue-type", Argument::Text("quorum".to_owned()))].into(),
            exchange: exchange.iter().map(|exchange| &*exchange.name).collect(),
            keys: exchange.iter().map(|_| "#".to_owned()).collect(),
        };
        (exchange.into_iter().collect(), vec![queue])
    }

    /// Its file in the subscribers' directory. `receiver` is the root of the HTTP receiver.
    pub(super) fn file(&self, ground: &Ground, receiver: &str, secret: &str) -> String {
        let Self {
            id,
            about,
            interest,
            ..
        } = self;
        let target = match self.target {
            Target::Http(_) => format!("[http]\nurl = \"{receiver}/{id}\""),
            Target::Queue => format!("[amqp]\nqueue = \"{}\"\ndeclare = true", self.queue(ground)),
            Target::Exchange => format!(
                "[amqp]\nexchange = \"{}\"\nrouting_key = \"{{type}}.{{case}}\"",
                Self::exchange(ground)
            ),
            Target::OwnBroker => format!(
                "[amqp]\n{}\nqueue = \"{}\"",
                ground.own_broker_line(),
                self.queue(ground)
            ),
        };
        format!(
            "# {about}\n\nid = \"{id}\"\n{interest}\nsigning_secret = \"{secret}\"\n\n{target}\n"
        )
    }
}
