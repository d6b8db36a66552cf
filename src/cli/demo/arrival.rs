//! What came to a subscriber, and whether it is what it must be.

use std::collections::HashMap;

use anyhow::Context;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use standardwebhooks::Webhook;
use tokio::time::Instant;

use super::cast::{CAST, Member};
use crate::{delivery::webhook_id, webhook::examples::EXAMPLES};

/// The headers that say which webhook it is, over HTTP and AMQP alike.
pub(super) const HEADERS: [&str; 5] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-type",
    "webhook-attempt",
    "webhook-signature",
];

/// A webhook as a subscriber got it.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Who got it.
    pub(super) member: &'static Member,
    /// When.
    pub(super) at: Instant,
    /// The headers of the request or the message.
    pub(super) headers: HeaderMap,
    /// The payload.
    pub(super) body: Bytes,
    /// The status that an endpoint answered; a message taken from a queue has none.
    pub(super) status: Option<u16>,
}

impl Arrival {
    /// Whether the subscriber took it.
    pub(super) fn taken(&self) -> bool {
        self.status
            .is_none_or(|status| (200..300).contains(&status))
    }

    /// A header, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Which attempt it says that it is.
    pub(super) fn attempt(&self) -> u8 {
        self.header("webhook-attempt").parse().unwrap_or_default()
    }
}

/// What is known of an example before it is published.
#[derive(Debug)]
pub(super) struct Known {
    /// Its CloudEvents id.
    pub(super) id: String,
    /// Its source, which is a part of every webhook id made from it.
    source: String,
    payload: String,
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    source: String,
}

/// Knows what must arrive.
pub(super) struct Judge {
    /// The examples, in their order.
    pub(super) examples: Vec<Known>,
    /// The example and the subscriber that each webhook id stands for.
    ids: HashMap<String, (usize, &'static str)>,
    /// The secret of each subscriber, in the order of the cast.
    secrets: Vec<String>,
}

/// What an arrival was found to be.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The index of the example that it was made from.
    pub(super) example: Option<usize>,
    /// Whether the signature is the subscriber's.
    pub(super) signed: bool,
    /// What is wrong, a line each.
    pub(super) wrong: Vec<String>,
}

impl Judge {
    /// A judge for subscribers with these secrets.
    pub(super) fn new(secrets: Vec<String>) -> anyhow::Result<Self> {
        let mut examples = Vec::new();
        let mut ids = HashMap::new();
        for (index, example) in EXAMPLES.iter().enumerate() {
            let Envelope { id, source } =
                serde_json::from_str(example.event).context(example.name)?;
            for member in &CAST {
                let webhook = webhook_id(&source, &id, member.id).to_string();
                ids.insert(webhook, (index, member.id));
            }
            let payload = example.payload();
            examples.push(Known {
                id,
                source,
                payload,
            });
        }
        Ok(Self {
            examples,
            ids,
            secrets,
        })
    }

    /// The webhook id that `member` must see on the example with this index.
    pub(super) fn webhook_id(&self, example: usize, member: &Member) -> String {
        let known = &self.examples[example];
        webhook_id(&known.source, &known.id, member.id).to_string()
    }

    /// Judges an arrival.
    pub(super) fn judge(&self, arrival: &Arrival) -> Verdict {
        let mut verdict = Verdict::default();
        let member = arrival.member;
        let verified = self.verify(arrival);
        verdict.signed = verified.is_ok();
        if let Err(error) = verified {
            verdict.wrong.push(format!("the signature: {error:#}"));
        }
        match self.ids.get(arrival.header("webhook-id")) {
            Some((index, id)) if *id == member.id => {
                verdict.example = Some(*index);
                if arrival.body != self.examples[*index].payload {
                    verdict
                        .wrong
                        .push("the payload is not the documented one".to_owned());
                }
            }
            Some((_, id)) => verdict.wrong.push(format!("it is for {id}")),
            None => verdict
                .wrong
                .push("no example has this webhook id".to_owned()),
        }
        verdict
    }

    fn verify(&self, arrival: &Arrival) -> anyhow::Result<()> {
        let position = CAST
            .iter()
            .position(|member| member.id == arrival.member.id);
        let secret = position.and_then(|position| self.secrets.get(position));
        let secret = secret.context("the subscriber has no secret")?;
        Ok(Webhook::new(secret)?.verify(&arrival.body, &arrival.headers)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_webhook_with_its_own_signature_passes() {
        let judge = Judge::new(super::super::stage::secrets()).unwrap();
        let arrival = |secret: usize, body: &str| {
            let id = judge.webhook_id(0, &CAST[0]);
            let now = jiff::Timestamp::now().as_second();
            let signer = Webhook::new(&judge.secrets[secret]).unwrap();
            let signature = signer.sign(&id, now, body.as_bytes()).unwrap();
            let headers = [
                ("webhook-id", id),
                ("webhook-timestamp", now.to_string()),
                ("webhook-signature", signature),
            ];
            let headers =
                headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            Arrival {
                member: &CAST[0],
                at: Instant::now(),
                headers: headers.into_iter().collect(),
                body: body.to_owned().into(),
                status: Some(200),
            }
        };
        let payload = EXAMPLES[0].payload();
        let sound = judge.judge(&arrival(0, &payload));
        assert!(sound.signed && sound.wrong.is_empty(), "{sound:?}");
        assert_eq!(sound.example, Some(0));
        assert!(!judge.judge(&arrival(1, &payload)).signed);
        let other = judge.judge(&arrival(0, "{}"));
        assert_eq!(other.wrong, ["the payload is not the documented one"]);
        let stranger = Arrival {
            member: &CAST[1],
            ..arrival(0, &payload)
        };
        assert!(
            judge
                .judge(&stranger)
                .wrong
                .contains(&"it is for northwind-hub".to_owned())
        );
    }
}
