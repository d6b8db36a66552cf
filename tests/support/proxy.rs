//! A TCP line that can be cut, frozen, slowed, halved and taken down, for the tests of what happens
//! then.

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
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::eventually::eventually;

/// How many reads one direction of one connection may hold back.
const ROOM: usize = 32;

/// One of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connects.
    There,
    /// To who connects.
    Back,
}

/// What the line does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Freeze,
    Silence(Way),
    Refuse,
}

impl Mode {
    fn holds(self, way: Way) -> bool {
        self == Self::Freeze || self == Self::Silence(way)
    }
}

/// How slow a line is, in each direction of each connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slow {
    /// What comes arrives this much later, there and back.
    pub latency: [Duration; 2],
    /// Bytes a second.
    pub bandwidth: Option<u32>,
}

/// The order to all connections. Those that were made before the last cut close, and those that were
/// made before the last halving lose their other half.
#[derive(Debug, Clone, Copy)]
struct Order {
    mode: Mode,
    slow: Slow,
    cuts: u64,
    halvings: u64,
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
        Self::balance(&[upstream])
    }

    /// Forwards each connection to the next of these that accepts it, as a load balancer does.
    pub fn balance(upstreams: &[u16]) -> Self {
        let listener = free_listener().unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        let (order, orders) = watch::channel(Order {
            mode: Mode::Forward,
            slow: Slow::default(),
            cuts: 0,
            halvings: 0,
        });
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let upstreams = upstreams.to_owned();
        tasks.spawn(listen(listener, upstreams, orders, Arc::clone(&accepted)));
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

    /// Forwards again, and at full speed.
    pub async fn forward(&self) {
        self.order.send_modify(|order| {
            order.mode = Mode::Forward;
            order.slow = Slow::default();
        });
        self.until_listening(true).await;
    }

    /// Forwards nothing and closes nothing: both sides see silence. New connections are accepted
    /// into the same silence.
    pub fn freeze(&self) {
        self.order.send_modify(|order| order.mode = Mode::Freeze);
    }

    /// Freezes one direction, and new connections with it.
    pub fn silence(&self, way: Way) {
        self.order
            .send_modify(|order| order.mode = Mode::Silence(way));
    }

    /// Forwards more slowly.
    pub fn slow(&self, slow: Slow) {
        self.order.send_modify(|order| order.slow = slow);
    }

    /// Closes the far end of every connection, and says nothing of it to the near one: what that
    /// sends from now on is gone. New connections are served as before.
    pub fn halve(&self) {
        self.order.send_modify(|order| order.halvings += 1);
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
    mut upstreams: Vec<u16>,
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
                lines.spawn(carry(near, upstreams.clone(), orders.clone()));
                upstreams.rotate_left(1);
            },
            Some(_) = lines.join_next() => {}
        }
    }
}

/// One connection, until either side ends it or it is cut.
async fn carry(mut near: TcpStream, upstreams: Vec<u16>, mut orders: watch::Receiver<Order>) {
    let Order { cuts, halvings, .. } = *orders.borrow();
    let mut cut = orders.clone();
    let mut halved = orders.clone();
    let line = async {
        while_held(&mut orders, Way::There).await;
        let through = forward(&mut near, &upstreams, &orders);
        tokio::select! {
            () = through => return,
            _ = halved.wait_for(|order| order.halvings != halvings) => {}
        }
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(1..) = near.read(&mut buffer).await {}
    };
    tokio::select! {
        () = line => {}
        _ = cut.wait_for(|order| order.cuts != cuts) => {}
    }
}

async fn forward(near: &mut TcpStream, upstreams: &[u16], orders: &watch::Receiver<Order>) {
    let addresses = upstreams.iter().map(|port| (Ipv4Addr::LOCALHOST, *port));
    let addresses: Vec<_> = addresses.map(SocketAddr::from).collect();
    // The first that accepts.
    let Ok(far) = TcpStream::connect(&*addresses).await else {
        return;
    };
    let (near_in, near_out) = near.split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        () = pump(near_in, far_out, Way::There, orders.clone()) => {}
        () = pump(far_in, near_out, Way::Back, orders.clone()) => {}
    }
}

/// One direction, until its source ends and all of it is through.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    mut orders: watch::Receiver<Order>,
) {
    let (taken, mut held) = mpsc::channel::<(Instant, Vec<u8>)>(ROOM);
    let take = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let piece = (Instant::now(), buffer[..read].to_vec());
            if taken.send(piece).await.is_err() {
                return;
            }
        }
    };
    let give = async move {
        while let Some((at, piece)) = held.recv().await {
            let Slow { latency, bandwidth } = orders.borrow().slow;
            sleep_until(at + latency[way as usize]).await;
            if let Some(bandwidth) = bandwidth {
                let bytes = u32::try_from(piece.len()).unwrap();
                sleep(Duration::from_secs(1) * bytes / bandwidth).await;
            }
            // What arrives in the frost is held back, not lost.
            while_held(&mut orders, way).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    let take = async {
        take.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = take => {}
        () = give => {}
    }
}

async fn while_held(orders: &mut watch::Receiver<Order>, way: Way) {
    // An error means that the proxy is gone, and this task with it.
    let _ = orders.wait_for(|order| !order.mode.holds(way)).await;
}
