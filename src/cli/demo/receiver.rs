//! The demo's HTTP receiver: an endpoint for each HTTP subscriber, at a path that is its id. As
//! little HTTP as serves: one request on each connection, with a length.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    arrival::Arrival,
    cast::{CAST, Endpoint, Member, Target},
};

/// The largest request that is read, in bytes.
const LIMIT: usize = 2 * 1024 * 1024;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bound receiver.
pub(super) struct Receiver {
    listener: TcpListener,
    arrivals: mpsc::Sender<Arrival>,
    /// The webhook ids that a shaky endpoint has refused.
    refused: Arc<Mutex<HashSet<String>>>,
}

struct Request {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Receiver {
    /// Binds a free loopback port; what arrives is sent to `arrivals`.
    pub(super) async fn bind(arrivals: mpsc::Sender<Arrival>) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            arrivals,
            refused: Arc::default(),
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`.
    pub(super) async fn serve(self, stop: CancellationToken, tasks: TaskTracker) {
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // The other side has gone already.
                    Err(_) => continue,
                },
            };
            let (arrivals, refused) = (self.arrivals.clone(), self.refused.clone());
            let stop = stop.clone();
            tasks.spawn(async move {
                let answering = timeout(PATIENCE, answer(stream, &arrivals, &refused));
                tokio::select! {
                    () = stop.cancelled() => {}
                    // A request that breaks off is its sender's failure, and its sender knows.
                    _ = answering => {}
                }
            });
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    arrivals: &mpsc::Sender<Arrival>,
    refused: &Mutex<HashSet<String>>,
) -> io::Result<()> {
    let request = read(&mut stream).await?;
    let at = Instant::now();
    let member = CAST.iter().find(|member| request.path[1..] == *member.id);
    let (status, text, arrival) = match member {
        Some(member) if request.method == "POST" => {
            let mut arrival = Arrival {
                member,
                at,
                headers: request.headers,
                body: request.body,
                status: None,
            };
            let (status, text) = reply(member, &arrival, refused);
            arrival.status = Some(status);
            (status, text, Some(arrival))
        }
        Some(_) => (405, "send webhooks here by POST", None),
        None => (404, "no subscriber listens here", None),
    };
    let head = format!(
        "HTTP/1.1 {status} \r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    if let Some(arrival) = arrival {
        // It fails only when the demo is over.
        let _ = arrivals.send(arrival).await;
    }
    Ok(())
}

fn reply(
    member: &Member,
    arrival: &Arrival,
    refused: &Mutex<HashSet<String>>,
) -> (u16, &'static str) {
    match member.target {
        Target::Http(Endpoint::Broken) => (500, "out of order"),
        Target::Http(Endpoint::Shaky)
            if refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(arrival.header("webhook-id").to_owned()) =>
        {
            (503, "not now")
        }
        _ => (200, "thank you"),
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Request> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > LIMIT || stream.read_buf(&mut bytes).await? == 0 {
            return Err(invalid("a request without an end"));
        }
    };
    let text = str::from_utf8(&bytes[..head]).map_err(|_| invalid("a head that is no text"))?;
    let mut lines = text.lines();
    let mut words = lines
        .next()
        .unwrap_or_default()
        .split(' ')
        .map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(invalid("no request line"));
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (
            name.parse::<HeaderName>(),
            value.trim().parse::<HeaderValue>(),
        ) {
            headers.append(name, value);
        }
    }
    let length = headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let end = head + length.unwrap_or(0_usize).min(LIMIT);
    while bytes.len() < end {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(invalid("a body without its end"));
        }
    }
    if !path.starts_with('/') {
        return Err(invalid("no path"));
    }
    Ok(Request {
        method,
        path,
        headers,
        body: Bytes::from(bytes).slice(head..end),
    })
}
