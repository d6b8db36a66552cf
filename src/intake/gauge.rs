//! How many of something there are, for one who waits for them to be fewer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// How many there are.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    count: AtomicUsize,
    fewer: Notify,
}

/// Some of them, until dropped.
#[derive(Debug)]
pub(super) struct Share {
    gauge: Arc<Gauge>,
    count: usize,
}

impl Gauge {
    /// So many more, until the share is dropped.
    pub(super) fn add(self: &Arc<Self>, count: usize) -> Share {
        self.count.fetch_add(count, Ordering::Relaxed);
        Share {
            gauge: self.clone(),
            count,
        }
    }

    /// Waits until there are fewer than `limit`. One may wait at a time.
    pub(super) async fn below(&self, limit: usize) {
        while self.count.load(Ordering::Relaxed) >= limit {
            // One that came between the look and this is kept for it.
            self.fewer.notified().await;
        }
    }
}

impl Share {
    /// Takes so many out of it, to be dropped by themselves.
    pub(super) fn split(&mut self, count: usize) -> Self {
        debug_assert!(self.count >= count, "there are as many left");
        self.count -= count;
        Self {
            gauge: self.gauge.clone(),
            count,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.count > 0 {
            self.gauge.count.fetch_sub(self.count, Ordering::Relaxed);
            self.gauge.fewer.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_is_dropped_makes_room() {
        let gauge = Arc::new(Gauge::default());
        let mut share = gauge.add(3);
        let one = share.split(1);
        assert!(gauge.below(3).now_or_never().is_none());
        drop(one);
        assert!(gauge.below(3).now_or_never().is_some());
        let mut waits = Box::pin(gauge.below(1));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(share);
        assert!(waits.now_or_never().is_some());
    }
}
