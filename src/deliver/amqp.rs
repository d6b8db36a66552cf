//! Attempts over AMQP: to a queue or an exchange on the home broker or on the subscriber's own.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Undone,
    guard::{AddressGuard, ResolveError},
};
use crate::{
    broker::{
        connection::{ConnectError, DialError, Dialer, Resolver, TlsFiles, fixed_uri},
        pool::Source,
        publisher::PublishError,
        publishers::Publishers,
    },
    delivery::{Attempt, Delivery, Failure, Outcome, Reason, addressed},
    lack::Shortage,
    subscriber::{AmqpTarget, Subscriber, SubscriberId},
};

/// Connections to one subscriber's broker, however many subscribers share it, unless it allows fewer
/// channels on one than there are subscribers: each costs the bridge some hundred kilobytes.
const CONNECTIONS: usize = 1;
/// How often connections without a channel are closed.
const SWEEP: Duration = Duration::from_secs(30);

/// Sends webhooks over AMQP.
pub struct AmqpSender {
    home: Arc<Publishers<SubscriberId>>,
    outside: Mutex<HashMap<String, Arc<Publishers<SubscriberId>>>>,
    resolver: Resolver,
    tls: TlsFiles,
    tasks: TaskTracker,
}

impl AmqpSender {
    /// `home` publishes to the home broker; subscribers' own brokers are called only at addresses
    /// that `guard` lets through, and over TLS as `tls` says.
    pub fn new(
        home: Arc<Publishers<SubscriberId>>,
        guard: Arc<AddressGuard>,
        tls: TlsFiles,
        tasks: TaskTracker,
    ) -> Self {
        let resolver: Resolver = Arc::new(move |host, port| {
            let guard = guard.clone();
            Box::pin(async move {
                guard
                    .resolve(&host, port)
                    .await
                    .map_err(|error| match error {
                        // As it is, so that what the bridge itself lacks is found in it.
                        ResolveError::Dns(error) if let Some(code) = error.raw_os_error() => {
                            io::Error::from_raw_os_error(code)
                        }
                        other => io::Error::other(other),
                    })
            })
        });
        Self {
            home,
            outside: Mutex::default(),
            resolver,
            tls,
            tasks,
        }
    }

    /// Attempts a delivery.
    pub async fn send(
        &self,
        subscriber: &Subscriber,
        target: &AmqpTarget,
        delivery: &Delivery,
        attempt: Attempt,
    ) -> Result<Outcome, Undone> {
        let message =
            match addressed::message(subscriber, target, delivery, attempt, Timestamp::now()) {
                Ok(message) => message,
                Err(failure) => return Ok(Outcome::Failed(failure)),
            };
        let declare = addressed::declares(target);
        let Some(broker) = &target.broker else {
            let publisher = self.home.get(&subscriber.id, declare);
            let result = publisher.publish_one(message, subscriber.timeout).await;
            if let Err(error) = &result
                && let Some(shortage) = error.shortage()
            {
                return Err(Undone::Wanting(shortage));
            }
            return addressed::outcome(subscriber, true, &result).ok_or(Undone::HomeLost);
        };
        let publishers = self.outside(&broker.uri);
        let publisher = publishers.get(&subscriber.id, declare);
        // An alarm that ends meanwhile leaves the broker with everything that waited for its end.
        let blocked_at_first = publishers.source().blocked();
        let publish = publisher.publish_one(message, subscriber.timeout);
        // The subscriber's timeout covers the connection, too.
        let mut result = tokio::time::timeout(subscriber.timeout, publish)
            .await
            .unwrap_or(Err(PublishError::Timeout(subscriber.timeout)));
        if timed_out(&result) && (blocked_at_first || publishers.source().blocked()) {
            result = Err(PublishError::Blocked);
        }
        if let Err(error) = &result
            && let Some(Shortage { lack, detail }) = error.shortage()
        {
            let detail = subscriber.redact(&detail);
            return Err(Undone::Wanting(Shortage { lack, detail }));
        }
        if let Err(PublishError::Unavailable(error)) = &result {
            let detail = subscriber.redact(&error.to_string());
            return Ok(Outcome::Failed(Failure::new(unavailable(error), detail)));
        }
        addressed::outcome(subscriber, false, &result).ok_or(Undone::HomeLost)
    }

