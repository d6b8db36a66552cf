//! The domain event as backend services publish it: decoding and checking of the CloudEvents
//! envelope. Pure: no I/O, no runtime. The data is checked where it is mapped, in
//! [`crate::webhook`].

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use serde_json::value::RawValue;

pub(crate) mod field;
mod time;
pub(crate) mod values;

#[cfg(test)]
mod tests;

pub use time::Gmt;

use field::Field;
use values::{Id, Name, Text};

/// The envelope of a domain event, borrowed from the bytes that it was decoded from.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The event's `id`.
    pub id: Cow<'a, str>,
    /// The event's `source`.
    pub source: Cow<'a, str>,
    /// The event's `type`, known to the catalogue or not.
    pub event_type: Cow<'a, str>,
    /// The event's `time`.
    pub time: Timestamp,
    /// The event's `time` as payloads state it.
    pub gmt: Gmt,
    /// The CloudEvents distributed-tracing attribute, if the event has a valid one.
    pub traceparent: Option<Cow<'a, str>>,
    /// The event's `data`, not looked into yet.
    pub data: Option<&'a RawValue>,
}

/// Why a domain event cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The class of the fault.
    pub reason: RejectionReason,
    /// One line for a person: the field, what is wrong with it, what is expected.
    pub detail: String,
}

/// The class of a fault in a domain event, as `hookbridge-reason` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionReason {
    /// Larger than `source.max_event_bytes`.
    TooLarge,
    /// Not UTF-8 or not JSON.
    NotJson,
    /// Not an object, or `specversion` is absent or not `"1.0"`.
    NotCloudEvents,
    /// A required field is absent or null.
    MissingField,
    /// A field has the wrong type or a wrong value.
    InvalidField,
    /// The catalogue has no such event type, and `source.unknown_events` is `reject`.
    UnknownType,
}

impl RejectionReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::TooLarge,
        Self::NotJson,
        Self::NotCloudEvents,
        Self::MissingField,
        Self::InvalidField,
        Self::UnknownType,
    ];

    /// The word for it in `hookbridge-reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::NotCloudEvents => "not_cloudevents",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::UnknownType => "unknown_type",
        }
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rejection {
    /// The rejection of an event whose type the catalogue does not have.
    pub fn unknown_type(event_type: &str) -> Self {
        const LIMIT: usize = 64;
        let shown: String = event_type.chars().take(LIMIT).collect();
        let dots = if shown.len() < event_type.len() {
            "…"
        } else {
            ""
        };
        Self {
            reason: RejectionReason::UnknownType,
            detail: format!(
                "type is {shown:?}{dots}: expected one that `hookbridge events` lists, or \
                 source.unknown_events = \"ignore\""
            ),
        }
    }

    fn new(reason: RejectionReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// Decodes the envelope of a domain event and checks everything but its data.
pub fn decode(body: &[u8], max_event_bytes: usize) -> Result<Envelope<'_>, Rejection> {
    if body.len() > max_event_bytes {
        let detail = format!(
            "the event has {} bytes: expected at most {max_event_bytes} (source.max_event_bytes)",
            body.len()
        );
        return Err(Rejection::new(RejectionReason::TooLarge, detail));
    }
    let [specversion, id, source, event_type, time, traceparent, data] = attributes(
        body,
        [
            "specversion",
            "id",
            "source",
            "type",
            "time",
            "traceparent",
            "data",
        ],
    )?;
    check_specversion(specversion)?;

    let Id(id) = Field::attribute("id", id).read()?;
    let Name(source) = Field::attribute("source", source).read()?;
    let Name(event_type) = Field::attribute("type", event_type).read()?;
    let gmt: Gmt = Field::attribute("time", time).read()?;
    // Tracing is a courtesy: no event is refused for a wrong traceparent.
    let traceparent = Field::attribute("traceparent", traceparent)
        .read::<Text<'_>>()
        .ok()
        .filter(|value| is_traceparent(value));
    Ok(Envelope {
        id,
        source,
        event_type,
        time: gmt.timestamp(),
        gmt,
        traceparent,
        data,
    })
}

/// The attributes with these names, raw, once the body is known to be one JSON object.
fn attributes<'a, const N: usize>(
    body: &'a [u8],
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], Rejection> {
    let not_json = |detail| Rejection::new(RejectionReason::NotJson, detail);
    let text = std::str::from_utf8(body).map_err(|error| {
        not_json(format!(
            "the event is not UTF-8 from byte {} on: expected JSON",
            error.valid_up_to()
        ))
    })?;
    let syntax = |error: serde_json::Error| {
        not_json(format!(
            "the event is not JSON: {error}: expected one JSON object"
        ))
    };
    if text.trim_ascii_start().starts_with('{') {
        return field::members(text, names).map_err(syntax);
    }
    let value: &RawValue = serde_json::from_str(text).map_err(syntax)?;
    Err(Rejection::new(
        RejectionReason::NotCloudEvents,
        format!(
            "the event {}: expected a CloudEvents 1.0 object",
            field::wrong_type(value)
        ),
    ))
}

fn check_specversion(raw: Option<&RawValue>) -> Result<(), Rejection> {
    match Field::attribute("specversion", raw).read::<Text<'_>>() {
        Ok(version) if version == "1.0" => Ok(()),
        Ok(_) => Err("specversion is another than the one supported: expected \"1.0\"".to_owned()),
        Err(rejection) => Err(format!("{}, \"1.0\"", rejection.detail)),
    }
    .map_err(|detail| Rejection::new(RejectionReason::NotCloudEvents, detail))
}

/// Whether a text is a W3C `traceparent`. Of versions still to come only what version 00 has is
/// understood; more fields may follow.
pub fn is_traceparent(text: &str) -> bool {
    let hex = |part: &[u8]| part.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let not_zero = |part: &[u8]| part.iter().any(|c| *c != b'0');
    let Some((known, more)) = text.as_bytes().split_first_chunk::<55>() else {
        return false;
    };
    let (version, trace, parent, flags) =
        (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    [known[2], known[35], known[52]] == [b'-'; 3]
        && [version, trace, parent, flags].into_iter().all(hex)
        && version != b"ff"
        && not_zero(trace)
        && not_zero(parent)
        && match more {
            [] => true,
            // It becomes a header, so what is not understood must at least be short and printable.
            [b'-', more @ ..] => {
                version != b"00" && more.len() <= 128 && more.iter().all(u8::is_ascii_graphic)
            }
            _ => false,
        }
}
