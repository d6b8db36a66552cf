//! What is varied, and for which subscribers.

use crate::event;

/// One thing that is varied, with the same kind of subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Series {
    /// Its name, which is its virtual host's, too.
    pub(crate) name: &'static str,
    pub(super) what: What,
    pub(super) to: To,
}

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Bytes,
    FanOut,
    Bridges,
    Subscribers,
}

/// Where deliveries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// Endpoints that answer at once.
    Http,
    /// Endpoints that answer after [`SLOW_MILLIS`].
    SlowHttp,
    /// Queues of the home broker, which are consumed as they fill.
    Queue,
}

/// What a real endpoint may take.
pub(super) const SLOW_MILLIS: u32 = 20;
/// Deliveries that take a second or two.
const DELIVERIES: u64 = 40_000;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) bytes: usize,
    /// Subscribers, each of which gets every event.
    pub(super) fan: usize,
    pub(super) bridges: usize,
    /// How many wait for the bridges.
    pub(super) events: u64,
}

impl Series {
    const fn new(name: &'static str, what: What, to: To) -> Self {
        Self { name, what, to }
    }

    /// All of them, in the order in which they are measured.
    pub(crate) const ALL: [Self; 8] = [
        Self::new("size-http", What::Bytes, To::Http),
        Self::new("size-queue", What::Bytes, To::Queue),
        Self::new("fan-out-http", What::FanOut, To::Http),
        Self::new("fan-out-queue", What::FanOut, To::Queue),
        Self::new("bridges-http", What::Bridges, To::Http),
        Self::new("bridges-slow-http", What::Bridges, To::SlowHttp),
        Self::new("bridges-queue", What::Bridges, To::Queue),
        Self::new("subscribers", What::Subscribers, To::Http),
    ];

    /// Its settings, the smallest first: the broker's memory grows and hardly shrinks.
    pub(super) fn cases(self) -> Vec<Case> {
        let case = Case {
            bytes: event::BYTES,
            fan: 1,
            bridges: 1,
            events: DELIVERIES,
        };
        match self.what {
            What::Bytes => [
                (event::BYTES, DELIVERIES),
                (2_000, 30_000),
                (16_000, 8_000),
                (128_000, 1_200),
                (1_000_000, 160),
            ]
            .map(|(bytes, events)| Case {
                bytes,
                events,
                ..case
            })
            .to_vec(),
            What::FanOut => [1, 3, 10, 30, 100]
                .map(|fan| Case {
                    fan,
                    events: DELIVERIES / fan as u64,
                    ..case
                })
                .to_vec(),
            What::Bridges => [1, 2, 4]
                .map(|bridges| Case {
                    bridges,
                    events: match self.to {
                        To::SlowHttp => DELIVERIES / 5,
                        To::Http | To::Queue => DELIVERIES,
                    },
                    ..case
                })
                .to_vec(),
            What::Subscribers => Vec::new(),
        }
    }
}

impl What {
    /// What the page calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bytes => "event size",
            Self::FanOut => "subscribers of each event",
            Self::Bridges => "bridges",
            Self::Subscribers => "subscribers",
        }
    }

    /// The same over a column.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Bytes => "event size, bytes",
            Self::FanOut => "subscribers of each event, count",
            Self::Bridges => "bridges, count",
            Self::Subscribers => "subscribers, count",
        }
    }

    /// What of a case it varies.
    pub(super) fn of(self, case: &Case) -> u64 {
        match self {
            Self::Bytes => case.bytes as u64,
            Self::FanOut | Self::Subscribers => case.fan as u64,
            Self::Bridges => case.bridges as u64,
        }
    }
}

impl To {
    /// What the page calls it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Http => "HTTP".to_owned(),
            Self::SlowHttp => format!("HTTP, answered after {SLOW_MILLIS} ms"),
            Self::Queue => "home-broker queue".to_owned(),
        }
    }

    /// What the receiver calls it.
    pub(super) fn how(self) -> String {
        match self {
            Self::SlowHttp => format!("after-{SLOW_MILLIS}"),
            Self::Http | Self::Queue => "ok".to_owned(),
        }
    }
}
