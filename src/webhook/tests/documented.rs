//! Accepted events become exactly the documented payload.

use jiff::Timestamp;

use super::{EXAMPLES, Node, decode_and_map, example, payload};
use crate::webhook::{Audience, EventType};

/// The value that the payload has for a top-level key, as it is written.
fn sent(event: &Node, key: &str) -> String {
    let Node::Object(pairs) = Node::parse(&payload(event)) else {
        panic!("the payload is no object");
    };
    let pair = pairs.into_iter().find(|(name, _)| name == key);
    pair.unwrap_or_else(|| panic!("no {key}")).1.to_string()
}

#[test]
fn every_example_becomes_its_webhook_byte_for_byte() {
    for example in &EXAMPLES {
        let webhook = decode_and_map(example.event).unwrap();
        let expected = Node::parse(example.webhook).to_string();
        assert_eq!(String::from_utf8_lossy(&webhook.payload), expected);
        assert_eq!(webhook.kind, example.event_type.webhook());
    }
}

#[test]
fn activities_created_and_updated_become_the_same_webhook() {
    let created = example(EventType::ActivityCreated);
    let updated = created.with("type", r#""activity.updated""#);
    assert_eq!(payload(&created), payload(&updated));
}

#[test]
fn the_order_of_an_events_fields_changes_nothing() {
    fn reverse(node: &mut Node) {
        if let Node::Object(pairs) = node {
            pairs.reverse();
            for (_, value) in pairs {
                reverse(value);
            }
        }
    }
    for example in &EXAMPLES {
        let mut event = Node::parse(example.event);
        reverse(&mut event);
        assert_eq!(payload(&event), Node::parse(example.webhook).to_string());
    }
}

#[test]
fn undocumented_fields_are_not_sent() {
    fn crowd(node: &mut Node) {
        match node {
            Node::Object(pairs) => {
                for (_, value) in pairs.iter_mut() {
                    crowd(value);
                }
                for key in ["secret", "guid", "timestamp", r"\ud800", "Id", " id"] {
                    let json = r#"{"secret": ["\udfff", 1e999, {"id": null}]}"#;
                    pairs.insert(0, (key.to_owned(), Node::Scalar(json.to_owned())));
                }
            }
            Node::Array(items) => items.iter_mut().for_each(crowd),
            Node::Scalar(_) => {}
        }
    }
    for example in &EXAMPLES {
        let mut event = Node::parse(example.event);
        crowd(&mut event);
        assert_eq!(payload(&event), Node::parse(example.webhook).to_string());
    }
}

#[test]
fn the_last_of_a_repeated_field_counts() {
    let event = example(EventType::CaseStatusUpdated).to_string();
    let event = event.replace(r#""key":"final""#, r#""key":5,"k\u0065y":"last""#);
    assert_eq!(sent(&Node::parse(&event), "key"), r#""last""#);
}

#[test]
fn numbers_keep_their_digits() {
    let event = example(EventType::CaseCostProposalCreated);
    let huge = "9".repeat(400);
    for number in [
        "280", "12.30", "0.1", "1e5", "1E+5", "-0", "-0.0", "1e999", "0.10e-07", &huge,
    ] {
        let changed = event
            .with("data.costProposal.priceNet", number)
            .with("data.costProposal.externalId", number)
            .with("data.costProposal.details[0].line", number)
            .with("data.costProposal.details[0].priceNet", number)
            .with("data.costProposal.details[0].quantity", number);
        assert_eq!(sent(&changed, "priceNet"), number);
        assert_eq!(sent(&changed, "externalId"), number);
        let detail = format!(
            r#"[{{"line":{number},"text":"Return unrepaired fee","type":"RUR","priceNet":{number},"quantity":{number}}}]"#
        );
        assert_eq!(sent(&changed, "details"), detail);
    }
    for integer in ["0", "-0", "-7", "18446744073709551616", &huge] {
        let changed = event.with("data.costProposal.id", integer);
        assert_eq!(sent(&changed, "id"), integer);
        let changed = example(EventType::CaseMessageCreated).with("data.message.id", integer);
        assert_eq!(sent(&changed, "id"), integer);
    }
}

#[test]
fn texts_arrive_as_they_were_meant() {
    let event = example(EventType::CaseMessageCreated);
    for (published, expected) in [
        (r#""""#, r#""""#),
        (r#""Grüße, 世界 🔧""#, r#""Grüße, 世界 🔧""#),
        (r#""\u00e9\ud83d\udd27\/""#, r#""é🔧/""#),
        (r#""a\"b\\c\n\u0000""#, r#""a\"b\\c\n\u0000""#),
    ] {
        let changed = event.with("data.message.content", published);
        assert_eq!(sent(&changed, "content"), expected);
    }
}

#[test]
fn a_cost_proposals_nullable_fields_are_sent_as_they_are_or_null() {
    let event = example(EventType::CaseCostProposalCreated);
    for key in [
        "externalId",
        "dateValidUntil",
        "reaction",
        "comment",
        "reactionDate",
        "reactionName",
    ] {
        let path = format!("data.costProposal.{key}");
        assert_eq!(sent(&event.without(&path), key), "null");
        assert_eq!(sent(&event.with(&path, "null"), key), "null");
    }
    for (key, published, expected) in [
        ("externalId", r#""A-7""#, r#""A-7""#),
        ("externalId", "7.0", "7.0"),
        ("reaction", r#""accepted""#, r#""accepted""#),
        ("comment", r#""""#, r#""""#),
        ("reactionName", r#""Kim""#, r#""Kim""#),
        (
            "reactionDate",
            r#""2019-12-31T23:30:00-01:00""#,
            r#""2020-01-01T00:30:00.000Z""#,
        ),
        ("dateValidUntil", r#""2019-12-31""#, r#""2019-12-31""#),
        (
            "dateValidUntil",
            r#""2019-12-31T00:30:00+01:00""#,
            r#""2019-12-30T23:30:00.000Z""#,
        ),
        (
            "dateValidUntil",
            r#""9999-12-31T23:59:59Z""#,
            r#""9999-12-31T23:59:59.000Z""#,
        ),
    ] {
        let changed = event.with(&format!("data.costProposal.{key}"), published);
        assert_eq!(sent(&changed, key), expected);
    }
}

#[test]
fn a_cost_proposal_may_have_no_details_or_many() {
    let event = example(EventType::CaseCostProposalCreated);
    let empty = event.with("data.costProposal.details", "[]");
    assert_eq!(sent(&empty, "details"), "[]");
    let detail = r#"{"line":1,"text":"","type":"x","priceNet":2,"quantity":3}"#;
    let two = format!("[{detail},{detail}]");
    let event = event.with("data.costProposal.details", &two);
    assert_eq!(sent(&event, "details"), two);
}

#[test]
fn times_are_sent_in_gmt_with_a_fixed_number_of_decimals() {
    for (published, millis, micros) in [
        (
            "2021-04-13T08:58:50Z",
            "2021-04-13T08:58:50.000Z",
            "2021-04-13T08:58:50.000000Z",
        ),
        (
            "2021-04-13T08:58:50.9999999999999Z",
            "2021-04-13T08:58:50.999Z",
            "2021-04-13T08:58:50.999999Z",
        ),
        (
            "2021-04-13t10:58:50.2322+02:00",
            "2021-04-13T08:58:50.232Z",
            "2021-04-13T08:58:50.232200Z",
        ),
        (
            "0000-02-28T23:59:59-00:01",
            "0000-02-29T00:00:59.000Z",
            "0000-02-29T00:00:59.000000Z",
        ),
    ] {
        let json = format!("\"{published}\"");
        let event = example(EventType::CaseStatusUpdated).with("data.status.createdAt", &json);
        assert_eq!(sent(&event, "createdAt"), format!("\"{millis}\""));
        let event = example(EventType::ActivityCreated).with("time", &json);
        assert_eq!(sent(&event, "timestamp"), format!("\"{micros}\""));
    }
}

#[test]
fn an_activity_without_a_claims_id_is_one_of_its_case() {
    let claim = example(EventType::ActivityUpdated);
    let with_contact = claim.with("data.contact", r#"{"id":"k-1"}"#);
    assert_eq!(payload(&with_contact), payload(&claim));
    for event in [
        with_contact.without("data.claim"),
        with_contact.with("data.claim", "null"),
        with_contact.with("data.claim", "{}"),
        with_contact.with("data.claim", r#"{"id":null}"#),
    ] {
        assert_eq!(sent(&event, "type"), r#""Case""#);
        assert_eq!(sent(&event, "contactId"), r#""k-1""#);
    }
    // With a claim nobody looks at the contact.
    assert_eq!(payload(&claim.with("data.contact", "7")), payload(&claim));
}

#[test]
fn the_audience_is_the_case_and_its_parties() {
    let audience = |event: &Node| decode_and_map(&event.to_string()).unwrap().audience;
    let event = example(EventType::CaseStatusUpdated);
    let case = Some("a7afaf9-7c6e-4d0e-b756-16b4afa1382f".to_owned());
    let of = |parties: &[&str]| Audience {
        case: case.clone(),
        parties: parties.iter().map(|&party| party.to_owned()).collect(),
        sender: None,
    };
    assert_eq!(audience(&event), of(&["northwind", "fixit"]));
    let repeated = event.with("data.case.parties", r#"["b", "a", "b", "\u0061"]"#);
    assert_eq!(audience(&repeated), of(&["b", "a"]));
    for event in [
        event.without("data.case.parties"),
        event.with("data.case.parties", "null"),
        event.with("data.case.parties", "[]"),
    ] {
        assert_eq!(audience(&event), of(&[]));
    }
    let message = audience(&example(EventType::CaseMessageCreated));
    assert_eq!(message.sender.as_deref(), Some("fixit"));
}

#[test]
fn a_contacts_case_decides_who_gets_the_webhook_and_may_be_absent() {
    let event = example(EventType::ContactAttributeChanged);
    let map = |event: &Node| decode_and_map(&event.to_string()).unwrap();
    let webhook = map(&event.with("data.case.parties", r#"["a"]"#));
    assert_eq!(webhook.audience.parties, ["a"]);
    assert!(webhook.audience.case.is_some());
    for changed in [
        event.without("data.case"),
        event.with("data.case", "null"),
        event.without("data.case.id"),
        event.with("data.case.id", "null"),
    ] {
        let without = map(&changed);
        assert_eq!(without.audience, Audience::default());
        assert_eq!(without.payload, webhook.payload);
    }
    let parties_alone = map(&event.with("data.case", r#"{"parties":["a"]}"#));
    assert_eq!(parties_alone.audience.parties, ["a"]);
}

#[test]
fn a_crowd_of_parties_is_read_in_no_time() {
    let parties: Vec<String> = (0..100_000).map(|n| format!("\"{n}\"")).collect();
    let event = example(EventType::CaseStatusUpdated)
        .with("data.case.parties", &format!("[{}]", parties.join(",")));
    let webhook = decode_and_map(&event.to_string()).unwrap();
    assert_eq!(webhook.audience.parties.len(), 100_000);
}

#[test]
fn the_webhooks_time_is_the_events() {
    let event = example(EventType::CaseStatusUpdated).with("time", r#""2020-01-01T00:00:00.5Z""#);
    let expected: Timestamp = "2020-01-01T00:00:00.5Z".parse().unwrap();
    assert_eq!(decode_and_map(&event.to_string()).unwrap().time, expected);
}
