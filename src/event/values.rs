//! The values that events and webhooks are made of: how each is read and checked, how it is
//! written, and the JSON Schema that says the same.

use std::{
    borrow::Cow,
    fmt::{self, Display},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer, de::Deserialize};
use serde_json::value::RawValue;

use super::{
    field::{Value, plain_string, wrong_type},
    time::{Gmt, is_date},
};

/// Any string, empty ones included.
pub(crate) type Text<'a> = Cow<'a, str>;

impl<'a> Value<'a> for Text<'a> {
    const EXPECTED: &'static str = "a string";

    fn read(raw: &'a RawValue) -> Result<Self, &'static str> {
        if let Some(text) = plain_string(raw) {
            return Ok(Cow::Borrowed(text));
        }
        if !raw.get().starts_with('"') {
            return Err(wrong_type(raw));
        }
        // The syntax has been checked, so what is left is an escape that names no character.
        String::deserialize(raw)
            .map(Cow::Owned)
            .map_err(|_| "holds half a surrogate pair")
    }
}

/// A string that is not empty.
#[derive(Debug)]
pub(crate) struct Name<'a>(pub(crate) Cow<'a, str>);

impl<'a> Value<'a> for Name<'a> {
    const EXPECTED: &'static str = "a string that is not empty";

    fn read(raw: &'a RawValue) -> Result<Self, &'static str> {
        match Text::read(raw)? {
            text if text.is_empty() => Err("is empty"),
            text => Ok(Self(text)),
        }
    }
}

/// An opaque id.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Id<'a>(pub(crate) Cow<'a, str>);

impl<'a> Value<'a> for Id<'a> {
    const EXPECTED: &'static str = "a string of 1 to 128 bytes without control characters";

    fn read(raw: &'a RawValue) -> Result<Self, &'static str> {
        match Text::read(raw)? {
            id if id.is_empty() => Err("is empty"),
            id if id.len() > 128 => Err("is longer than 128 bytes"),
            id if id.chars().any(char::is_control) => Err("has a control character"),
            id => Ok(Self(id)),
        }
    }
}

/// A number, with the digits that it was published with.
#[derive(Debug, Serialize)]
pub(crate) struct Number<'a>(&'a RawValue);

impl<'a> Value<'a> for Number<'a> {
    const EXPECTED: &'static str = "a number";

    fn read(raw: &'a RawValue) -> Result<Self, &'static str> {
        // Of all JSON values only numbers begin like this.
        if raw
            .get()
            .starts_with(|c: char| c == '-' || c.is_ascii_digit())
        {
            Ok(Self(raw))
        } else {
            Err(wrong_type(raw))
        }
    }
}

/// A number without fraction and exponent, of any size.
#[derive(Debug, Serialize)]
pub(crate) struct Integer<'a>(Number<'a>);

impl<'a> Value<'a> for Integer<'a> {
    const EXPECTED: &'static str = "an integer";

    fn read(raw: &'a RawValue) -> Result<Self, &'static str> {
        let number = Number::read(raw)?;
        if raw.get().contains(['.', 'e', 'E']) {
            return Err("is not an integer");
        }
        Ok(Self(number))
    }
}

impl Value<'_> for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(raw: &RawValue) -> Result<Self, &'static str> {
        Self::deserialize(raw).map_err(|_| wrong_type(raw))
    }
}

impl Value<'_> for Gmt {
    const EXPECTED: &'static str =
        "an RFC 3339 time with an offset, such as 2019-01-22T11:29:38.258Z";

    fn read(raw: &RawValue) -> Result<Self, &'static str> {
        Self::parse(&Text::read(raw)?)
    }
}

/// A time that is written in GMT with six decimals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Micros(pub(crate) Gmt);

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_micros(f)
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time that is written in GMT with three decimals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Millis(Gmt);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_millis(f)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Value<'_> for Millis {
    const EXPECTED: &'static str = Gmt::EXPECTED;

    fn read(raw: &RawValue) -> Result<Self, &'static str> {
        Gmt::read(raw).map(Self)
    }
}

/// A time, or a plain date, which stays one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum DateOrTime<'a> {
    Date(Cow<'a, str>),
    Time(Millis),
}

impl<'a> Value<'a> for DateOrTime<'a> {
    const EXPECTED: &'static str =
        "a date or an RFC 3339 time with an offset, such as 2019-01-22 or 2019-01-22T11:29:38.258Z";

    fn read(raw: &'a RawValue) -> Result<Self, &'static str> {
        let text = Text::read(raw)?;
        if is_date(&text) {
            return Ok(Self::Date(text));
        }
        Gmt::parse(&text).map(|time| Self::Time(Millis(time)))
    }
}

/// A string or a number, whichever it was published as.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum TextOrNumber<'a> {
    Text(Text<'a>),
    Number(Number<'a>),
}

impl<'a> Value<'a> for TextOrNumber<'a> {
    const EXPECTED: &'static str = "a string or a number";

    fn read(raw: &'a RawValue) -> Result<Self, &'static str> {
        if raw.get().starts_with('"') {
            Text::read(raw).map(Self::Text)
        } else {
            Number::read(raw).map(Self::Number)
        }
    }
}

/// Gives a value type its JSON Schema, always written out in place.
macro_rules! schema {
    ($($name:ident: $value:ty = $schema:tt;)+) => {$(
        impl JsonSchema for $value {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

schema! {
    Id: Id<'_> = {
        "type": "string",
        "description": "an opaque id of 1 to 128 bytes",
        "minLength": 1,
        "maxLength": 128,
        "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$",
    };
    Name: Name<'_> = { "type": "string", "minLength": 1 };
    Number: Number<'_> = { "type": "number" };
    Integer: Integer<'_> = { "type": "integer" };
    TextOrNumber: TextOrNumber<'_> = { "type": ["string", "number"] };
    Gmt: Gmt = { "type": "string", "format": "date-time" };
    Micros: Micros = {
        "type": "string",
        "format": "date-time",
        "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
    };
    Millis: Millis = {
        "type": "string",
        "format": "date-time",
        "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
    };
    DateOrTime: DateOrTime<'_> = {
        "type": "string",
        "anyOf": [{ "format": "date" }, { "format": "date-time" }],
    };
}
