//! Checked reading of a domain event's fields, one level of an object at a time.
//!
//! Nothing is materialised that is not asked for: a field is a slice of the body until its value
//! is read, so numbers keep their digits, unknown fields cost a scan, and no nesting, however
//! deep, is walked by recursion.

use std::{fmt, str};

use serde::de::{Deserialize, Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Rejection, RejectionReason};

/// A value that an event's field can hold.
pub(crate) trait Value<'a>: Sized {
    /// What a correct value looks like, for the rejection's detail.
    const EXPECTED: &'static str;

    /// Reads the value, or says what is wrong with it: a phrase that follows the field's path.
    fn read(raw: &'a RawValue) -> Result<Self, &'static str>;
}

/// Where a field stands in the event: written as `data.files[2].url`.
#[derive(Debug, Clone, Copy)]
enum Path<'p> {
    Attribute(&'static str),
    Member(&'p Self, &'static str),
    Item(&'p Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => f.write_str(name),
            Self::Member(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A field of an event, present or not, with its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a, 'p> {
    path: Path<'p>,
    raw: Option<&'a RawValue>,
}

impl<'a> Field<'a, '_> {
    /// An attribute of the event itself.
    pub(crate) fn attribute(name: &'static str, raw: Option<&'a RawValue>) -> Self {
        Self {
            path: Path::Attribute(name),
            raw,
        }
    }

    /// The field's value; absent or null is `missing_field`, anything unexpected `invalid_field`.
    pub(crate) fn read<T: Value<'a>>(&self) -> Result<T, Rejection> {
        let raw = self.present(T::EXPECTED)?;
        T::read(raw).map_err(|fault| self.invalid(raw, fault, T::EXPECTED))
    }

    /// The field's value, if it has one.
    pub(crate) fn read_optional<T: Value<'a>>(&self) -> Result<Option<T>, Rejection> {
        self.optional().map(Self::read).transpose()
    }

    /// The field itself, unless it is absent or null.
    pub(crate) fn optional(&self) -> Option<&Self> {
        self.value().map(|_| self)
    }

    /// The members with these names of the object that the field holds.
    pub(crate) fn members<'s, const N: usize>(
        &'s self,
        names: [&'static str; N],
    ) -> Result<[Field<'a, 's>; N], Rejection> {
        const EXPECTED: &str = "an object";
        let raw = self.present(EXPECTED)?;
        let members =
            members(raw.get(), names).map_err(|_| self.invalid(raw, wrong_type(raw), EXPECTED))?;
        Ok(std::array::from_fn(|i| Field {
            path: Path::Member(&self.path, names[i]),
            raw: members[i],
        }))
    }

    /// The value of one member of the object that the field holds.
    pub(crate) fn read_member<T: Value<'a>>(&self, name: &'static str) -> Result<T, Rejection> {
        let [member] = self.members([name])?;
        member.read()
    }

    /// Reads every item of the array that the field holds.
    pub(crate) fn read_items<T>(
        &self,
        mut read: impl FnMut(Field<'a, '_>) -> Result<T, Rejection>,
    ) -> Result<Vec<T>, Rejection> {
        const EXPECTED: &str = "an array";
        let raw = self.present(EXPECTED)?;
        let items: Vec<&'a RawValue> = serde_json::from_str(raw.get())
            .map_err(|_| self.invalid(raw, wrong_type(raw), EXPECTED))?;
        let field = |(index, raw)| Field {
            path: Path::Item(&self.path, index),
            raw: Some(raw),
        };
        items
            .into_iter()
            .enumerate()
            .map(|i| read(field(i)))
            .collect()
    }

    /// The rejection of an array that must not be empty.
    pub(crate) fn empty(&self, expected: &str) -> Rejection {
        Rejection {
            reason: RejectionReason::InvalidField,
            detail: format!("{} is empty: expected {expected}", self.path),
        }
    }

    /// What the field holds, null being nothing.
    fn value(&self) -> Option<&'a RawValue> {
        self.raw.filter(|raw| raw.get() != "null")
    }

    fn present(&self, expected: &str) -> Result<&'a RawValue, Rejection> {
        self.value().ok_or_else(|| {
            let fault = if self.raw.is_some() { "null" } else { "absent" };
            Rejection {
                reason: RejectionReason::MissingField,
                detail: format!("{} is {fault}: expected {expected}", self.path),
            }
        })
    }

    fn invalid(&self, raw: &RawValue, fault: &str, expected: &str) -> Rejection {
        Rejection {
            reason: RejectionReason::InvalidField,
            detail: format!("{} {fault}{}: expected {expected}", self.path, Glimpse(raw)),
        }
    }
}

/// The values of the top-level fields with these names in a JSON object. Of a repeated field the
/// last one counts.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    names: [&'static str; N],
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let members = deserializer.deserialize_map(Members(names))?;
    deserializer.end()?;
    Ok(members)
}

struct Members<const N: usize>([&'static str; N]);

impl<'a, const N: usize> Visitor<'a> for Members<N> {
    type Value = [Option<&'a RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = [None; N];
        // Keys are taken raw too: one with half a surrogate pair is JSON, but no `str`.
        while let Some((key, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
            if let Some(i) = self.0.iter().position(|name| is_key(key, name)) {
                members[i] = Some(value);
            }
        }
        Ok(members)
    }
}

fn is_key(key: &RawValue, name: &str) -> bool {
    match plain_string(key) {
        Some(key) => key == name,
        None => String::deserialize(key).is_ok_and(|key| key == name),
    }
}

/// The content of a JSON string that has no escapes.
pub(super) fn plain_string(raw: &RawValue) -> Option<&str> {
    let content = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    (!content.as_bytes().contains(&b'\\')).then_some(content)
}

/// "is a number": what a value is instead of what was expected.
pub(super) fn wrong_type(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes() {
        [b'{', ..] => "is an object",
        [b'[', ..] => "is an array",
        [b'"', ..] => "is a string",
        [b't' | b'f', ..] => "is a boolean",
        [b'n', ..] => "is null",
        _ => "is a number",
    }
}

/// The beginning of a scalar value, in parentheses: enough to find it by, and no more.
struct Glimpse<'a>(&'a RawValue);

impl fmt::Display for Glimpse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LIMIT: usize = 24;
        let json = self.0.get();
        if json.starts_with(['{', '[']) {
            return Ok(());
        }
        f.write_str(" (")?;
        for c in json.chars().take(LIMIT) {
            fmt::Write::write_char(f, if c.is_control() { ' ' } else { c })?;
        }
        f.write_str(if json.chars().nth(LIMIT).is_some() {
            "…)"
        } else {
            ")"
        })
    }
}
