//! The documented examples: a domain event and the webhook that it becomes, for each event type.
//! The tests hold the mapping to them, and the demo publishes them.

use super::EventType;

/// A documented domain event and its webhook, as they are printed in the documentation.
#[derive(Debug)]
pub struct Example {
    /// What its files are called: number and webhook.
    pub name: &'static str,
    /// Which event it is.
    pub event_type: EventType,
    /// The domain event, as JSON.
    pub event: &'static str,
    /// The webhook's payload, as JSON with white space for people.
    pub webhook: &'static str,
}

impl Example {
    /// The payload as it is sent: without white space between its parts.
    pub fn payload(&self) -> String {
        let (mut in_text, mut escaped) = (false, false);
        let kept = |c: &char| {
            let keep = in_text || !c.is_ascii_whitespace();
            in_text ^= *c == '"' && !escaped;
            escaped = in_text && *c == '\\' && !escaped;
            keep
        };
        self.webhook.chars().filter(kept).collect()
    }
}

macro_rules! example {
    ($event_type:ident, $name:literal) => {
        Example {
            name: $name,
            event_type: EventType::$event_type,
            event: include_str!(concat!("../../tests/examples/", $name, ".event.json")),
            webhook: include_str!(concat!("../../tests/examples/", $name, ".webhook.json")),
        }
    };
}

/// Every documented example, in the order of the documentation.
pub const EXAMPLES: [Example; 11] = [
    example!(CaseStatusUpdated, "01-status-update"),
    example!(CaseCostProposalCreated, "02-new-cost-proposal"),
    example!(CaseMessageCreated, "03-new-message"),
    example!(CaseFileUploaded, "04-new-file-uploaded"),
    example!(ActivityUpdated, "05-activity-change-claim"),
    example!(ActivityCreated, "06-activity-change-case"),
    example!(ClaimAttributeChanged, "07-claim-attribute-change"),
    example!(ContactAttributeChanged, "08-contact-attribute-change"),
    example!(CaseAttributeChanged, "09-case-attribute-change"),
    example!(ActivityAttributeChanged, "10-activity-attribute-change"),
    example!(ClaimStatusChanged, "11-claim-status-change"),
];
