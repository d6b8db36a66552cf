//! The sieve as a stream, and as a runtime whose connections are such streams, which is how the
//! client library takes them.

use std::{
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_rs::{Runtime, TokioRuntime, traits::Reactor, util::RuntimeParts};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::AsyncTcpStream;
use tracing::{debug, warn};

use super::{Repair, Sieve};

/// A stream to a broker, as the runtime makes it.
type Plain = AsyncTcpStream<<TokioRuntime as Reactor>::TcpStream>;

/// Tokio, with streams that are sifted.
pub(in crate::broker) type SiftedRuntime = Runtime<RuntimeParts<TokioRuntime, Sifting>>;

/// Tokio, with streams that are sifted.
pub(in crate::broker) fn sifted_runtime(runtime: TokioRuntime) -> SiftedRuntime {
    Runtime::new(RuntimeParts::new(runtime.clone(), Sifting(runtime)))
}

/// Sifts what comes in over a stream; `own_max` is the largest frame that this side asks for, 0 for
/// what the broker likes. `name` says in the log which connection it is.
pub(in crate::broker) fn sift(
    stream: Plain,
    own_max: u32,
    name: &str,
) -> AsyncTcpStream<Sifted<Plain>> {
    AsyncTcpStream::Plain(Sifted {
        stream,
        sieve: Sieve::new(own_max),
        name: name.to_owned(),
        said: false,
    })
}

/// A stream that gives what it reads through a sieve. What is written passes as it is.
#[derive(Debug)]
pub(in crate::broker) struct Sifted<S> {
    stream: S,
    sieve: Sieve,
    name: String,
    said: bool,
}

impl<S> Sifted<S> {
    /// Says what was repaired: once loudly for each connection, since a publisher that does it once
    /// does it always.
    fn tell(&mut self) {
        for repair in self.sieve.repairs.drain(..) {
            let what = match repair {
                Repair::Names => {
                    "a message had a routing key, properties or header names that are not UTF-8; each such byte is read as '?'"
                }
                Repair::Headers => {
                    "a message had more headers than fit into a frame, or such as cannot be read; it is read without headers"
                }
                Repair::Properties => {
                    "a message had properties that cannot be read; it is read without them"
                }
            };
            if std::mem::replace(&mut self.said, true) {
                debug!(connection = self.name, "{what}");
            } else {
                warn!(connection = self.name, "{what}");
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sifted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let count = this.sieve.take(out);
            if count > 0 || out.is_empty() {
                return Poll::Ready(Ok(count));
            }
            let stream = Pin::new(&mut this.stream);
            let count = ready!(stream.poll_read(context, this.sieve.room()))?;
            if count == 0 {
                this.sieve.finish();
                return Poll::Ready(Ok(this.sieve.take(out)));
            }
            this.sieve.fill(count)?;
            this.tell();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sifted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// Tokio's reactor, but that its streams are sifted. The client library gets its streams from the
/// dialler, and of this needs only their type, and the time.
#[derive(Debug, Clone)]
pub(in crate::broker) struct Sifting(TokioRuntime);

impl Reactor for Sifting {
    type TcpStream = Sifted<Plain>;
    type Sleep = <TokioRuntime as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
