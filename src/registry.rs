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
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
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
        loading::{Rules, share_url, shared_urls},
    },
};

mod gaps;

use gaps::Gaps;

/// How often the whole store is looked at.
const RELOAD: Duration = Duration::from_mins(5);
/// The pause before that is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Subscribers read from the store at a time.
const PAGE: usize = 1_000;
/// Ids and versions read at a time.
const VERSIONS: usize = 10_000;
/// Subscribers read by their ids at a time.
const CHUNK: usize = 200;
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
        let message = Message {
            exchange: self.0.exchange.clone(),
            routing_key: String::new(),
            message_id: Uuid::new_v4().to_string(),
            content_type: None,
            kind: None,
            app_id: None,
            timestamp: None,
            headers: Vec::new(),
            body: id.as_str().to_owned().into(),
        };
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
    async fn read(&self, ids: &[SubscriberId]) -> Result<(), StoreError> {
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

fn is_in_file(subscriber: &Subscriber) -> bool {
    matches!(subscriber.origin, Origin::File { .. })
}

/// Puts what was read from the store into a set, unless it is there already, or a file says otherwise.
fn take(set: &mut SubscriberSet, subscriber: Subscriber) {
    match set.get(subscriber.id.as_str()).map(|known| &known.origin) {
        Some(origin @ Origin::File { .. }) => warn_of_shadow(Some(&Arc::new(subscriber)), origin),
        Some(known) if *known == subscriber.origin => {}
        Some(_) | None => set.insert(Arc::new(subscriber)),
    }
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
