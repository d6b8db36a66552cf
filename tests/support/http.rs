//! An HTTP endpoint that notes every arrival and answers as it is told to.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr},
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, connect_info::Connected},
    http::{HeaderMap, Method, StatusCode, header::LOCATION},
    response::Response,
    serve::{IncomingStream, Listener},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use super::eventually::eventually;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When its body was complete.
    pub at: Instant,
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Arrival {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a text header"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a text body")
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This status, with an empty body.
    Status(u16),
    /// This status and body.
    Body(u16, Vec<u8>),
    /// 302 to this address.
    Redirect(String),
    /// Another answer, but this much later.
    After(Duration, Box<Answer>),
    /// Another answer, once this says so.
    Once(watch::Receiver<bool>, Box<Answer>),
    /// No answer, and the connection stays open.
    Hang,
    /// This status at once, and a body that never ends.
    HangInBody(u16),
    /// This status at once, and then a byte a second, without an end.
    Drip(u16),
    /// This status, a part of the body, and the connection breaks.
    CutOff(u16),
    /// No answer: the connection is closed.
    Disconnect,
}

/// Decides by the request, and by how many came to the same path before it.
type Plan = Box<dyn Fn(&Arrival, usize) -> Answer + Send + Sync>;

#[derive(Default)]
struct State {
    /// Whether arrivals are not kept.
    forgetful: bool,
    arrivals: Mutex<Vec<Arrival>>,
    plans: Mutex<HashMap<String, Plan>>,
}

/// A running endpoint on a port of its own. It answers 200 where it was told nothing else, and
/// stops when it is dropped.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::serve(State::default()).await
    }

    /// An endpoint that keeps no arrivals, for runs of many; its plans note what they need.
    pub async fn forgetful() -> Self {
        Self::serve(State {
            forgetful: true,
            ..State::default()
        })
        .await
    }

    async fn serve(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(state);
        let shared = Arc::clone(&state);
        let answer = move |ConnectInfo(line): ConnectInfo<Line>, request| {
            let state = Arc::clone(&shared);
            async move { state.answer(line, request).await }
        };
        let service = Router::new()
            .fallback(answer)
            .into_make_service_with_connect_info::<Line>();
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(Tapped(listener), service).await.unwrap();
        });
        Self {
            address,
            state,
            _server: server,
        }
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers every request to `path` like this.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.answer_with(path, move |_, _| answer.clone());
    }

    /// Answers the first request to `path` with the first, and so on; the last one stays.
    pub fn answer_in_turn(&self, path: &str, answers: Vec<Answer>) {
        self.answer_with(path, move |_, before| {
            answers[before.min(answers.len() - 1)].clone()
        });
    }

    /// Answers as a function of the request, and of how many came to the same path before it.
    pub fn answer_with(
        &self,
        path: &str,
        plan: impl Fn(&Arrival, usize) -> Answer + Send + Sync + 'static,
    ) {
        let mut plans = self.state.plans.lock().unwrap();
        plans.insert(path.to_owned(), Box::new(plan));
    }

    /// Everything that has come, in order of arrival.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.state.arrivals.lock().unwrap().clone()
    }

    /// What has come to one path.
    pub fn arrivals_at(&self, path: &str) -> Vec<Arrival> {
        let mut arrivals = self.arrivals();
        arrivals.retain(|arrival| arrival.path == path);
        arrivals
    }

    /// Waits until at least `count` requests have come, and returns all; panics after `deadline`.
    pub async fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Arrival> {
        let what = format!("{count} requests to {}", self.address);
        let enough = async || Some(self.arrivals()).filter(|all| all.len() >= count);
        eventually(&what, deadline, enough).await
    }
}

impl State {
    async fn answer(&self, line: Line, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let arrival = Arrival {
            body: to_bytes(body, usize::MAX).await.unwrap_or_default(),
            at: Instant::now(),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
        };
        let mut answer = {
            let mut arrivals = self.arrivals.lock().unwrap();
            let before = arrivals.iter().filter(|a| a.path == arrival.path).count();
            let plans = self.plans.lock().unwrap();
            let plan = plans.get(&arrival.path);
            let answer = plan.map_or(Answer::Status(200), |plan| plan(&arrival, before));
            if !self.forgetful {
                arrivals.push(arrival);
            }
            answer
        };
        loop {
            answer = match answer {
                Answer::After(delay, then) => {
                    sleep(delay).await;
                    *then
                }
                Answer::Once(mut said, then) => {
                    // An error means that the test is over.
                    let _ = said.wait_for(|said| *said).await;
                    *then
                }
                answer => return line.respond(answer).await,
            };
        }
    }
}

/// A listener whose connections can be broken by the handler that answers on them.
struct Tapped(TcpListener);

/// A second handle on the socket of a request.
#[derive(Clone)]
struct Line(Arc<std::net::TcpStream>);

impl Line {
    async fn respond(self, answer: Answer) -> Response {
        let with = |status: u16, body| {
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        };
        match answer {
            Answer::Status(status) => with(status, Body::empty()),
            Answer::Body(status, body) => with(status, Body::from(body)),
            Answer::Redirect(to) => {
                let mut response = with(302, Body::empty());
                response.headers_mut().insert(LOCATION, to.parse().unwrap());
                response
            }
            Answer::HangInBody(status) => with(status, unfinished(futures_util::future::pending())),
            Answer::Drip(status) => with(status, Body::from_stream(bytes_a_second())),
            Answer::CutOff(status) => with(
                status,
                unfinished(async {
                    // Lets the first part leave before the connection breaks.
                    sleep(Duration::from_millis(20)).await;
                    Err(io::Error::other("cut off"))
                }),
            ),
            Answer::Disconnect => {
                // An error means that the other side was faster.
                let _ = self.0.shutdown(Shutdown::Both);
                std::future::pending().await
            }
            Answer::Hang | Answer::After(..) | Answer::Once(..) => std::future::pending().await,
        }
    }
}

/// A body that goes on and on, and says nothing.
fn bytes_a_second() -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold((), async |()| {
        sleep(Duration::from_secs(1)).await;
        Some((Ok(Bytes::from_static(b".")), ()))
    })
}

/// A body that says something and then waits for `end`.
fn unfinished(end: impl Future<Output = io::Result<Bytes>> + Send + 'static) -> Body {
    let first = futures_util::future::ready(Ok(Bytes::from_static(b"unfinished")));
    let parts = futures_util::stream::StreamExt::chain(
        futures_util::stream::once(first),
        futures_util::stream::once(end),
    );
    Body::from_stream(parts)
}

impl Listener for Tapped {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        Listener::accept(&mut self.0).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Tapped>> for Line {
    fn connect_info(stream: IncomingStream<'_, Tapped>) -> Self {
        let socket = stream.io().as_fd().try_clone_to_owned().unwrap();
        Self(Arc::new(socket.into()))
    }
}
