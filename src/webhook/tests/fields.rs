//! Every field that the mapping reads, written down a second time: what it must be, and values
//! that are right or wrong for it.

use crate::webhook::EventType;

/// What a field must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Object,
    Id,
    Text,
    Number,
    Integer,
    Boolean,
    Time,
    Status,
    Array,
    FullArray,
    TextOrNumber,
    DateOrTime,
}

use Kind::*;

/// The fields that almost every event needs besides its own.
pub(super) const CASE: &[(&str, Kind)] = &[
    ("data", Object),
    ("data.case", Object),
    ("data.case.id", Id),
];

/// The required fields of each event's data, besides those of the case.
pub(super) const REQUIRED: &[(EventType, &[(&str, Kind)])] = &[
    (
        EventType::CaseStatusUpdated,
        &[
            ("data.status", Object),
            ("data.status.name", Text),
            ("data.status.key", Text),
            ("data.status.createdAt", Time),
            ("data.status.updatedAt", Time),
        ],
    ),
    (
        EventType::CaseCostProposalCreated,
        &[
            ("data.costProposal", Object),
            ("data.costProposal.id", Integer),
            ("data.costProposal.name", Text),
            ("data.costProposal.priceNet", Number),
            ("data.costProposal.currency", Text),
            ("data.costProposal.isActive", Boolean),
            ("data.costProposal.details", Array),
            ("data.costProposal.details[0].line", Number),
            ("data.costProposal.details[0].text", Text),
            ("data.costProposal.details[0].type", Text),
            ("data.costProposal.details[0].priceNet", Number),
            ("data.costProposal.details[0].quantity", Number),
            ("data.costProposal.createdAt", Time),
            ("data.costProposal.updatedAt", Time),
        ],
    ),
    (
        EventType::CaseMessageCreated,
        &[
            ("data.message", Object),
            ("data.message.id", Integer),
            ("data.message.sender", Id),
            ("data.message.content", Text),
            ("data.message.messageType", Text),
            ("data.message.createdAt", Time),
            ("data.message.updatedAt", Time),
        ],
    ),
    (
        EventType::CaseFileUploaded,
        &[
            ("data.files", FullArray),
            ("data.files[0].url", Text),
            ("data.files[0].name", Text),
        ],
    ),
    // With a claim.
    (
        EventType::ActivityUpdated,
        &[
            ("data.activity", Object),
            ("data.activity.id", Id),
            ("data.activity.templateId", Id),
            ("data.activity.status", Status),
        ],
    ),
    // Without.
    (
        EventType::ActivityCreated,
        &[
            ("data.contact", Object),
            ("data.contact.id", Id),
            ("data.activity", Object),
            ("data.activity.id", Id),
            ("data.activity.templateId", Id),
            ("data.activity.status", Status),
        ],
    ),
    (
        EventType::ClaimAttributeChanged,
        &[
            ("data.claim", Object),
            ("data.claim.id", Id),
            ("data.attribute", Object),
            ("data.attribute.id", Id),
        ],
    ),
    (
        EventType::CaseAttributeChanged,
        &[
            ("data.contact", Object),
            ("data.contact.id", Id),
            ("data.attribute", Object),
            ("data.attribute.id", Id),
        ],
    ),
    (
        EventType::ContactAttributeChanged,
        &[
            ("data.contact", Object),
            ("data.contact.id", Id),
            ("data.company", Object),
            ("data.company.id", Id),
            ("data.attribute", Object),
            ("data.attribute.id", Id),
        ],
    ),
    (
        EventType::ActivityAttributeChanged,
        &[
            ("data.activity", Object),
            ("data.activity.id", Id),
            ("data.attribute", Object),
            ("data.attribute.id", Id),
        ],
    ),
    (
        EventType::ClaimStatusChanged,
        &[
            ("data.claim", Object),
            ("data.claim.id", Id),
            ("data.status", Object),
            ("data.status.id", Id),
            ("data.status.name", Text),
        ],
    ),
];

/// Fields that may be absent or null, but not wrong. (A claim is looked into wherever it is.)
pub(super) const OPTIONAL: &[(EventType, &[(&str, Kind)])] = &[
    (
        EventType::CaseStatusUpdated,
        &[("data.case.parties", Array), ("data.case.parties[0]", Id)],
    ),
    (
        EventType::CaseCostProposalCreated,
        &[
            ("data.costProposal.externalId", TextOrNumber),
            ("data.costProposal.dateValidUntil", DateOrTime),
            ("data.costProposal.reaction", Text),
            ("data.costProposal.comment", Text),
            ("data.costProposal.reactionDate", Time),
            ("data.costProposal.reactionName", Text),
        ],
    ),
    (
        EventType::ContactAttributeChanged,
        &[("data.case", Object), ("data.case.id", Id)],
    ),
    (EventType::ActivityCreated, &[("data.claim", Object)]),
    (
        EventType::ActivityUpdated,
        &[("data.claim", Object), ("data.claim.id", Id)],
    ),
];

/// Values of every type, right for some fields and wrong for others.
pub(super) const ALL: &[&str] = &[
    "{}",
    "[]",
    r#""""#,
    r#""text""#,
    r#""Open""#,
    r#""open""#,
    r#""2019-01-22""#,
    r#""2019-01-22T11:29:38.258Z""#,
    r#""2019-01-22T11:29:38+05:30""#,
    r#""2019-01-22T11:29:38""#,
    r#""2019-01-22T11:29Z""#,
    r#""2019-02-30T11:29:38Z""#,
    r#""2019-02-30""#,
    r#""2019-01-22 11:29:38Z""#,
    r#""a\nb""#,
    r#""\u0085""#,
    r#""\ud800""#,
    r#""\udfff x""#,
    "true",
    "false",
    "0",
    "-0",
    "5",
    "5.25",
    "5.0",
    "5e0",
];

impl Kind {
    /// Whether one of the values above is right for a field of this kind.
    pub(super) fn takes(self, json: &str) -> bool {
        let is_number = json.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        let is_text = json.starts_with('"') && !json.contains(r"\ud");
        let is_time = is_text && json.len() > 20 && json.contains("22T") && !json.contains("38\"");
        match self {
            Object | Array | FullArray => false,
            Id => is_text && !matches!(json, r#""""# | r#""a\nb""# | r#""\u0085""#),
            Text => is_text,
            Number => is_number,
            Integer => is_number && !json.contains(['.', 'e']),
            Boolean => matches!(json, "true" | "false"),
            Time => is_time,
            Status => json == r#""Open""#,
            TextOrNumber => is_text || is_number,
            DateOrTime => is_time || json == r#""2019-01-22""#,
        }
    }

    /// Wrong values: of the scalars above, and for containers the other type.
    pub(super) fn wrong_values(self) -> Vec<String> {
        let long = format!("\"{}\"", "é".repeat(65));
        let mut wrong: Vec<_> = ALL.iter().map(|json| (*json).to_owned()).collect();
        match self {
            Object => wrong.retain(|json| json != "{}"),
            Array => wrong.retain(|json| json != "[]"),
            Id => wrong.push(long),
            _ => {}
        }
        wrong.retain(|json| !self.takes(json));
        wrong
    }
}
