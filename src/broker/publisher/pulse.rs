//! Whether a line is only silent.
//!
//! A frozen line confirms nothing, and that is no queue's failure: what is published again, or
//! elsewhere, arrives twice when the line thaws. So the time of a publish is over only once the
//! broker has answered something that it was asked after that, and begins anew when the line was
//! silent until then. It is asked on a channel of its own: one whose first publish goes to a queue
//! without a quorum answers nothing (seen on 3.10.8).

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use lapin::{Channel, options::BasicQosOptions};
use tokio::time::Instant;

/// A line that answers later than this was silent.
const PROMPT: Duration = Duration::from_secs(1);
/// Four heartbeats, for which a publish may wait beyond its time. A dead line is known after two or
/// three, to either end: a broker that goes on longer without an answer has reasons of its own.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

/// What the broker's answer tells.
pub(super) enum Felt {
    /// It heard the line all the while, at least from this moment on.
    Awake(Instant),
    /// The line was silent until now.
    Woken,
}

/// Asks the broker for a sign of life, on a channel that nobody publishes on.
pub(super) struct Pulse {
    channel: Channel,
    /// When it was asked, and its answer.
    asked: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl Pulse {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            asked: None,
        }
    }

    /// Asks, unless an answer is awaited, and gives the answer if it is there.
    pub(super) fn feel(&mut self, now: Instant) -> Option<Felt> {
        let channel = &self.channel;
        let (at, answer) = self
            .asked
            .get_or_insert_with(|| (now, ask(channel.clone()).boxed()));
        let at = *at;
        answer.now_or_never()?;
        self.asked = None;
        Some(if now - at < PROMPT {
            Felt::Awake(at)
        } else {
            Felt::Woken
        })
    }

    /// Waits for no answer any more.
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }
}

/// Something that changes nothing on a channel without a consumer.
async fn ask(channel: Channel) {
    if let Err(error) = channel.basic_qos(0, BasicQosOptions::default()).await {
        // The end of the connection, which is looked at elsewhere.
        tracing::debug!("a broker does not answer: {error}");
    }
}
