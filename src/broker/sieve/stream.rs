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
        failed: None,
    })
}

/// A stream that gives what it reads through a sieve. What is written passes as it is.
#[derive(Debug)]
pub(in crate::broker) struct Sifted<S> {
    stream: S,
    sieve: Sieve,
    name: String,
    said: bool,
    /// Why writing failed, until the broker's own last words are read.
    failed: Option<io::Error>,
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

impl<S: AsyncRead + Unpin> Sifted<S> {
    /// What `write` comes to, once it is known why it failed: a broker that hangs up says why just
    /// before, and what is written meanwhile fails with "connection reset" while its reason is yet to
    /// be read. Under TLS 1.3 this is how a broker refuses a certificate.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed.is_none() {
            match ready!(write(Pin::new(&mut self.stream), context)) {
                Err(error) if is_hanging_up(&error) => self.failed = Some(error),
                result => return Poll::Ready(result),
            }
        }
        let last = loop {
            match ready!(Pin::new(&mut self.stream).poll_read(context, self.sieve.room())) {
                Ok(0) => break None,
                Ok(count) => self.sieve.fill(count)?,
                Err(error) if is_hanging_up(&error) => break None,
                Err(error) => break Some(error),
            }
        };
        let failed = self.failed.take();
        let error = last.or(failed);
        Poll::Ready(Err(
            error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
        ))
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Sifted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.judge(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.judge(context, |stream, context| {
            stream.poll_write_vectored(context, slices)
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.judge(context, AsyncWrite::poll_flush)
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

    use futures_util::{AsyncWriteExt, FutureExt, task::noop_waker_ref};

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
            failed: None,
        }
    }

    #[test]
    fn a_failed_write_tells_what_the_broker_said_before_it_hung_up() {
        let alert = || io::Error::new(io::ErrorKind::InvalidData, "certificate required");
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let last_words: [(Vec<io::Result<&[u8]>>, io::ErrorKind); 4] = [
            (vec![Err(alert())], io::ErrorKind::InvalidData),
            (vec![Ok(&[8, 0]), Err(alert())], io::ErrorKind::InvalidData),
            (vec![Ok(&[])], io::ErrorKind::BrokenPipe),
            (vec![Err(reset())], io::ErrorKind::BrokenPipe),
        ];
        for (reads, expected) in last_words {
            let flushed = hung_up(reads).flush().now_or_never().unwrap();
            assert_eq!(flushed.unwrap_err().kind(), expected);
        }
    }

    #[test]
    fn last_words_that_are_on_their_way_are_waited_for() {
        let mut stream = hung_up([]);
        let mut context = Context::from_waker(noop_waker_ref());
        let written = Pin::new(&mut stream).poll_write(&mut context, b"AMQP");
        assert!(written.is_pending(), "nothing is known yet");
        stream.stream.0.push_back(Ok(&[]));
        let written = Pin::new(&mut stream).poll_write(&mut context, b"AMQP");
        let Poll::Ready(Err(error)) = written else {
            panic!("{written:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
