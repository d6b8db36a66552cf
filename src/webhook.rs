//! The documented webhooks: what each domain event becomes. Pure: no I/O, no runtime.
//!
//! A family of payloads has a file of its own, with the payload's keys in the documented order,
//! where each value comes from, and the schema of the event's data.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

pub mod catalogue;
pub mod examples;
pub mod schema;

mod activity;
mod attribute;
mod case;
mod claim_status;
mod cost_proposal;
mod files;
mod message;
mod status;

#[cfg(test)]
mod tests;

pub use catalogue::{EventType, WebhookType};

use crate::event::{Envelope, Rejection, RejectionReason, field::Field, values::Micros};

/// One webhook made from one domain event, before it is addressed to anyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Which documented webhook this is.
    pub kind: WebhookType,
    /// The documented payload: compact JSON, keys in the documented order.
    pub payload: Bytes,
    /// When the event happened.
    pub time: Timestamp,
    /// What decides who may see it.
    pub audience: Audience,
}

/// What of a domain event decides who may see its webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// `data.case.id`; only a contact's attribute change may lack it.
    pub case: Option<String>,
    /// `data.case.parties`, without repetitions.
    pub parties: Vec<String>,
    /// `data.message.sender`: never receives this webhook. Set for `NewMessage` only.
    pub sender: Option<String>,
}

/// Maps the data of a decoded event to its webhook.
pub fn map(event_type: EventType, envelope: &Envelope<'_>) -> Result<Webhook, Rejection> {
    let data = Field::attribute("data", envelope.data);
    let timestamp = Micros(envelope.gmt);
    let kind = event_type.webhook();
    let Made { payload, audience } = match kind {
        WebhookType::StatusUpdate => status::map(&data),
        WebhookType::NewCostProposal => cost_proposal::map(&data),
        WebhookType::NewMessage => message::map(&data),
        WebhookType::NewFileUploaded => files::map(&data),
        WebhookType::ActivityChange => activity::map(&data, timestamp),
        WebhookType::ClaimAttributeChange => attribute::map_claim(&data, timestamp),
        WebhookType::CaseAttributeChange => attribute::map_case(&data, timestamp),
        WebhookType::ContactAttributeChange => attribute::map_contact(&data, timestamp),
        WebhookType::ActivityAttributeChange => attribute::map_activity(&data, timestamp),
        WebhookType::ClaimStatusChange => claim_status::map(&data, timestamp),
    }?;
    Ok(Webhook {
        kind,
        payload,
        time: envelope.time,
        audience,
    })
}

/// What a family makes of an event's data.
struct Made {
    payload: Bytes,
    audience: Audience,
}

impl Made {
    fn new(payload: &impl Serialize, audience: Audience) -> Result<Self, Rejection> {
        let mut json = Vec::with_capacity(512);
        match serde_json::to_writer(&mut json, payload) {
            Ok(()) => Ok(Self {
                payload: json.into(),
                audience,
            }),
            // No value of a payload fails to be written; if one ever does, the event is kept.
            Err(error) => Err(Rejection {
                reason: RejectionReason::InvalidField,
                detail: format!("data cannot be written as a webhook: {error}"),
            }),
        }
    }
}
