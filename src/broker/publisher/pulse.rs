//! Whether a line is only silent.
//!
//! A frozen line confirms nothing, and that is no queue's failure: what is published again, or
//! elsewhere, arrives twice when the line thaws. So the time of a publish is over only once the
//! broker has answered something that it was asked after that.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use lapin::{Channel, options::BasicQosOptions};
use tokio::time::Instant;

/// Four heartbeats. A dead line is known after two or three, to either end: a broker that does not
/// answer for this long reads nothing for reasons of its own.
const PATIENCE: Duration = Duration::from_secs(40);

/// Asks the broker for a sign of life on one channel.
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

    /// Up to when the broker is known to hear the line, if that is news. To be called again and
    /// again: the first call asks.
    pub(super) fn felt(&mut self, now: Instant) -> Option<Instant> {
        let channel = &self.channel;
        let (at, answer) = self
            .asked
            .get_or_insert_with(|| (now, ask(channel.clone()).boxed()));
        let at = *at;
        let waiting = answer.now_or_never().is_none();
        if waiting && now < at + PATIENCE {
            return None;
        }
        self.asked = None;
        Some(at)
    }
}

/// Something that changes nothing on a channel that only publishes.
async fn ask(channel: Channel) {
    if let Err(error) = channel.basic_qos(0, BasicQosOptions::default()).await {
        // The end of the channel, which its confirms tell, too.
        tracing::debug!("a publishing channel does not answer: {error}");
    }
}
