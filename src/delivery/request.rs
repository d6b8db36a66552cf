//! What says which webhook a request or message carries, and proves who sent it: the headers that
//! HTTP and AMQP targets get alike. Pure; the caller brings the clock.

use jiff::Timestamp;
use secrecy::ExposeSecret;
use standardwebhooks::Webhook;

use crate::{
    delivery::{Attempt, Delivery, Failure, Reason},
    subscriber::Subscriber,
};

#[cfg(test)]
pub(crate) mod tests;

/// The webhook headers of one attempt, in the documented order: name and value.
///
/// `now` is the time of this attempt: it is what `webhook-timestamp` says, in seconds, and part of
/// what is signed, so a receiver may refuse an old one although the delivery waited for its retry.
///
/// # Errors
/// A [`Reason::Protocol`] failure if the webhook cannot be signed, without the secret in it.
pub fn webhook_headers(
    subscriber: &Subscriber,
    delivery: &Delivery,
    attempt: Attempt,
    now: Timestamp,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let id = delivery.webhook_id.to_string();
    let timestamp = now.as_second();
    let signature = signature(subscriber, &id, timestamp, &delivery.payload)?;
    let mut headers = vec![
        ("webhook-id", id),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-type", delivery.kind.name().to_owned()),
        ("webhook-attempt", attempt.number().to_string()),
    ];
    headers.extend(signature.map(|value| ("webhook-signature", value)));
    // The publisher wrote it. One that no header can carry must not cost the subscriber a webhook.
    let traceparent = delivery.traceparent.as_ref();
    headers.extend(
        traceparent
            .filter(|value| value.bytes().all(|b| b.is_ascii_graphic()))
            .map(|value| ("traceparent", value.clone())),
    );
    Ok(headers)
}

/// One signature for each secret, so that a receiver can verify with the old or the new one while
/// they are being exchanged; `None` without a secret.
fn signature(
    subscriber: &Subscriber,
    id: &str,
    timestamp: i64,
    payload: &[u8],
) -> Result<Option<String>, Failure> {
    let signatures = subscriber
        .signing_secrets
        .iter()
        .map(|secret| Webhook::new(secret.expose_secret())?.sign(id, timestamp, payload))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            Failure::new(
                Reason::Protocol,
                format!("the webhook cannot be signed: {}", plain(&error)),
            )
        })?;
    Ok((!signatures.is_empty()).then(|| signatures.join(" ")))
}

/// The error without its cause: that of a secret quotes a byte of it.
fn plain(error: &standardwebhooks::WebhookError) -> &'static str {
    match error {
        standardwebhooks::WebhookError::InvalidSecret(_) => {
            "a signing secret is not `whsec_` and base64"
        }
        standardwebhooks::WebhookError::InvalidPayload => "the payload is not UTF-8",
        _ => "the signing library refuses it",
    }
}
