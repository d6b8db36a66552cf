//! The endpoint of those who get replayed dead letters: it takes everything, and counts each webhook.

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use axum::{Router, extract::State, http::HeaderMap};

type Seen = Arc<Mutex<HashMap<String, u32>>>;

/// A running endpoint; it ends with the process.
pub(crate) struct Receiver {
    port: u16,
    seen: Seen,
}

impl Receiver {
    /// Starts it, in a thread of its own.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let seen = Seen::default();
        let router = Router::new().fallback(note).with_state(seen.clone());
        thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener);
                    let listener = listener.expect("a listener of the runtime");
                    axum::serve(listener, router).await.expect("it serves");
                });
            })?;
        Ok(Self { port, seen })
    }

    /// The URL of a subscriber, each on a host of its own.
    pub(crate) fn url(&self, who: u32) -> String {
        let [_, _, high, low] = who.to_be_bytes();
        format!("http://127.1.{high}.{low}:{}/", self.port)
    }

    /// How many webhooks came, and how many of them came again.
    pub(crate) fn count(&self) -> (usize, u32) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.len(), seen.values().map(|count| count - 1).sum())
    }
}

async fn note(State(seen): State<Seen>, headers: HeaderMap) {
    let id = headers.get("webhook-id").expect("every webhook has an id");
    let id = id.to_str().expect("text").to_owned();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    *seen.entry(id).or_default() += 1;
}
