//! The table of domain event types and webhook types.

use std::fmt;

/// A domain event type that the bridge knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// `case.status.updated`
    CaseStatusUpdated,
    /// `case.cost_proposal.created`
    CaseCostProposalCreated,
    /// `case.message.created`
    CaseMessageCreated,
    /// `case.file.uploaded`
    CaseFileUploaded,
    /// `activity.created`
    ActivityCreated,
    /// `activity.updated`
    ActivityUpdated,
    /// `claim.attribute.changed`
    ClaimAttributeChanged,
    /// `case.attribute.changed`
    CaseAttributeChanged,
    /// `contact.attribute.changed`
    ContactAttributeChanged,
    /// `activity.attribute.changed`
    ActivityAttributeChanged,
    /// `claim.status.changed`
    ClaimStatusChanged,
}

impl EventType {
    /// Every event type, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::CaseStatusUpdated,
        Self::CaseCostProposalCreated,
        Self::CaseMessageCreated,
        Self::CaseFileUploaded,
        Self::ActivityCreated,
        Self::ActivityUpdated,
        Self::ClaimAttributeChanged,
        Self::CaseAttributeChanged,
        Self::ContactAttributeChanged,
        Self::ActivityAttributeChanged,
        Self::ClaimStatusChanged,
    ];

    /// The CloudEvents `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::CaseStatusUpdated => "case.status.updated",
            Self::CaseCostProposalCreated => "case.cost_proposal.created",
            Self::CaseMessageCreated => "case.message.created",
            Self::CaseFileUploaded => "case.file.uploaded",
            Self::ActivityCreated => "activity.created",
            Self::ActivityUpdated => "activity.updated",
            Self::ClaimAttributeChanged => "claim.attribute.changed",
            Self::CaseAttributeChanged => "case.attribute.changed",
            Self::ContactAttributeChanged => "contact.attribute.changed",
            Self::ActivityAttributeChanged => "activity.attribute.changed",
            Self::ClaimStatusChanged => "claim.status.changed",
        }
    }

    /// The event type with this CloudEvents `type`, if the catalogue has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Which fields of the event its webhook is made from, for a person: `time`, and those in
    /// `data`.
    pub fn made_from(self) -> &'static str {
        match self {
            Self::CaseStatusUpdated => {
                "case.id, status.name, status.key, status.createdAt, status.updatedAt"
            }
            Self::CaseCostProposalCreated => "case.id, costProposal.*",
            Self::CaseMessageCreated => "case.id, message.* (the sender is required and not sent)",
            Self::CaseFileUploaded => "case.id, files[].url, files[].name",
            Self::ActivityCreated | Self::ActivityUpdated => {
                "time, case.id, claim.id (or else contact.id), activity.*"
            }
            Self::ClaimAttributeChanged => "time, case.id, claim.id, attribute.id",
            Self::CaseAttributeChanged => "time, case.id, contact.id, attribute.id",
            Self::ContactAttributeChanged => {
                "time, contact.id, company.id, attribute.id (the case is optional and not sent)"
            }
            Self::ActivityAttributeChanged => "time, case.id, activity.id, attribute.id",
            Self::ClaimStatusChanged => "time, case.id, claim.id, status.id, status.name",
        }
    }

    /// The webhook that this event becomes.
    pub fn webhook(self) -> WebhookType {
        match self {
            Self::CaseStatusUpdated => WebhookType::StatusUpdate,
            Self::CaseCostProposalCreated => WebhookType::NewCostProposal,
            Self::CaseMessageCreated => WebhookType::NewMessage,
            Self::CaseFileUploaded => WebhookType::NewFileUploaded,
            Self::ActivityCreated | Self::ActivityUpdated => WebhookType::ActivityChange,
            Self::ClaimAttributeChanged => WebhookType::ClaimAttributeChange,
            Self::CaseAttributeChanged => WebhookType::CaseAttributeChange,
            Self::ContactAttributeChanged => WebhookType::ContactAttributeChange,
            Self::ActivityAttributeChanged => WebhookType::ActivityAttributeChange,
            Self::ClaimStatusChanged => WebhookType::ClaimStatusChange,
        }
    }
}

/// A documented webhook type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WebhookType {
    /// A case got a new status.
    StatusUpdate,
    /// A cost proposal was made.
    NewCostProposal,
    /// A message was sent between the parties of a case.
    NewMessage,
    /// Files were added to a case.
    NewFileUploaded,
    /// An activity was created or updated.
    ActivityChange,
    /// An attribute of a claim changed.
    ClaimAttributeChange,
    /// An attribute of a case changed.
    CaseAttributeChange,
    /// An attribute of a contact changed.
    ContactAttributeChange,
    /// An attribute of an activity changed.
    ActivityAttributeChange,
    /// A claim got a new status.
    ClaimStatusChange,
}

impl WebhookType {
    /// Every webhook type, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::StatusUpdate,
        Self::NewCostProposal,
        Self::NewMessage,
        Self::NewFileUploaded,
        Self::ActivityChange,
        Self::ClaimAttributeChange,
        Self::CaseAttributeChange,
        Self::ContactAttributeChange,
        Self::ActivityAttributeChange,
        Self::ClaimStatusChange,
    ];

    /// The documented name, as subscribers list it and receive it in `webhook-type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StatusUpdate => "StatusUpdate",
            Self::NewCostProposal => "NewCostProposal",
            Self::NewMessage => "NewMessage",
            Self::NewFileUploaded => "NewFileUploaded",
            Self::ActivityChange => "ActivityChange",
            Self::ClaimAttributeChange => "ClaimAttributeChange",
            Self::CaseAttributeChange => "CaseAttributeChange",
            Self::ContactAttributeChange => "ContactAttributeChange",
            Self::ActivityAttributeChange => "ActivityAttributeChange",
            Self::ClaimStatusChange => "ClaimStatusChange",
        }
    }

    /// The webhook type with this documented name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for WebhookType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
