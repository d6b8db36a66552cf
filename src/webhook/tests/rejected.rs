//! Each field of each event, taken away, nulled, or given every kind of wrong value, one at a
//! time: the reason and the field's path. The event's schema must say the same.

use jsonschema::Validator;
use serde_json::Value;

use super::{Node, decode_and_map, example};
use crate::{
    event::RejectionReason::{self, InvalidField, MissingField},
    webhook::{EventType, schema::event_schema},
};

/// What a field must be.
#[derive(Debug, Clone, Copy)]
enum Kind {
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

const CASE: &[(&str, Kind)] = &[
    ("data", Object),
    ("data.case", Object),
    ("data.case.id", Id),
];

/// The required fields of each event's data, besides those of the case.
const REQUIRED: &[(EventType, &[(&str, Kind)])] = &[
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
const OPTIONAL: &[(EventType, &[(&str, Kind)])] = &[
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

const ALL: &[&str] = &[
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
    fn takes(self, json: &str) -> bool {
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
    fn wrong_values(self) -> Vec<String> {
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

struct Checker {
    event_type: EventType,
    schema: Validator,
}

impl Checker {
    fn new(event_type: EventType) -> Self {
        let schema = jsonschema::options()
            .should_validate_formats(true)
            .build(&event_schema(event_type))
            .unwrap();
        Self { event_type, schema }
    }

    fn accepts(&self, event: &Node) {
        let event = event.to_string();
        if let Err(rejection) = decode_and_map(&event) {
            panic!("{} in {event}", rejection.detail);
        }
        self.schema_says(&event, true);
    }

    fn rejects(&self, event: &Node, reason: RejectionReason, path: &str) {
        let event = event.to_string();
        let Err(rejection) = decode_and_map(&event) else {
            panic!("{} without a right {path}: {event}", self.event_type);
        };
        assert_eq!(rejection.reason, reason, "{}: {event}", rejection.detail);
        let names_it = rejection.detail.starts_with(&format!("{path} "));
        assert!(names_it, "{} names not {path}: {event}", rejection.detail);
        assert!(rejection.detail.len() < 240, "{}", rejection.detail);
        self.schema_says(&event, false);
    }

    fn schema_says(&self, event: &str, valid: bool) {
        // A schema counts characters, cannot tell 5 from 5.0, and sees no half surrogate pairs.
        let is_beyond_it = ["éé", "5.0", "5e0"].iter().any(|part| event.contains(part));
        let Ok(value) = serde_json::from_str::<Value>(event) else {
            return;
        };
        if !is_beyond_it {
            let errors: Vec<_> = self.schema.iter_errors(&value).collect();
            assert_eq!(errors.is_empty(), valid, "{errors:?} for {event}");
        }
    }
}

fn parent(path: &str) -> &str {
    path.strip_suffix("[0]").unwrap_or(path)
}

#[test]
fn a_required_field_is_there_and_right() {
    for &(event_type, fields) in REQUIRED {
        let checker = Checker::new(event_type);
        let event = example(event_type);
        let case = match event_type {
            EventType::ContactAttributeChanged => &CASE[..1],
            _ => CASE,
        };
        for &(path, kind) in case.iter().chain(fields) {
            checker.rejects(&event.without(path), MissingField, path);
            checker.rejects(&event.with(path, "null"), MissingField, path);
            for wrong in kind.wrong_values() {
                checker.rejects(&event.with(path, &wrong), InvalidField, path);
            }
            for right in ALL.iter().filter(|json| kind.takes(json)) {
                checker.accepts(&event.with(path, right));
            }
        }
    }
}

#[test]
fn an_optional_field_may_be_absent_but_not_wrong() {
    for &(event_type, fields) in OPTIONAL {
        let checker = Checker::new(event_type);
        // Whatever a claim is, there is a contact to fall back on.
        let contact = r#"{"id":"k-1"}"#;
        let event = example(event_type).with("data.contact", contact);
        for &(path, kind) in fields {
            if path == parent(path) {
                let event = event.with(path, "null");
                checker.accepts(&event);
                checker.accepts(&event.without(path));
            }
            for wrong in kind.wrong_values() {
                checker.rejects(&event.with(path, &wrong), InvalidField, path);
            }
            for right in ALL.iter().filter(|json| kind.takes(json)) {
                checker.accepts(&event.with(path, right));
            }
        }
    }
}

#[test]
fn an_attribute_of_the_event_is_there_and_right() {
    let event = example(EventType::CaseStatusUpdated);
    let checker = Checker::new(EventType::CaseStatusUpdated);
    for (path, kind) in [("id", Id), ("time", Time)] {
        checker.rejects(&event.without(path), MissingField, path);
        checker.rejects(&event.with(path, "null"), MissingField, path);
        for wrong in kind.wrong_values() {
            checker.rejects(&event.with(path, &wrong), InvalidField, path);
        }
        for right in ALL.iter().filter(|json| kind.takes(json)) {
            checker.accepts(&event.with(path, right));
        }
    }
    for path in ["source", "type"] {
        checker.rejects(&event.without(path), MissingField, path);
        checker.rejects(&event.with(path, "null"), MissingField, path);
        for wrong in ["{}", "[]", r#""""#, r#""\ud800""#, "true", "5"] {
            checker.rejects(&event.with(path, wrong), InvalidField, path);
        }
    }
    checker.accepts(&event.with("source", r#""\n""#));
}

#[test]
fn every_item_of_an_array_is_right() {
    let checker = Checker::new(EventType::CaseFileUploaded);
    let event = example(EventType::CaseFileUploaded);
    let file = r#"{"url":"u","name":"n"}"#;
    for (item, reason, path) in [
        ("null", MissingField, "data.files[2]"),
        ("5", InvalidField, "data.files[2]"),
        ("[]", InvalidField, "data.files[2]"),
        ("{}", MissingField, "data.files[2].url"),
        (r#"{"url":"u"}"#, MissingField, "data.files[2].name"),
        (r#"{"url":7,"name":"n"}"#, InvalidField, "data.files[2].url"),
    ] {
        let files = format!("[{file},{file},{item}]");
        checker.rejects(&event.with("data.files", &files), reason, path);
    }
    let checker = Checker::new(EventType::CaseStatusUpdated);
    let event = example(EventType::CaseStatusUpdated);
    for (parties, reason, path) in [
        ("[null]", MissingField, "data.case.parties[0]"),
        (r#"["a",""]"#, InvalidField, "data.case.parties[1]"),
        (r#"["a",{}]"#, InvalidField, "data.case.parties[1]"),
    ] {
        checker.rejects(&event.with("data.case.parties", parties), reason, path);
    }
}

#[test]
fn a_status_is_one_of_the_eight_documented_words() {
    let checker = Checker::new(EventType::ActivityUpdated);
    let event = example(EventType::ActivityUpdated);
    for word in [
        "Unset",
        "Open",
        "Submitted",
        "UnderReview",
        "Accepted",
        "Rejected",
        "Deleted",
        "PartiallyAccepted",
    ] {
        checker.accepts(&event.with("data.activity.status", &format!("\"{word}\"")));
        let rejection = decode_and_map(&event.with("data.activity.status", "5").to_string());
        assert!(rejection.unwrap_err().detail.contains(word));
    }
    let object = event.with("data.activity.status", r#"{"Open":null}"#);
    checker.rejects(&object, InvalidField, "data.activity.status");
}

#[test]
fn a_detail_says_what_is_wrong_and_what_is_expected() {
    let event = example(EventType::CaseStatusUpdated);
    let detail = |path: &str, json: &str| {
        let rejection = decode_and_map(&event.with(path, json).to_string()).unwrap_err();
        rejection.detail
    };
    assert_eq!(
        detail("data.case.id", "42"),
        "data.case.id is a number (42): expected a string of 1 to 128 bytes without control \
         characters"
    );
    assert_eq!(
        detail("data.status.createdAt", r#""2019-01-22T11:29:38.258""#),
        "data.status.createdAt has no offset (\"2019-01-22T11:29:38.258…): expected an RFC 3339 \
         time with an offset, such as 2019-01-22T11:29:38.258Z"
    );
    assert_eq!(
        detail("data.status", "null"),
        "data.status is null: expected an object"
    );
    let secret = format!("\"{}\"", "s".repeat(10_000));
    assert!(detail("data.case.id", &secret).len() < 160);
}

#[test]
fn the_reasons_come_in_the_documented_order() {
    let event = example(EventType::CaseStatusUpdated).with("data", "7");
    let reason = |event: &Node| decode_and_map(&event.to_string()).unwrap_err().reason;
    assert_eq!(reason(&event), InvalidField);
    let event = event.with("type", r#""case.closed""#);
    assert_eq!(reason(&event), RejectionReason::UnknownType);
    let event = event.without("time");
    assert_eq!(reason(&event), MissingField);
    let event = event.with("specversion", r#""0.3""#);
    assert_eq!(reason(&event), RejectionReason::NotCloudEvents);
}
