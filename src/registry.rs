//! Who is subscribed now: the subscribers' files and the store, in one live set. A change made here
//! or told by another bridge is a change of one entry; a full look at the store on every reconnect
//! and every five minutes makes up for what was missed.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    broker::{
        connection::OPERATION_TIMEOUT,
        consumer::{Options, Session},
        message::Message,
        publisher::{PublishError, Publisher},
    },
    store::{
        Store, StoreError,
        subscribers::{Condition, Given, Saved},
    },
    subscriber::{
        LiveSubscribers, Origin, Subscriber, SubscriberId, SubscriberSet,
        loading::{Rules, share_url},
    },
};

mod gaps;
mod reading;

use gaps::Gaps;

/// The pause before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// News taken at a time.
const NEWS: usize = 256;
/// How long a delivery waits for the store to say whether it knows its subscriber, and for how long
/// the answer holds that it does not.
const ASK: Duration = Duration::from_secs(2);
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// How many unknown subscribers are remembered.
const MOST_UNKNOWN: usize = 10_000;
/// How long it is tried to tell the other bridges of a change.
const TELL: Duration = Duration::from_mins(1);

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// `store.url` is empty.
    #[error("this bridge has no store: set `store.url` to change subscribers through the API")]
    NoStore,
    /// The subscriber is defined in a file.
    #[error("the subscriber is defined in {0}: change it there")]
    InFile(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Knows and changes who is subscribed. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    live: LiveSubscribers,
    /// Held while the next set is made of the live one.
    making: Mutex<()>,
    /// Held while subscribers are read from the store and put into the set: what is read first must
    /// be put there first.
    reading: tokio::sync::Mutex<()>,
    store: Option<Store>,
    rules: Rules,
    /// What is missing of the store's subscribers.
    gaps: Mutex<Gaps>,
    /// Whether nothing is.
    whole: watch::Sender<bool>,
    changed: Notify,
    /// Asks for a full look at the store.
    look: Notify,
    unfound: Mutex<HashMap<SubscriberId, Unfound>>,
    publisher: Publisher,
    exchange: String,
    tasks: TaskTracker,
}

/// That a subscriber was looked for in vain.
struct Unfound {
    at: Instant,
    /// Why it cannot be told whether there is one; nothing if there is none.
    why: Option<StoreError>,
}

impl Registry {
    /// A registry of nobody yet. It tells other bridges over `exchange`; `tasks` know what it does in
    /// the background.
    pub fn new(
        store: Option<Store>,
        rules: Rules,
        publisher: Publisher,
        exchange: String,
        tasks: TaskTracker,
    ) -> Self {
        let key_file = store.as_ref().map_or_else(PathBuf::new, Store::key_file);
        Self(Arc::new(Inner {
            live: LiveSubscribers::default(),
            making: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            gaps: Mutex::new(Gaps::new(store.is_none(), key_file)),
            whole: watch::Sender::new(store.is_none()),
            store,
            rules,
            changed: Notify::new(),
            look: Notify::new(),
            unfound: Mutex::default(),
            publisher,
            exchange,
            tasks,
        }))
    }

    /// The subscribers as they are now.
    pub fn live(&self) -> &LiveSubscribers {
        &self.0.live
    }

    /// The store, if there is one.
    pub fn store(&self) -> Option<&Store> {
        self.0.store.as_ref()
    }

    /// Whether it is known who is subscribed: a store that is given must have been loaded, and every
    /// row of it be readable, or known as it was before.
    pub fn whole(&self) -> watch::Receiver<bool> {
        self.0.whole.subscribe()
    }

    /// Why it is not known who is subscribed, if it is not.
    pub fn lack(&self) -> Option<StoreError> {
        let gaps = self.gaps();
        if gaps.was_loaded() {
            return gaps.unknown();
        }
        let away = self.0.store.as_ref().and_then(Store::away);
        let why = away.unwrap_or_else(|| "its subscribers are being read".to_owned());
        Some(StoreError::Away(why))
    }

    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.0.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or shuts the gate, and says why.
    fn judge(&self) {
        let mut gaps = self.gaps();
        gaps.say();
        let whole = gaps.was_loaded() && gaps.unknown().is_none();
        // Under the lock, so that no older judgement follows a newer one.
        let change = |open: &mut bool| std::mem::replace(open, whole) != whole;
        self.0.whole.send_if_modified(change);
    }

