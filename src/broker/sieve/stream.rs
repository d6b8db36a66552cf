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
        hung_up: None,
    })
}

/// A stream that gives what it reads through a sieve. What is written passes as it is.
#[derive(Debug)]
pub(in crate::broker) struct Sifted<S> {
    stream: S,
    sieve: Sieve,
    name: String,
    said: bool,
    /// What writing came to when the broker hung up, until all that it had sent is read.
    hung_up: Option<io::Error>,
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

impl<S> Sifted<S> {
    /// Keeps back that a write failed because the broker hung up, for as long as there is something
    /// of the broker's to read: its last words say why, and the client library reads no more once it
    /// hears of the failure. Under TLS 1.3 this is how a broker refuses a certificate.
    fn keep_back<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if is_hanging_up(&error) => {
                self.hung_up = Some(error);
                Poll::Pending
            }
            written => written,
        }
    }
}

fn is_hanging_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
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
            let count = match ready!(stream.poll_read(context, this.sieve.room())) {
                Ok(count) => count,
                Err(error) if is_hanging_up(&error) && this.hung_up.is_some() => 0,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if count == 0 {
                this.sieve.finish();
                let count = this.sieve.take(out);
                return Poll::Ready(match this.hung_up.take_if(|_| count == 0) {
                    Some(error) => Err(error),
                    None => Ok(count),
                });
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
        if self.hung_up.is_some() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.keep_back(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.hung_up.is_some() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.keep_back(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hung_up.is_some() {
            return Poll::Pending;
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.keep_back(flushed)
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt};

    use super::*;

    /// A broker that has hung up: writing fails, and reading gives these in turn; after the last it
    /// waits.
    struct HungUp(VecDeque<io::Result<&'static [u8]>>);

    impl AsyncRead for HungUp {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.0.pop_front().map_or(Poll::Pending, |next| {
                Poll::Ready(next.map(|bytes| {
                    out[..bytes.len()].copy_from_slice(bytes);
                    bytes.len()
                }))
            })
        }
    }

    impl AsyncWrite for HungUp {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn hung_up(reads: impl IntoIterator<Item = io::Result<&'static [u8]>>) -> Sifted<HungUp> {
        Sifted {
            stream: HungUp(reads.into_iter().collect()),
            sieve: Sieve::new(0),
            name: String::new(),
            said: false,
            hung_up: None,
        }
    }

    #[test]
    fn what_the_broker_said_before_it_hung_up_is_read_before_a_write_fails() {
        let alert = || io::Error::new(io::ErrorKind::InvalidData, "certificate required");
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let last_words: [(Vec<io::Result<&[u8]>>, io::ErrorKind); 4] = [
            (vec![Err(alert())], io::ErrorKind::InvalidData),
            (vec![Ok(&[8, 0]), Err(alert())], io::ErrorKind::InvalidData),
            (vec![Ok(&[])], io::ErrorKind::BrokenPipe),
            (vec![Err(reset())], io::ErrorKind::BrokenPipe),
        ];
        for (reads, expected) in last_words {
            let mut stream = hung_up(reads);
            assert!(stream.flush().now_or_never().is_none(), "not known yet");
            let read = stream.read(&mut [0; 16]).now_or_never().unwrap();
            assert_eq!(read.unwrap_err().kind(), expected);
        }
    }

    #[test]
    fn frames_that_came_before_it_hung_up_reach_the_client_library() {
        const HEARTBEAT: &[u8] = &[8, 0, 0, 0, 0, 0, 0, 0xce];
        let mut stream = hung_up([Ok(HEARTBEAT), Ok(HEARTBEAT), Ok(&[])]);
        assert!(stream.write(b"AMQP").now_or_never().is_none());
        let mut all = Vec::new();
        let read = stream.read_to_end(&mut all).now_or_never().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(all, HEARTBEAT.repeat(2));
    }
}
