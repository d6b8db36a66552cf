//! A publisher for each of many subscribers, over the connections of one broker: no two share a
//! channel, since one may close or stall it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{pool::Source, publisher::Publisher};

/// How many publishers to the home broker may have a connection of their own at a time.
const OWN_CONNECTIONS: usize = 4;

/// Publishers by key, started when first asked for.
#[derive(Debug)]
pub struct Publishers<K> {
    source: Source,
    tasks: TaskTracker,
    own_connections: Arc<Semaphore>,
    started: Mutex<HashMap<K, (Option<String>, Publisher)>>,
}

impl<K: Eq + Hash + Clone> Publishers<K> {
    /// Publishers over the connections of `source`, whose tasks `tasks` knows.
    pub fn new(source: Source, tasks: TaskTracker) -> Self {
        let most = if source.is_home() { OWN_CONNECTIONS } else { 0 };
        Self {
            source,
            tasks,
            own_connections: Arc::new(Semaphore::new(most)),
            started: Mutex::default(),
        }
    }

    /// The publisher of `key`. With `declare`, that queue is declared whenever its channel opens.
    pub fn get(&self, key: &K, declare: Option<&str>) -> Publisher {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((declares, publisher)) = started.get(key)
            && declares.as_deref() == declare
            && !publisher.is_closed()
        {
            return publisher.clone();
        }
        let declare = declare.map(str::to_owned);
        let publisher = Publisher::start_shared(
            self.source.clone(),
            declare.clone(),
            self.own_connections.clone(),
            &self.tasks,
        );
        started.insert(key.clone(), (declare, publisher.clone()));
        publisher
    }

    /// Lets go of publishers whose key is not wanted any more; they end when what they have is done.
    pub fn retain(&self, wanted: impl Fn(&K) -> bool) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.retain(|key, _| wanted(key));
    }

    /// Whether nobody has a publisher here.
    pub fn is_empty(&self) -> bool {
        self.started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// The connections that they publish over.
    pub fn source(&self) -> &Source {
        &self.source
    }
}
