//! Reads the store's subscribers into the live set: all of them at first, and then what another
//! bridge changed, or what a look at the versions shows to be different.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{AGAIN, Registry, is_in_file, warn_of_shadow};
use crate::{
    store::{Store, StoreError},
    subscriber::{Origin, Subscriber, SubscriberId, SubscriberSet, loading::shared_urls},
};

/// How often the whole store is looked at.
const RELOAD: Duration = Duration::from_mins(5);
/// Subscribers read from the store at a time.
const PAGE: usize = 1_000;
/// Ids and versions read at a time.
const VERSIONS: usize = 10_000;
/// Subscribers read by their ids at a time.
const CHUNK: usize = 200;

impl Registry {
    /// Loads the store, and then looks at it whenever that is asked for, when it returns, and every
    /// five minutes, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let Some(store) = &self.0.store else { return };
        let mut there = store.there();
        let mut rotation = Rotation::Due;
        loop {
            let look = async {
                self.look(store).await?;
                rotate(store, &mut rotation).await
            };
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = look => looked,
            };
            if let Err(error) = looked {
                debug!("the store is looked at later: {error}");
                let again = async {
                    if *there.borrow() {
                        tokio::time::sleep(AGAIN).await;
                    }
                    there.wait_for(|there| *there).await.is_ok()
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    there = again => if !there { return },
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.look.notified() => {}
                () = tokio::time::sleep(RELOAD) => {}
            }
        }
    }

    async fn look(&self, store: &Store) -> Result<(), StoreError> {
        if self.gaps().was_loaded() {
            return self.compare(store).await;
        }
        let began = Instant::now();
        self.load(store).await?;
        let (enabled, disabled) = self.0.live.load().counts();
        info!(enabled, disabled, took = ?began.elapsed(), "subscribers loaded from the store");
        Ok(())
    }

    /// Reads everything, page by page, into a set of its own: page by page into the live one, each
    /// would copy what the pages before have filled.
    async fn load(&self, store: &Store) -> Result<(), StoreError> {
        let _reading = self.0.reading.lock().await;
        let mut stored = SubscriberSet::default();
        let mut unread = Vec::new();
        let mut after = String::new();
        loop {
            let page = store.subscribers_after(&after, PAGE, &self.0.rules).await?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            for (id, read) in page {
                match read {
                    Ok(subscriber) => take(&mut stored, subscriber),
                    Err(error) => unread.push((id, error)),
                }
            }
        }
        self.make(|set| {
            for file in set.iter().filter(|one| is_in_file(one)) {
                warn_of_shadow(stored.get(file.id.as_str()), &file.origin);
                stored.insert(file.clone());
            }
            *set = stored;
            let mut gaps = self.gaps();
            gaps.loaded();
            for (id, why) in unread.iter().filter(|(id, _)| set.get(id).is_none()) {
                gaps.unread(id, why, false);
            }
        });
        self.judge();
        let set = self.0.live.load_full();
        let shared = shared_urls(set.iter().map(AsRef::as_ref));
        if let Some(first) = shared.first() {
            let (what, remedy) = (&first.what, &first.remedy);
            warn!(subscribers = shared.len(), "{what}. {remedy}");
        }
        Ok(())
    }

    /// Reads what has another version than here, and forgets what is no longer there. Page by page:
    /// both are in the order of the ids, and all versions at once would take megabytes.
    async fn compare(&self, store: &Store) -> Result<(), StoreError> {
        let mut after = String::new();
        // They may be gone.
        let mut differing = self.gaps().ids();
        loop {
            let page = store.versions_after(&after, VERSIONS).await?;
            let last = page.last().map(|(id, _)| id.clone());
            let mut there: HashMap<String, i64> = page.into_iter().collect();
            let set = self.0.live.load_full();
            // Behind the last page, there is none that is here.
            let is_of_page = |one: &&Arc<Subscriber>| {
                let last = last.as_deref();
                last.is_none_or(|last| one.id.as_str() <= last)
            };
            for one in set.after(&after).take_while(is_of_page) {
                let version = there.remove(one.id.as_str());
                match one.origin {
                    Origin::Store { version: known } if version != Some(known) => {
                        differing.insert(one.id.clone());
                    }
                    Origin::Store { .. } | Origin::File { .. } => {}
                }
            }
            differing.extend(there.into_keys().map(SubscriberId::new));
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        if !differing.is_empty() {
            debug!(subscribers = differing.len(), "changes were missed");
        }
        self.read(&Vec::from_iter(differing)).await
    }

    /// Reads these subscribers from the store, and has them here as they are there.
    pub(super) async fn read(&self, ids: &[SubscriberId]) -> Result<(), StoreError> {
        let Some(store) = &self.0.store else {
            return Ok(());
        };
        for ids in ids.chunks(CHUNK) {
            let _reading = self.0.reading.lock().await;
            let read = store.subscribers_with(ids, &self.0.rules).await?;
            let found: HashSet<String> = read.iter().map(|(id, _)| id.clone()).collect();
            self.make(|set| {
                let mut gaps = self.gaps();
                for (id, read) in read {
                    match read {
                        Ok(subscriber) => {
                            take(set, subscriber);
                            gaps.filled(&id);
                        }
                        // Whatever is known of it still holds.
                        Err(why) => gaps.unread(&id, &why, set.get(&id).is_some()),
                    }
                }
                for id in ids.iter().filter(|id| !found.contains(id.as_str())) {
                    gaps.filled(id.as_str());
                    if let Some(Origin::Store { .. }) = set.get(id.as_str()).map(|one| &one.origin)
                    {
                        set.remove(id.as_str());
                    }
                }
            });
        }
        self.judge();
        Ok(())
    }
}

/// Whether the store has secrets that are not encrypted with the first key.
#[derive(PartialEq)]
enum Rotation {
    /// It may have.
    Due,
    /// It has, and it is said why that does not change.
    Failing,
    /// It has none.
    Done,
}

/// Encrypts with the first key what is left of another's.
async fn rotate(store: &Store, rotation: &mut Rotation) -> Result<(), StoreError> {
    if *rotation == Rotation::Done {
        return Ok(());
    }
    match store.encrypt_anew().await {
        Ok(_) => *rotation = Rotation::Done,
        Err(error @ StoreError::Away(_)) => return Err(error),
        Err(error) => {
            if std::mem::replace(rotation, Rotation::Failing) != Rotation::Failing {
                warn!(
                    "not every secret in the store can be encrypted with the first key of store.secret_key_file, so keep the second: {error}"
                );
            }
        }
    }
    Ok(())
}

/// Puts what was read from the store into a set, unless it is there already, or a file says otherwise.
fn take(set: &mut SubscriberSet, subscriber: Subscriber) {
    match set.get(subscriber.id.as_str()).map(|known| &known.origin) {
        Some(origin @ Origin::File { .. }) => warn_of_shadow(Some(&Arc::new(subscriber)), origin),
        Some(known) if *known == subscriber.origin => {}
        Some(_) | None => set.insert(Arc::new(subscriber)),
    }
}
