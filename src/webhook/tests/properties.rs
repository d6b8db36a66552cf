//! Whatever is published, the mapping never panics, and what it accepts has exactly the
//! documented keys in the documented order.

use std::{cell::Cell, fmt::Write};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{EXAMPLES, Node};
use crate::{
    event::{Rejection, RejectionReason, decode},
    webhook::{EventType, Webhook, WebhookType, map},
};

const CASES: u32 = 100_000;

/// One change of an event's tree: which node, what happens to it, and with which value.
type Mutation = (u16, u8, u8);

/// One change of an event's bytes: where, what happens there, and with which byte.
type Damage = (u16, u8, u8);

#[test]
fn only_documented_payloads_leave() {
    let examples: Vec<_> = EXAMPLES.iter().map(|e| Node::parse(e.event)).collect();
    let strategy = (
        0..examples.len(),
        vec(any::<Mutation>(), 0..4),
        option::weighted(0.15, any::<Damage>()),
    );
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let accepted = Cell::new(0_u32);
    TestRunner::new(config)
        .run(&strategy, |(example, mutations, damage)| {
            let mut event = examples[example].clone();
            for mutation in mutations {
                mutate(&mut event, mutation);
            }
            let mut body = event.to_string().into_bytes();
            if let Some(damage) = damage {
                damage_bytes(&mut body, damage);
            }
            match decode_and_map(&body) {
                Ok(webhook) => {
                    accepted.set(accepted.get() + 1);
                    check_webhook(&webhook)
                }
                Err(rejection) => check_rejection(&rejection),
            }
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    // Neither side may hide the other.
    assert!(
        (CASES / 5..CASES / 5 * 4).contains(&accepted.get()),
        "{accepted:?} accepted"
    );
}

fn decode_and_map(body: &[u8]) -> Result<Webhook, Rejection> {
    let envelope = decode(body, usize::MAX)?;
    let event_type = EventType::from_name(&envelope.event_type)
        .ok_or_else(|| Rejection::unknown_type(&envelope.event_type))?;
    map(event_type, &envelope)
}

fn check_rejection(rejection: &Rejection) -> Result<(), TestCaseError> {
    let detail = &rejection.detail;
    prop_assert!(detail.len() < 300, "{detail}");
    prop_assert!(!detail.contains(char::is_control), "{detail:?}");
    prop_assert_ne!(rejection.reason, RejectionReason::TooLarge);
    Ok(())
}

fn check_webhook(webhook: &Webhook) -> Result<(), TestCaseError> {
    let payload = Node::parse(std::str::from_utf8(&webhook.payload).unwrap());
    let documented = documented_keys(webhook.kind);
    prop_assert!(documented.contains(&payload.keys().as_slice()), "{payload}");
    let Node::Object(pairs) = &payload else {
        unreachable!("it has keys");
    };
    for (key, value) in pairs {
        let items = match (value, key.as_str()) {
            (Node::Scalar(_), _) => continue,
            (Node::Array(items), "details") => (items, DETAIL),
            (Node::Array(items), "files") => (items, FILE),
            _ => return Err(TestCaseError::fail(format!("{key} in {payload}"))),
        };
        for item in items.0 {
            prop_assert_eq!(item.keys(), items.1, "{}", payload);
            let Node::Object(pairs) = item else {
                unreachable!("it has keys");
            };
            let flat = pairs.iter().all(|(_, v)| matches!(v, Node::Scalar(_)));
            prop_assert!(flat, "{payload}");
        }
    }
    Ok(())
}

const DETAIL: &[&str] = &["line", "text", "type", "priceNet", "quantity"];
const FILE: &[&str] = &["url", "name"];

/// The documented keys in their order; an activity's change has two forms.
fn documented_keys(kind: WebhookType) -> &'static [&'static [&'static str]] {
    match kind {
        WebhookType::StatusUpdate => &[&["guid", "name", "key", "createdAt", "updatedAt"]],
        WebhookType::NewCostProposal => &[&[
            "id",
            "guid",
            "externalId",
            "name",
            "priceNet",
            "currency",
            "isActive",
            "dateValidUntil",
            "reaction",
            "comment",
            "reactionDate",
            "reactionName",
            "details",
            "createdAt",
            "updatedAt",
        ]],
        WebhookType::NewMessage => &[&[
            "id",
            "guid",
            "content",
            "messageType",
            "createdAt",
            "updatedAt",
        ]],
        WebhookType::NewFileUploaded => &[&["guid", "files"]],
        WebhookType::ActivityChange => &[
            &[
                "timestamp",
                "caseId",
                "claimId",
                "activityId",
                "activityTemplateId",
                "status",
                "type",
            ],
            &[
                "timestamp",
                "caseId",
                "contactId",
                "activityId",
                "activityTemplateId",
                "status",
                "type",
            ],
        ],
        WebhookType::ClaimAttributeChange => {
            &[&["timestamp", "caseId", "claimId", "attributeId", "type"]]
        }
        WebhookType::CaseAttributeChange => {
            &[&["timestamp", "caseId", "contactId", "attributeId", "type"]]
        }
        WebhookType::ContactAttributeChange => {
            &[&["timestamp", "contactId", "companyId", "attributeId", "type"]]
        }
        WebhookType::ActivityAttributeChange => {
            &[&["timestamp", "caseId", "activityId", "attributeId", "type"]]
        }
        WebhookType::ClaimStatusChange => &[&[
            "timestamp",
            "caseId",
            "claimId",
            "claimStatusId",
            "claimStatusName",
        ]],
    }
}

/// What a value may become.
const VALUES: &[&str] = &[
    "null",
    "true",
    "0",
    "-0.0e+7",
    "1e999",
    "25532.50",
    "184467440737095516160",
    r#""""#,
    r#""x""#,
    r#""Open""#,
    r#""\ud83d\udd27 \n""#,
    r#""\udc00""#,
    r#""2019-12-31""#,
    r#""2019-12-31T23:59:60Z""#,
    r#""9999-12-31T23:59:59-00:01""#,
    r#""0000-01-01t00:00:00.123456789123+00:01""#,
    r#""2019-11-25T11:30:29""#,
    r#""activity.created""#,
    r#""case.message.created""#,
    "{}",
    "[]",
    "[null]",
    r#"[{"url":"u","name":"n","secret":1}]"#,
    r#"{"id":"x","secret":[{}]}"#,
    r#"["a","a"]"#,
];

/// Keys that a field may be renamed to, or that may appear beside it.
const KEYS: &[&str] = &[
    "id", "secret", r"\u0069d", r"\ud800", "", "claim", "parties", "guid",
];

fn mutate(event: &mut Node, (at, operation, value): Mutation) {
    let json = VALUES[usize::from(value) % VALUES.len()];
    let mut at = usize::from(at) % count(event);
    let Some((parent, index)) = find_parent(event, &mut at) else {
        return;
    };
    let Node::Object(pairs) = parent else {
        let Node::Array(items) = parent else {
            unreachable!("a scalar is no parent");
        };
        match operation % 4 {
            0 => items[index] = Node::Scalar(json.to_owned()),
            1 => drop(items.remove(index)),
            2 => items.push(items[index].clone()),
            _ => items[index] = nest(&items[index], value),
        }
        return;
    };
    let key = KEYS[usize::from(value) % KEYS.len()].to_owned();
    match operation % 7 {
        0 | 1 => pairs[index].1 = Node::Scalar(json.to_owned()),
        2 => drop(pairs.remove(index)),
        3 => pairs.push((pairs[index].0.clone(), Node::Scalar(json.to_owned()))),
        4 => pairs.insert(0, (key, pairs[index].1.clone())),
        5 => pairs[index].0 = key,
        _ => pairs[index].1 = nest(&pairs[index].1, value),
    }
}

/// The value inside arrays or objects, at times deeper than a parser's recursion may go.
fn nest(node: &Node, value: u8) -> Node {
    let depth = if value.is_multiple_of(16) { 300 } else { 1 };
    let (open, close) = [("[", "]"), (r#"{"id":"#, "}")][usize::from(value) % 2];
    let mut json = open.repeat(depth);
    let _ = write!(json, "{node}");
    Node::Scalar(json + &close.repeat(depth))
}

/// How many nodes there are below this one, and at least one.
fn count(node: &Node) -> usize {
    fn below(node: &Node) -> usize {
        match node {
            Node::Object(pairs) => pairs.iter().map(|(_, value)| 1 + below(value)).sum(),
            Node::Array(items) => items.iter().map(|item| 1 + below(item)).sum(),
            Node::Scalar(_) => 0,
        }
    }
    below(node).max(1)
}

/// The parent of the node with this number, counted from the top, and its place in there.
fn find_parent<'n>(node: &'n mut Node, at: &mut usize) -> Option<(&'n mut Node, usize)> {
    let children = match node {
        Node::Object(pairs) => pairs.len(),
        Node::Array(items) => items.len(),
        Node::Scalar(_) => 0,
    };
    if *at < children {
        return Some((node, *at));
    }
    *at -= children;
    match node {
        Node::Object(pairs) => pairs
            .iter_mut()
            .find_map(|(_, child)| find_parent(child, at)),
        Node::Array(items) => items.iter_mut().find_map(|child| find_parent(child, at)),
        Node::Scalar(_) => None,
    }
}

fn damage_bytes(body: &mut Vec<u8>, (at, operation, byte): Damage) {
    let at = usize::from(at) % body.len();
    match operation % 4 {
        0 => body[at] = byte,
        1 => body.insert(at, byte),
        2 => drop(body.remove(at)),
        _ => body.truncate(at),
    }
}
