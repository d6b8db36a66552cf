//! A TCP line that can be cut, frozen and taken down, for the tests of what happens then.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hookbridge::cli::demo::node::free_listener;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::eventually::eventually;

/// What the line does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Freeze,
    Refuse,
}

/// The order to all connections. Those that were made before the last cut close.
#[derive(Debug, Clone, Copy)]
struct Order {
    mode: Mode,
    cuts: u64,
}

/// A proxy on a loopback port of its own in front of another. It ends when it is dropped.
pub struct Proxy {
    port: u16,
    order: watch::Sender<Order>,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Forwards to `upstream`, a port on 127.0.0.1.
    pub fn start(upstream: u16) -> Self {
        let listener = free_listener().unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        let (order, orders) = watch::channel(Order {
            mode: Mode::Forward,
            cuts: 0,
        });
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, upstream, orders, Arc::clone(&accepted)));
        Self {
            port,
            order,
            accepted,
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Forwards again, after [`Self::freeze`] or [`Self::refuse`].
    pub async fn forward(&self) {
        self.order.send_modify(|order| order.mode = Mode::Forward);
        self.until_listening(true).await;
    }

    /// Forwards nothing and closes nothing: both sides see silence. New connections are accepted
    /// into the same silence.
    pub fn freeze(&self) {
        self.order.send_modify(|order| order.mode = Mode::Freeze);
    }

    /// Closes every connection; new ones are served as before.
    pub fn cut(&self) {
        self.order.send_modify(|order| order.cuts += 1);
    }

    /// Closes every connection and refuses new ones, like a server that is down.
    pub async fn refuse(&self) {
        self.order.send_modify(|order| {
            order.mode = Mode::Refuse;
            order.cuts += 1;
        });
        self.until_listening(false).await;
    }

    async fn until_listening(&self, expected: bool) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let what = if expected {
            "the proxy listens"
        } else {
            "the proxy refuses"
        };
        let ask = async || {
            let listening = TcpStream::connect(address).await.is_ok();
            (listening == expected).then_some(())
        };
        eventually(what, Duration::from_secs(5), ask).await;
    }
}

async fn listen(
    listener: TcpListener,
    upstream: u16,
    mut orders: watch::Receiver<Order>,
    accepted: Arc<AtomicUsize>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut lines = JoinSet::new();
    loop {
        let refuse = orders.borrow_and_update().mode == Mode::Refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            connection = accept => if let Ok((near, _)) = connection {
                accepted.fetch_add(1, Ordering::SeqCst);
                lines.spawn(carry(near, upstream, orders.clone()));
            },
            Some(_) = lines.join_next() => {}
        }
    }
}

/// One connection, until either side ends it or it is cut.
async fn carry(near: TcpStream, upstream: u16, mut orders: watch::Receiver<Order>) {
    let born = orders.borrow().cuts;
    let mut cut = orders.clone();
    let line = async {
        while_frozen(&mut orders).await;
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else {
            return;
        };
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::select! {
            () = pump(near_in, far_out, orders.clone()) => {}
            () = pump(far_in, near_out, orders.clone()) => {}
        }
    };
    tokio::select! {
        () = line => {}
        _ = cut.wait_for(|order| order.cuts != born) => {}
    }
}

/// One direction, until its source ends.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut orders: watch::Receiver<Order>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        // What arrives in the frost is held back, not lost.
        while_frozen(&mut orders).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn while_frozen(orders: &mut watch::Receiver<Order>) {
    // An error means that the proxy is gone, and this task with it.
    let _ = orders.wait_for(|order| order.mode != Mode::Freeze).await;
}
