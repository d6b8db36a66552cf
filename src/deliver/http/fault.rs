//! Tells the reason of a failed request from the types of its causes, never from their text.

use std::{error::Error, io, iter};

use crate::{
    deliver::guard::{Forbidden, ResolveError},
    delivery::{Failure, Reason},
    lack::Lack,
};

/// How a request ended that the endpoint did not accept.
pub(super) enum Ended {
    Failed(Failure),
    /// It could not be sent for want of this; and how that showed.
    Wanting(Lack, String),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What the bridge itself lacked for the request, if that is what it failed of.
pub(super) fn lack(error: &(dyn Error + 'static)) -> Option<Lack> {
    causes(error).find_map(|cause| {
        if let Some(ResolveError::Dns(error)) = cause.downcast_ref() {
            return Lack::of(error);
        }
        cause.downcast_ref().and_then(Lack::of)
    })
}

/// The failure that `error` is, which came before any answer. `connecting`: before the request
/// was written, too.
pub(super) fn failure(error: &(dyn Error + 'static), connecting: bool) -> Failure {
    let root = root(error);
    let reason = causes(error)
        .find_map(reason)
        .unwrap_or(match io_kind(error) {
            Some(io::ErrorKind::TimedOut) => Reason::Timeout,
            _ if causes(error).any(is_timeout) => Reason::Timeout,
            // The TCP connection was there, and ended inside the handshake.
            Some(io::ErrorKind::UnexpectedEof) if connecting => Reason::Tls,
            _ if connecting => Reason::Connect,
            _ => Reason::Protocol,
        });
    let detail = match reason {
        Reason::TargetForbidden | Reason::Dns => root.to_string(),
        Reason::Tls => format!("TLS failed: {root}"),
        Reason::Connect | Reason::Timeout if connecting => format!("cannot connect: {root}"),
        _ => format!("no valid answer: {root}"),
    };
    Failure::new(reason, detail)
}

/// The cause behind all others: the outer ones only say that something went wrong, and may quote
/// the URL.
pub(super) fn root<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

fn reason(cause: &(dyn Error + 'static)) -> Option<Reason> {
    if let Some(unresolved) = cause.downcast_ref::<ResolveError>() {
        return Some(match unresolved {
            ResolveError::Dns(_) => Reason::Dns,
            ResolveError::Forbidden(_) => Reason::TargetForbidden,
        });
    }
    if cause.is::<Forbidden>() {
        return Some(Reason::TargetForbidden);
    }
    cause.is::<rustls::Error>().then_some(Reason::Tls)
}

fn is_timeout(cause: &(dyn Error + 'static)) -> bool {
    let request = cause.downcast_ref::<reqwest::Error>();
    request.is_some_and(reqwest::Error::is_timeout)
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .last()
        .map(io::Error::kind)
}

/// The error and its causes, outermost first.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    iter::successors(Some(error), |error| cause(*error))
}

fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // An I/O error passes over the error that it wraps when asked for its source.
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match wrapped {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}