    /// Waits until somebody came, went or changed since this was last asked.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Takes over the subscribers of the files, in place of those that came from files before. A file
    /// goes before the store.
    pub fn take_files(&self, files: &SubscriberSet) {
        let mut shadowed = false;
        self.make(|set| {
            let in_files = set.iter().filter(|one| is_in_file(one));
            let before = in_files.map(|one| one.id.clone());
            for id in before.collect::<Vec<_>>() {
                if files.get(id.as_str()).is_none() {
                    set.remove(id.as_str());
                    // The store may have one of this id, too.
                    shadowed = true;
                }
            }
            for subscriber in files.iter() {
                warn_of_shadow(set.get(subscriber.id.as_str()), &subscriber.origin);
                set.insert(subscriber.clone());
            }
        });
        let mut gaps = self.gaps();
        for file in files.iter() {
            gaps.filled(file.id.as_str());
        }
        drop(gaps);
        self.judge();
        if shadowed {
            self.0.look.notify_one();
        }
    }

    /// How many subscribers come from files.
    pub fn in_files(&self) -> usize {
        let live = self.0.live.load();
        live.iter().filter(|one| is_in_file(one)).count()
    }

    /// The subscriber with this id. One that is not known here may have been made through another
    /// bridge just now, so the store is asked, but not waited for. The error says why it cannot be
    /// told whether there is one.
    pub async fn find(&self, id: &SubscriberId) -> Result<Option<Arc<Subscriber>>, StoreError> {
        let known = || self.0.live.load().get(id.as_str()).cloned();
        if let Some(subscriber) = known() {
            return Ok(Some(subscriber));
        }
        let Some(store) = self.0.store.as_ref().filter(|_| id.is_sound()) else {
            // There is none, or it cannot hold this.
            return Ok(None);
        };
        if let Some(why) = store.away() {
            return Err(StoreError::Away(why));
        }
        if let Some(unfound) = self.unfound().get(id)
            && unfound.at.elapsed() < UNKNOWN_FOR
        {
            return unfound.why.clone().map_or(Ok(None), Err);
        }
        let read = tokio::time::timeout(ASK, self.refresh(id)).await;
        let read = read.unwrap_or_else(|_| Err(StoreError::slow(ASK)));
        if let Some(subscriber) = known() {
            return Ok(Some(subscriber));
        }
        let why = read.err().or_else(|| self.gaps().of(id.as_str()));
        if let Some(why) = &why {
            debug!(subscriber = %id, "cannot be looked for: {why}");
        }
        let mut unfound = self.unfound();
        if unfound.len() >= MOST_UNKNOWN {
            unfound.clear();
        }
        let at = Instant::now();
        let answer = why.clone().map_or(Ok(None), Err);
        unfound.insert(id.clone(), Unfound { at, why });
        answer
    }

    fn unfound(&self) -> MutexGuard<'_, HashMap<SubscriberId, Unfound>> {
        self.0
            .unfound
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes or replaces a subscriber, whose `origin` does not matter, here and on every other
    /// bridge. `by` is the name of the token that does it.
    pub async fn put(
        &self,
        subscriber: &Subscriber,
        given: Given,
        condition: Condition,
        by: &str,
    ) -> Result<Saved, ChangeError> {
        let store = self.writable(&subscriber.id)?;
        let saved = store
            .put_subscriber(subscriber, given, condition, by)
            .await?;
        self.tell(&subscriber.id).await;
        Ok(saved)
    }

    /// Enables or disables a subscriber.
    pub async fn enable(
        &self,
        id: &SubscriberId,
        enabled: bool,
        condition: Condition,
        by: &str,
    ) -> Result<Saved, ChangeError> {
        let store = self.writable(id)?;
        let saved = store.enable_subscriber(id, enabled, condition, by).await?;
        self.tell(id).await;
        Ok(saved)
    }

