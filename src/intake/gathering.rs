//! Deliveries for slow lanes wait a moment for others to go with them. Nobody waits for them, and one by
//! one they would cost the broker as much as deliveries to subscribers who are quick.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, timeout_at},
};

use super::{
    Intake,
    gauge::Share,
    window::{Held, Window},
};
use crate::broker::message::Message;

/// How long the first of a batch waits at most. The events behind it are acknowledged after it, so it
/// is no longer than these are patient when there are many.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is made of one event for slow lanes.
pub(super) struct Gathered {
    pub(super) messages: Vec<Message>,
    /// The event.
    pub(super) held: Arc<Held>,
    /// What they count as until they are confirmed.
    pub(super) share: Share,
    /// How many messages make a batch that does not wait any longer.
    pub(super) together: usize,
}

impl Intake {
    /// Publishes what is gathered, in batches, until the session is over and nothing more comes.
    pub(super) async fn hand_over(
        self: Arc<Self>,
        mut gathered: Receiver<Gathered>,
        window: Arc<Window>,
    ) {
        while let Some(mut batch) = batch(&mut gathered).await {
            // What is stuck must not keep what comes after it.
            let (intake, window) = (self.clone(), window.clone());
            self.tasks.spawn(async move {
                let messages = batch
                    .iter_mut()
                    .flat_map(|one| std::mem::take(&mut one.messages))
                    .collect();
                if intake
                    .publish_until_confirmed(messages, window.settler())
                    .await
                {
                    for one in batch {
                        drop(one.share);
                        window.part_settled(&one.held);
                    }
                }
            });
        }
    }
}

/// What is published together: it is complete when enough has come, or the first has waited long enough.
async fn batch(gathered: &mut Receiver<Gathered>) -> Option<Vec<Gathered>> {
    let first = gathered.recv().await?;
    let until = Instant::now() + PATIENCE;
    let together = first.together;
    let mut count = first.messages.len();
    let mut batch = vec![first];
    while count < together
        && let Ok(Some(next)) = timeout_at(until, gathered.recv()).await
    {
        count += next.messages.len();
        batch.push(next);
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc::channel;

    use super::*;
    use crate::intake::gauge::Gauge;

    fn gathered(tag: u64, messages: usize) -> Gathered {
        let message = |number| Message {
            exchange: "any".to_owned(),
            routing_key: "any".to_owned(),
            message_id: format!("{tag}-{number}"),
            content_type: None,
            kind: None,
            app_id: None,
            timestamp: None,
            headers: Vec::new(),
            body: Bytes::new(),
        };
        Gathered {
            messages: (0..messages).map(message).collect(),
            held: Arc::new(Held::new(tag, 1)),
            share: Arc::new(Gauge::default()).add(messages),
            together: 4,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_until_it_is_large_or_old() {
        let (sender, mut receiver) = channel(8);
        let mut next = async || {
            let began = Instant::now();
            let batch = batch(&mut receiver).await.unwrap_or_default();
            let sizes: Vec<_> = batch.iter().map(|one| one.messages.len()).collect();
            (sizes, began.elapsed())
        };
        for messages in [1, 2, 3, 1] {
            assert!(sender.try_send(gathered(1, messages)).is_ok());
        }
        assert_eq!(next().await, (vec![1, 2, 3], Duration::ZERO), "enough");
        assert_eq!(next().await, (vec![1], PATIENCE), "long enough");
        assert!(sender.try_send(gathered(2, 1)).is_ok());
        drop(sender);
        assert_eq!(next().await, (vec![1], Duration::ZERO), "nothing can come");
        assert_eq!(next().await, (vec![], Duration::ZERO), "the end");
    }
}
