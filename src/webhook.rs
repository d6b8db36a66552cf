//! The documented webhooks: what each domain event becomes. Pure: no I/O, no runtime.

use bytes::Bytes;
use jiff::Timestamp;

pub mod catalogue;

pub use catalogue::{EventType, WebhookType};

use crate::event::{Envelope, Rejection};

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
    let _ = (event_type, envelope);
    unimplemented!()
}
