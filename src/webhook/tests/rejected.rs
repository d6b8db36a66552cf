//! Each field of each event, taken away, nulled, or given every kind of wrong value, one at a
//! time: the reason and the field's path. The event's schema must say the same.

use jsonschema::Validator;
use serde_json::Value;

use super::{
    Node, decode_and_map, example,
    fields::{ALL, CASE, Kind, OPTIONAL, REQUIRED},
};
use crate::{
    event::RejectionReason::{self, InvalidField, MissingField},
    webhook::{EventType, schema::event_schema},
};

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
    for (path, kind) in [("id", Kind::Id), ("time", Kind::Time)] {
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