    /// The publishers of all subscribers with this broker.
    fn outside(&self, uri: &SecretString) -> Arc<Publishers<SubscriberId>> {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside
            .entry(uri.expose_secret().to_owned())
            .or_insert_with(|| {
                let source = self.source(uri.clone());
                Arc::new(Publishers::new(source, self.tasks.clone()))
            })
            .clone()
    }

    fn source(&self, uri: SecretString) -> Source {
        let dialer = Dialer {
            uri: fixed_uri(uri),
            tls: self.tls.clone(),
            resolver: self.resolver.clone(),
            name: "hookbridge".into(),
            large_frames: false,
        };
        Source::outside(dialer, CONNECTIONS)
    }

    /// Lets go of the publishers of subscribers that are not wanted any more. `wanted` is asked with
    /// the URI of the broker, or nothing for the home broker.
    pub fn retain(&self, wanted: impl Fn(&SubscriberId, Option<&str>) -> bool) {
        self.home.retain(|id| wanted(id, None));
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.retain(|uri, publishers| {
            publishers.retain(|id| wanted(id, Some(uri)));
            !publishers.is_empty()
        });
    }

    /// Closes idle connections to subscribers' brokers until `stop`, and then all.
    pub async fn sweep(&self, stop: CancellationToken) {
        while tokio::time::timeout(SWEEP, stop.cancelled()).await.is_err() {
            for publishers in self
                .outside
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
            {
                publishers.source().close_if_idle();
            }
        }
        for (_, publishers) in self
            .outside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
        {
            publishers.source().close();
        }
    }
}

/// Whether the broker did not answer in time: to the publish, or to the channel for it.
fn timed_out(result: &Result<(), PublishError>) -> bool {
    match result {
        Err(PublishError::Timeout(_)) => true,
        Err(PublishError::Unavailable(error)) => matches!(**error, ConnectError::Timeout { .. }),
        _ => false,
    }
}

/// Why a subscriber's broker could not be connected to.
fn unavailable(error: &ConnectError) -> Reason {
    match error {
        ConnectError::Timeout { .. } => Reason::Timeout,
        ConnectError::Uri(_) | ConnectError::File { .. } => Reason::Protocol,
        ConnectError::Dial(DialError::Resolve { error, .. }) => {
            if forbidden(error) {
                Reason::TargetForbidden
            } else {
                Reason::Dns
            }
        }
        ConnectError::Dial(DialError::Connect { error, .. }) => {
            if error.kind() == io::ErrorKind::TimedOut {
                Reason::Timeout
            } else {
                Reason::Connect
            }
        }
        ConnectError::Dial(DialError::Tls { .. }) => Reason::Tls,
        ConnectError::Broker(error) => match error.kind() {
            ErrorKind::ProtocolError(amqp) => match amqp.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => Reason::AccessRefused,
                _ => Reason::Protocol,
            },
            ErrorKind::IOError(io) if io.kind() == io::ErrorKind::TimedOut => Reason::Timeout,
            ErrorKind::IOError(io) if of_tls(io) => Reason::Tls,
            ErrorKind::ParsingError(_)
            | ErrorKind::InvalidProtocolVersion(_)
            | ErrorKind::SerialisationError(_) => Reason::Protocol,
            _ => Reason::Connect,
        },
    }
}

/// Whether it comes of TLS: since version 1.3 a broker judges our certificate when the handshake is
/// over for us.
fn of_tls(error: &io::Error) -> bool {
    let cause = error.get_ref();
    cause.is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some())
}

/// Whether it was the guard that gave no address.
fn forbidden(error: &io::Error) -> bool {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<ResolveError>());
    matches!(cause, Some(ResolveError::Forbidden(_)))
}
