//! What the mapping's tests share: the documented examples, and JSON as a tree that keeps what a
//! map would lose (order, repeated keys, digits).

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{EventType, Webhook, examples::EXAMPLES, map};
use crate::event::{Rejection, decode};

mod documented;
mod fields;
mod properties;
mod rejected;
mod schemas;

fn example(event_type: EventType) -> Node {
    let example = EXAMPLES.iter().find(|e| e.event_type == event_type);
    Node::parse(example.unwrap().event)
}

/// What intake does: decode, look the type up, map.
fn decode_and_map(event: &str) -> Result<Webhook, Rejection> {
    let envelope = decode(event.as_bytes(), usize::MAX)?;
    let event_type = EventType::from_name(&envelope.event_type)
        .ok_or_else(|| Rejection::unknown_type(&envelope.event_type))?;
    map(event_type, &envelope)
}

/// The payload made from an event that must be accepted.
fn payload(event: &Node) -> String {
    let event = event.to_string();
    let webhook = decode_and_map(&event).unwrap_or_else(|e| panic!("{}: {event}", e.detail));
    String::from_utf8(webhook.payload.to_vec()).unwrap()
}

/// A JSON value: an object's pairs in order, keys and scalars as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Scalar(String),
}

impl Node {
    fn parse(json: &str) -> Self {
        let json = json.trim();
        match json.as_bytes()[0] {
            b'{' => {
                let pairs = serde_json::Deserializer::from_str(json)
                    .deserialize_map(Pairs)
                    .unwrap();
                Self::Object(pairs)
            }
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(json).unwrap();
                Self::Array(items.iter().map(|item| Self::parse(item.get())).collect())
            }
            _ => Self::Scalar(json.to_owned()),
        }
    }

    /// A copy in which the value at the path (`data.files[0].url`) is another piece of JSON.
    fn with(&self, path: &str, json: &str) -> Self {
        let mut copy = self.clone();
        let (parent, key) = copy.parent_of(path);
        match parent {
            Self::Object(pairs) => {
                pairs.retain(|(name, _)| name != key);
                pairs.push((key.to_owned(), Self::Scalar(json.to_owned())));
            }
            Self::Array(items) => items[key.parse::<usize>().unwrap()] = Self::parse(json),
            Self::Scalar(_) => panic!("{path} is in no object"),
        }
        copy
    }

    /// A copy that has no value at the path.
    fn without(&self, path: &str) -> Self {
        let mut copy = self.clone();
        let (parent, key) = copy.parent_of(path);
        let Self::Object(pairs) = parent else {
            panic!("{path} is in no object");
        };
        let count = pairs.len();
        pairs.retain(|(name, _)| name != key);
        assert_eq!(pairs.len(), count - 1, "{path} is not there");
        copy
    }

    fn parent_of<'p>(&mut self, path: &'p str) -> (&mut Self, &'p str) {
        let mut steps: Vec<_> = path.split(['.', '[', ']']).collect();
        steps.retain(|step| !step.is_empty());
        let key = steps.pop().unwrap();
        let parent = steps.iter().fold(self, |node, step| match node {
            Self::Object(pairs) => {
                let pair = pairs.iter_mut().find(|(name, _)| name == step);
                &mut pair.unwrap_or_else(|| panic!("no {step} for {path}")).1
            }
            Self::Array(items) => &mut items[step.parse::<usize>().unwrap()],
            Self::Scalar(_) => panic!("no {step} for {path}"),
        });
        (parent, key)
    }

    fn keys(&self) -> Vec<&str> {
        match self {
            Self::Object(pairs) => pairs.iter().map(|(key, _)| key.as_str()).collect(),
            _ => panic!("{self} is no object"),
        }
    }
}

/// Compact JSON.
impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let comma = |i| if i == 0 { "" } else { "," };
        match self {
            Self::Object(pairs) => {
                f.write_str("{")?;
                for (i, (key, value)) in pairs.iter().enumerate() {
                    write!(f, "{}\"{key}\":{value}", comma(i))?;
                }
                f.write_str("}")
            }
            Self::Array(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", comma(i))?;
                }
                f.write_str("]")
            }
            Self::Scalar(json) => f.write_str(json),
        }
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, Node)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let key = key.get().trim_matches('"').to_owned();
            pairs.push((key, Node::parse(value.get())));
        }
        Ok(pairs)
    }
}
