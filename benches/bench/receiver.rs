//! The endpoint of every HTTP subscriber: one thread that speaks just enough HTTP/1.1 to be cheap,
//! answers as the path says, and notes when each event arrived.
//!
//! `/ok/7` is answered at once, `/after-200/7` after 200 ms, `/hang/7` never, and `/second/7`
//! refuses first attempts. The number is the subscriber's.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::event;

const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// An event that a subscriber took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// The subscriber's number.
    pub(crate) who: u32,
    /// When the event was due.
    pub(crate) due: u64,
    /// When it was here.
    pub(crate) at: u64,
}

/// What has arrived, over HTTP or otherwise. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrivals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    taken: AtomicU64,
    list: Mutex<Vec<Arrival>>,
}

impl Arrivals {
    /// Notes one, now.
    pub(crate) fn note(&self, who: u32, body: &[u8]) {
        let arrival = Arrival {
            who,
            due: event::due(body).unwrap_or_default(),
            at: event::now(),
        };
        self.list().push(arrival);
        self.0.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have arrived since they were last forgotten.
    pub(crate) fn count(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Everything since, which is forgotten now.
    pub(crate) fn take(&self) -> Vec<Arrival> {
        let mut list = self.list();
        self.0.taken.store(0, Ordering::Relaxed);
        std::mem::take(&mut *list)
    }

    /// Notes what a consumer is given, for as long as it is.
    pub(crate) fn follow(&self, who: u32, mut consumer: lapin::Consumer) {
        let arrivals = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                arrivals.note(who, &delivery.data);
            }
        });
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arrival>> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running receiver; it ends with the process.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Its port, on every address of the loopback network.
    pub(crate) port: u16,
    /// What arrived.
    pub(crate) arrivals: Arrivals,
}

impl Receiver {
    /// Starts it.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let arrivals = Arrivals::default();
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = arrivals.clone();
        thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || runtime.block_on(accept(listener, &shared)))?;
        Ok(Self { port, arrivals })
    }

    /// The URL of subscriber `who`, answered as `how` says. Each has a host of its own, as real
    /// subscribers have, so that they share no connections.
    pub(crate) fn url(&self, how: &str, who: u32) -> String {
        let [_, _, high, low] = who.to_be_bytes();
        format!("http://127.1.{high}.{low}:{}/{how}/{who}", self.port)
    }
}

async fn accept(listener: std::net::TcpListener, arrivals: &Arrivals) {
    let listener = TcpListener::from_std(listener).expect("a listener of the runtime");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let arrivals = arrivals.clone();
            // A connection that breaks is the other side's affair.
            tokio::spawn(async move { serve(stream, arrivals).await.ok() });
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, arrivals: Arrivals) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let head = loop {
            if let Some(end) = event::find(&buffer, END_OF_HEAD) {
                break end + END_OF_HEAD.len();
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let request = Request::read(&buffer[..head]).ok_or(io::ErrorKind::InvalidData)?;
        while buffer.len() < head + request.length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = &buffer[head..head + request.length];
        let refused = matches!(request.how, How::Second) && request.first_attempt;
        if !refused {
            arrivals.note(request.who, body);
        }
        match request.how {
            How::AtOnce | How::Second => {}
            How::After(delay) => tokio::time::sleep(delay).await,
            How::Never => {
                // Until the other side gives up.
                stream.read_to_end(&mut buffer).await?;
                return Ok(());
            }
        }
        let answer = if refused { REFUSED } else { TAKEN };
        buffer.drain(..head + request.length);
        stream.write_all(answer).await?;
    }
}

/// What matters of a request's head.
#[derive(Debug)]
struct Request {
    how: How,
    who: u32,
    length: usize,
    first_attempt: bool,
}

#[derive(Debug, Clone, Copy)]
enum How {
    AtOnce,
    After(Duration),
    Second,
    Never,
}

impl Request {
    fn read(head: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(head).ok()?.split("\r\n");
        let mut path = lines.next()?.split(' ').nth(1)?.split('/').skip(1);
        let how = match path.next()? {
            "ok" => How::AtOnce,
            "second" => How::Second,
            "hang" => How::Never,
            other => How::After(Duration::from_millis(
                other.strip_prefix("after-")?.parse().ok()?,
            )),
        };
        let who = path.next()?.parse().ok()?;
        let mut request = Self {
            how,
            who,
            length: 0,
            first_attempt: false,
        };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                request.length = value.trim().parse().ok()?;
            } else if name.eq_ignore_ascii_case("webhook-attempt") {
                request.first_attempt = value.trim() == "1";
            }
        }
        Some(request)
    }
}
