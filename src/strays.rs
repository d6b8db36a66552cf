//! What RabbitMQ itself sent astray, brought back: see ARCHITECTURE, *A broker that starts does not
//! know its bindings*.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    broker::{
        browsing::Browsing,
        connection::{ConnectError, Connection, OPERATION_TIMEOUT, gone},
        home::{Home, Link},
        message::{Message, Received},
        publisher::{PublishError, Publisher},
    },
    delivery::wire::Lanes,
};

/// How long `lost` is looked through: more than what lies there after a boot, unless it has long been
/// left to grow.
const LONGEST: Duration = Duration::from_mins(1);
/// The pause before it is looked through again, if something was in the way.
const PAUSE: Duration = Duration::from_secs(2);

/// Why strays stay where they are for now.
#[derive(Debug, Error)]
pub enum StrayError {
    /// The queue cannot be looked through.
    #[error(transparent)]
    Queue(#[from] ConnectError),
    /// The broker does not take them.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Sends on from `lost` what the broker dead-lettered before it knew where to.
#[derive(Clone)]
pub struct Strays {
    queue: String,
    lanes: Lanes,
    publisher: Publisher,
}

impl Strays {
    /// Strays in this queue, which holds what was lost.
    pub fn new(queue: String, lanes: Lanes, publisher: Publisher) -> Self {
        Self {
            queue,
            lanes,
            publisher,
        }
    }

    /// Where this message of `lost` goes, if it is a stray.
    pub fn onward(&self, lost: &Received) -> Option<Message> {
        self.lanes.onward(lost)
    }

    /// Sends strays on. All are where they belong when this returns without an error.
    pub async fn send_on(&self, strays: Vec<Message>) -> Result<(), PublishError> {
        for result in self.publisher.publish(strays, OPERATION_TIMEOUT).await {
            result?;
        }
        Ok(())
    }

    /// Looks for strays whenever the bridge has connected, until `stop`.
    pub async fn keep_looking(&self, home: Arc<Home>, stop: CancellationToken) {
        let mut link = home.link();
        loop {
            let up = tokio::select! {
                () = stop.cancelled() => return,
                up = Link::up(&mut link) => up,
            };
            let Some(connection) = up else { return };
            tokio::select! {
                error = gone(|| connection.status().connected()) => debug!("strays: {error}"),
                () = self.look(&connection, &stop) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = link.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Looks through `lost`, again if something is in the way. A stop waits for the stray in hand, which
    /// would go on twice otherwise.
    async fn look(&self, connection: &Connection, stop: &CancellationToken) {
        let mut sent_on = 0;
        while let Err(error) = self.look_once(connection, stop, &mut sent_on).await {
            debug!("strays may be left in the queue lost: {error}");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        say(sent_on);
    }

    async fn look_once(
        &self,
        connection: &Connection,
        stop: &CancellationToken,
        sent_on: &mut usize,
    ) -> Result<(), StrayError> {
        let until = Instant::now() + LONGEST;
        let mut browsing = Browsing::start(connection, &self.queue).await?;
        while !stop.is_cancelled()
            && let Some(lost) = browsing.next().await?
        {
            if let Some(stray) = self.onward(&lost) {
                self.send_on(vec![stray]).await?;
                browsing.ack(lost.tag).await?;
                *sent_on += 1;
            }
            if Instant::now() >= until {
                warn!(
                    not_seen = browsing.left(),
                    "the queue lost holds too many messages to look whether RabbitMQ sent more \
                     there when it started: replay or remove them"
                );
                break;
            }
        }
        Ok(browsing.end().await?)
    }
}

/// Says how many strays went on.
pub fn say(sent_on: usize) {
    if sent_on > 0 {
        info!(
            messages = sent_on,
            "RabbitMQ had sent messages to the queue lost before it knew its bindings; they went on \
             to where they belong"
        );
    }
}
