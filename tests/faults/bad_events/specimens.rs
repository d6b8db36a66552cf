//! Events of every kind of badness, and good ones that look bad. All that nobody may see says
//! "forged", but for what makes an event what it is.

use serde_json::{Value, json};

use crate::{
    faults::{
        cast::{EVERYONE, parties},
        chance::Chance,
    },
    support::program::{EVENT_KEY, event},
};

/// The default of `source.max_event_bytes`.
const LIMIT: usize = 1_048_576;
/// How deep what is nested is.
const DEPTH: usize = 100_000;
const STATUS: &str = r#"{"key":"k","name":"n","createdAt":"2026-01-22T11:29:38Z","updatedAt":"2026-01-22T11:29:38Z"}"#;

/// What must become of an event.
pub enum Becomes {
    /// A webhook for everybody entitled to it.
    Webhooks,
    /// In the queue `rejected`, for this reason.
    Rejected(&'static str),
    /// Nothing: nobody is entitled to it.
    Nothing,
}

pub struct Specimen {
    pub key: &'static str,
    pub body: Vec<u8>,
    pub becomes: Becomes,
}

impl Specimen {
    fn rejected(body: impl Into<Vec<u8>>, reason: &'static str) -> Self {
        Self {
            key: "bad",
            body: body.into(),
            becomes: Becomes::Rejected(reason),
        }
    }
}

/// An event that is good whatever it looks like; it has the id `number`.
pub fn good(chance: &mut Chance, number: usize) -> Specimen {
    let id = number.to_string();
    let parties = json!(parties(number)).to_string();
    let case = format!(r#"{{"id":"{id}","parties":{parties}}}"#);
    let data = format!(r#""case":{case},"status":{STATUS}"#);
    let nobody = r#"{"id":"forged","parties":["forged"]}"#;
    let body = match chance.below(10) {
        0 => padded(&id, &data, LIMIT),
        1 => text(&id, &format!(r#"{data},"note":{}"#, nested("[", "]"))),
        2 => text(
            &id,
            &format!(
                r#"{data},"note":{}1{}"#,
                r#"{"a":"#.repeat(DEPTH),
                "}".repeat(DEPTH)
            ),
        ),
        3 => text(
            &id,
            &format!(
                r#"{data},"forged":[1e999999,-0.0e-9999,{}]"#,
                "9".repeat(5_000)
            ),
        ),
        4 => text(
            &id,
            &format!(r#"{data},"forged":"\ud800","\udfff":"forged","\u0000":0"#),
        ),
        // Of a repeated field the last one counts, as in nearly every reader of JSON.
        5 => text(&id, &format!(r#""case":{nobody},"status":5,{data}"#)),
        6 => text(
            "forged",
            &format!(r#""case":{nobody}}},"id":"{id}","data":{{{data}"#),
        ),
        7 => text(&id, &data).replace(r#""parties""#, r#""parties":["forged"],"p\u0061rties""#),
        8 => text(&id, &data).replace(
            r#""parties""#,
            r#""Parties":["forged"],"PARTIES":null,"parties""#,
        ),
        _ => cost_proposal(&id, &parties),
    };
    Specimen {
        key: EVENT_KEY,
        body: body.into_bytes(),
        becomes: Becomes::Webhooks,
    }
}

/// An event that is not, and what must become of it; no two with different numbers are the same.
pub fn bad(chance: &mut Chance, number: usize) -> Specimen {
    let id = format!("bad-{number}");
    let whole = event(&id, &[EVERYONE]).to_string();
    let data = format!(r#""case":{{"id":"{id}","parties":["{EVERYONE}"]}},"status":{STATUS}"#);
    let at = usize::try_from(chance.below(whole.len() as u64)).unwrap();
    match chance.below(18) {
        0 => Specimen::rejected(&whole.as_bytes()[..at], "not_json"),
        1 => {
            let mut bytes = whole.into_bytes();
            bytes[at] = 0xff;
            Specimen::rejected(bytes, "not_json")
        }
        2 => {
            let noise = (0..at).map(|_| u8::try_from(chance.below(256)).unwrap());
            Specimen::rejected([0].into_iter().chain(noise).collect::<Vec<_>>(), "not_json")
        }
        // Compressed, as the header may even say; and with a byte order mark.
        3 => Specimen::rejected(
            [b"\x1f\x8b\x08".as_slice(), whole.as_bytes()].concat(),
            "not_json",
        ),
        4 => Specimen::rejected(format!("\u{feff}{whole}"), "not_json"),
        5 => Specimen::rejected(format!("{whole}{whole}"), "not_json"),
        6 => Specimen::rejected(whole.replace(&id, &format!("{id}\n")), "not_json"),
        7 => Specimen::rejected(padded(&id, &data, LIMIT + 1), "too_large"),
        8 if number.is_multiple_of(3) => {
            Specimen::rejected(padded(&id, &data, 10 * LIMIT), "too_large")
        }
        8 => Specimen::rejected(format!("{}{number}", " ".repeat(LIMIT)), "too_large"),
        9 => {
            let (start, open) = *chance.pick(&[("[", ",["), ("{\"n\":", ",\"\":{\"\":1")]);
            let body = format!("{start}{number}{}", open.repeat(DEPTH));
            Specimen::rejected(body, "not_json")
        }
        10 => {
            let deep = format!("[{number},{}]", nested("[", "]"));
            let objects = format!(
                r#"{{"n":{number},"a":{}1{}}}"#,
                r#"{"a":"#.repeat(DEPTH),
                "}".repeat(DEPTH)
            );
            Specimen::rejected(chance.pick(&[deep, objects]).clone(), "not_cloudevents")
        }
        11 => {
            let deep = nested("[", "]");
            let member = *chance.pick(&[r#""parties":"#, r#""name":"#, r#""data":"#]);
            let text = text(&id, &data);
            let body = text.replace(member, &format!("{member}{deep},\"forged\":"));
            Specimen::rejected(body, "invalid_field")
        }
        12 | 13 => wrong(chance, event(&id, &[EVERYONE])),
        14 => {
            let number = *chance.pick(&["1e999999", "-1E-999999", "0.1e+400"]);
            let many = "7".repeat(5_000);
            let name = *chance.pick(&[number, &many]);
            let member = *chance.pick(&[r#""name":"n""#, r#""createdAt":"2026-01-22T11:29:38Z""#]);
            let (field, _) = member.split_once(':').unwrap();
            let body = text(&id, &data).replace(member, &format!("{field}:{name}"));
            Specimen::rejected(body, "invalid_field")
        }
        15 => {
            let (is, becomes) = *chance.pick(&[
                (r#""name":"n""#, r#""name":"half \ud83d of a pair""#),
                (r#""everyone""#, r#""every\ud800one""#),
                (r#""everyone""#, r#""everyone\u0000""#),
                (r#""source":""#, r#""source":"\udc00"#),
                (r#""case":{"id":""#, r#""case":{"id":"\u0007"#),
            ]);
            let body = text(&id, &data).replace(is, becomes);
            Specimen::rejected(body, "invalid_field")
        }
        16 => {
            let mut unknown = event(&id, &[EVERYONE]);
            unknown["type"] = json!("case.forgotten");
            Specimen::rejected(unknown.to_string(), "unknown_type")
        }
        _ => nobody(chance, &id, &data),
    }
}

/// An event that somebody careless would read as one for everyone.
fn nobody(chance: &mut Chance, id: &str, data: &str) -> Specimen {
    let other = r#"{"id":"forged","parties":["nobody"]}"#;
    let whole = text(id, data);
    let everyone = format!(r#"["{EVERYONE}"]"#);
    let body = match chance.below(8) {
        0 => whole.replace(&everyone, &format!(r#"{everyone},"parties":["nobody"]"#)),
        1 => whole.replace(&everyone, &format!(r#"{everyone},"part\u0069es":[]"#)),
        2 => whole.replace(&everyone, &format!(r#"{everyone},"parties":null"#)),
        // Nothing of the first one may be left in the second.
        3 => text(id, &format!(r#"{data},"case":{{"id":"{id}"}}"#)),
        4 => text(id, &format!(r#"{data},"c\u0061se":{other}"#)),
        5 => text(
            id,
            &format!(r#"{data}}},"data":{{"case":{other},"status":{STATUS}"#),
        ),
        6 => {
            let lookalikes = ["everyone ", "Everyone", "every\u{200b}one", "*"];
            let lookalike = *chance.pick(&lookalikes);
            whole.replace(EVERYONE, lookalike)
        }
        _ => whole.replace(r#""parties""#, r#""Parties""#),
    };
    Specimen {
        key: EVENT_KEY,
        body: body.into_bytes(),
        becomes: Becomes::Nothing,
    }
}

/// One field with a value of a wrong type, null, or taken away.
fn wrong(chance: &mut Chance, mut event: Value) -> Specimen {
    let place = *chance.pick(&[
        "/specversion",
        "/id",
        "/source",
        "/type",
        "/time",
        "/data",
        "/data/case",
        "/data/case/id",
        "/data/status",
        "/data/status/name",
        "/data/status/key",
        "/data/status/createdAt",
        "/data/status/updatedAt",
        "/data/case/parties",
        "/data/case/parties/0",
    ]);
    let (object, text) = (json!({"a": 1}), json!("wrong"));
    let value = chance
        .pick(&[
            json!(7),
            json!(true),
            json!([7]),
            object.clone(),
            Value::Null,
            text,
        ])
        .clone();
    let field = event.pointer_mut(place).unwrap();
    // What is right there is replaced by what is wrong everywhere.
    let fits = match &value {
        Value::Object(_) => field.is_object(),
        Value::String(_) => true,
        _ => false,
    };
    let optional = place == "/data/case/parties" && value.is_null();
    let value = if fits || optional { json!(7.5) } else { value };
    let reason = match place {
        "/specversion" => "not_cloudevents",
        _ if value.is_null() => "missing_field",
        _ => "invalid_field",
    };
    *field = value;
    // The case's id tells one event from another where its own is gone.
    Specimen::rejected(event.to_string(), reason)
}

fn text(id: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/tests","type":"{EVENT_KEY}","time":"2026-01-22T11:29:38Z","forged":"forged","data":{{{data}}}}}"#
    )
}

/// The same with as many bytes as wanted.
fn padded(id: &str, data: &str, bytes: usize) -> String {
    let with = |note: &str| text(id, &format!(r#"{data},"forged":"{note}""#));
    let padding = bytes - with("").len();
    with(&"x".repeat(padding))
}

fn nested(open: &str, close: &str) -> String {
    open.repeat(DEPTH) + &close.repeat(DEPTH)
}

/// Numbers of thousands of digits, where numbers are right.
fn cost_proposal(id: &str, parties: &str) -> String {
    let digits = "1234567890".repeat(300);
    text(id, &format!(
        r#""case":{{"id":"{id}","parties":{parties}}},"costProposal":{{"id":{digits},"name":"n","priceNet":1e999999,"currency":"SEK","isActive":true,"details":[{{"line":1,"text":"t","type":"y","priceNet":{digits}.{digits},"quantity":-1e-999999}}],"createdAt":"2026-01-22T11:29:38Z","updatedAt":"2026-01-22T11:29:38Z"}}"#
    )).replace(EVENT_KEY, "case.cost_proposal.created")
}