    /// Removes a subscriber.
    pub async fn delete(&self, id: &SubscriberId, condition: Condition) -> Result<(), ChangeError> {
        let store = self.writable(id)?;
        store.delete_subscriber(id, condition).await?;
        self.tell(id).await;
        Ok(())
    }

    fn writable(&self, id: &SubscriberId) -> Result<&Store, ChangeError> {
        let store = self.0.store.as_ref().ok_or(ChangeError::NoStore)?;
        match self.0.live.load().get(id.as_str()).map(|one| &one.origin) {
            Some(origin @ Origin::File { .. }) => Err(ChangeError::InFile(origin.to_string())),
            Some(Origin::Store { .. }) | None => Ok(store),
        }
    }

    /// Reads a subscriber again: another bridge may have changed it just now.
    pub async fn refresh(&self, id: &SubscriberId) -> Result<(), StoreError> {
        self.read(std::slice::from_ref(id)).await
    }

    /// A subscriber with other cases and the same URL, which would be sent webhooks of both.
    pub fn sharing(&self, one: &Subscriber) -> Option<SubscriberId> {
        let set = self.0.live.load();
        let mut others = set.iter().filter(|other| other.id != one.id);
        let found = others.find(|other| share_url(one, other));
        found.map(|other| other.id.clone())
    }

    /// Takes a change over here, and tells the other bridges in the background.
    async fn tell(&self, id: &SubscriberId) {
        if let Err(error) = self.refresh(id).await {
            debug!(subscriber = %id, "a change is taken over later: {error}");
            self.0.look.notify_one();
        }
        let message = Message::plain(
            self.0.exchange.clone(),
            "",
            Uuid::new_v4().to_string(),
            id.as_str().to_owned(),
        );
        let (publisher, until) = (self.0.publisher.clone(), Instant::now() + TELL);
        self.0.tasks.spawn(async move {
            loop {
                let told = publisher
                    .publish_one(message.clone(), OPERATION_TIMEOUT)
                    .await;
                match told {
                    // Nobody listens, this bridge included: the next look at the store will do.
                    Ok(()) | Err(PublishError::Returned(_) | PublishError::Stopped) => return,
                    Err(error) if Instant::now() >= until => {
                        return warn!(
                            "other bridges hear of a change only in five minutes: {error}"
                        );
                    }
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        });
    }

    /// How the news of other bridges are consumed.
    pub fn options(&self) -> Options {
        Options {
            queue: self.0.exchange.clone(),
            prefetch: u16::MAX,
            bytes: None,
            gate: None,
            listens_to: Some(self.0.exchange.clone()),
        }
    }

    /// Hears the news of other bridges for one session of the consumer.
    pub async fn listen(self, mut session: Session) {
        let settler = session.settler();
        // What was said before it listened.
        self.0.look.notify_one();
        while let Some(chunk) = session.next(NEWS).await {
            let id = |body: &[u8]| Some(SubscriberId::new(std::str::from_utf8(body).ok()?));
            let ids = chunk.iter().filter_map(|one| id(&one.body));
            // Whoever may publish there may write anything.
            let ids: HashSet<_> = ids.filter(SubscriberId::is_sound).collect();
            let ids: Vec<_> = ids.into_iter().collect();
            if let Err(error) = self.read(&ids).await {
                debug!("news are taken over later: {error}");
                self.0.look.notify_one();
            }
            if let Some(last) = chunk.last() {
                settler.ack_up_to(last.tag).await;
            }
        }
    }

    /// Makes the next set of the live one.
    fn make(&self, change: impl FnOnce(&mut SubscriberSet)) {
        {
            let _one = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
            let mut set = SubscriberSet::clone(&self.0.live.load());
            change(&mut set);
            self.0.live.store(Arc::new(set));
        }
        self.0.changed.notify_one();
    }
}

fn is_in_file(subscriber: &Subscriber) -> bool {
    matches!(subscriber.origin, Origin::File { .. })
}

fn warn_of_shadow(stored: Option<&Arc<Subscriber>>, file: &Origin) {
    if let Some(stored) = stored
        && matches!(stored.origin, Origin::Store { .. })
    {
        warn!(
            subscriber = %stored.id,
            "is defined in {file} and in the store: the file holds. Give one of the two another id"
        );
    }
}
