//! The envelope: each reason to reject an event before its data is looked at, and times.

use super::{
    RejectionReason::{self, InvalidField, MissingField, NotCloudEvents, NotJson, TooLarge},
    *,
};

const EVENT: &str = r#"{"specversion":"1.0","id":"e-1","source":"/hub","type":"case.closed","time":"2020-02-29T12:00:00Z","data":{"a":1}}"#;

fn rejected(body: impl AsRef<[u8]>) -> Rejection {
    decode(body.as_ref(), usize::MAX).expect_err("an event that must be rejected")
}

/// The event with one attribute given another value; an empty one takes the attribute away.
fn with(name: &str, json: &str) -> String {
    let raw: serde_json::Map<String, serde_json::Value> = serde_json::from_str(EVENT).unwrap();
    let mut fields: Vec<_> = raw
        .iter()
        .filter(|(key, _)| *key != name)
        .map(|(key, value)| format!("\"{key}\":{value}"))
        .collect();
    if !json.is_empty() {
        fields.push(format!("\"{name}\":{json}"));
    }
    format!("{{{}}}", fields.join(","))
}

fn reason(name: &str, json: &str) -> RejectionReason {
    rejected(with(name, json)).reason
}

#[test]
fn the_envelope_is_borrowed_from_the_body() {
    let envelope = decode(EVENT.as_bytes(), EVENT.len()).unwrap();
    assert!(matches!(envelope.id, Cow::Borrowed("e-1")));
    assert!(matches!(envelope.source, Cow::Borrowed("/hub")));
    assert!(matches!(envelope.event_type, Cow::Borrowed("case.closed")));
    assert_eq!(envelope.time.to_string(), "2020-02-29T12:00:00Z");
    assert_eq!(envelope.data.unwrap().get(), r#"{"a":1}"#);
    assert_eq!(envelope.traceparent, None);
}

#[test]
fn attributes_may_be_written_with_escapes() {
    let body = EVENT
        .replace(r#""id":"#, r#""\u0069\u0064":"#)
        .replace("/hub", r"\/h\u00fcb");
    let envelope = decode(body.as_bytes(), 1000).unwrap();
    assert_eq!(envelope.id, "e-1");
    assert_eq!(envelope.source, "/hüb");
}

#[test]
fn an_event_over_the_limit_is_too_large() {
    let rejection = decode(EVENT.as_bytes(), EVENT.len() - 1).unwrap_err();
    assert_eq!(rejection.reason, TooLarge);
    assert!(rejection.detail.contains("source.max_event_bytes"));
    assert_eq!(decode(b"[not json]", 3).unwrap_err().reason, TooLarge);
}

#[test]
fn what_is_not_json_is_rejected_as_such() {
    let trailing = format!("{EVENT} x");
    let twice = format!("{EVENT}{EVENT}");
    let bom = format!("\u{feff}{EVENT}");
    for body in [
        "",
        " ",
        "x",
        "{",
        "[1,",
        "{]",
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":NaN}"#,
        r#"{"a":"b}"#,
        r#"{"a":"\x"}"#,
        "{\"a\":\"\n\"}",
        r#"{"a":1,}"#,
        r"{'a':1}",
        "{1:2}",
        "[] []",
        "\x0c{}",
        &trailing,
        &twice,
        &bom,
    ] {
        let rejection = rejected(body);
        assert_eq!(rejection.reason, NotJson, "{body}: {}", rejection.detail);
    }
    assert_eq!(rejected(b"{\"a\":\"\xff\"}").reason, NotJson);
    // A surrogate half encoded as if it were a character is no UTF-8.
    assert_eq!(rejected(b"{\"a\":\"\xed\xa0\x80\"}").reason, NotJson);
}

#[test]
fn what_is_no_cloud_event_is_rejected_as_such() {
    for body in [
        "null",
        "7",
        " [1] ",
        r#""text""#,
        "true",
        "{}",
        r#"{"id":"x"}"#,
    ] {
        let rejection = rejected(body);
        assert_eq!(rejection.reason, NotCloudEvents, "{}", rejection.detail);
    }
    for version in ["", "null", "1.0", r#""1""#, r#""0.3""#, r#""1.0 ""#, "{}"] {
        assert_eq!(reason("specversion", version), NotCloudEvents, "{version}");
    }
    assert!(decode(with("specversion", r#""1\u002e0""#).as_bytes(), 1000).is_ok());
}

#[test]
fn depth_costs_no_stack() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let deep_objects = r#"{"a":"#.repeat(200_000) + "1" + &"}".repeat(200_000);
    for value in [&deep, &deep_objects] {
        assert!(decode(with("extra", value).as_bytes(), usize::MAX).is_ok());
        assert_eq!(reason("id", value), InvalidField);
        assert_eq!(rejected(format!("{value}}}")).reason, NotJson);
    }
    assert_eq!(rejected(&deep).reason, NotCloudEvents);
}

#[test]
fn an_unknown_type_is_shown_shortened() {
    let rejection = Rejection::unknown_type(&"x\n".repeat(1000));
    assert_eq!(rejection.reason, RejectionReason::UnknownType);
    assert!(rejection.detail.len() < 300, "{}", rejection.detail);
    assert!(!rejection.detail.contains('\n'));
}

#[test]
fn a_traceparent_is_kept_if_it_is_one() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = with("traceparent", &format!("\"{good}\""));
    let envelope = decode(body.as_bytes(), 1000).unwrap();
    assert_eq!(envelope.traceparent.as_deref(), Some(good));
    assert!(is_traceparent(&good.replacen("00", "cc", 1)));
    assert!(is_traceparent(&format!(
        "{}-what.ever",
        good.replacen("00", "cc", 1)
    )));
    for bad in [
        String::new(),
        good.to_uppercase(),
        good.replacen("00", "ff", 1),
        good.replacen("00", "0x", 1),
        good.replace('-', "_"),
        good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        good.replace("b7ad6b7169203331", &"0".repeat(16)),
        good[..54].to_owned(),
        format!("{good}-00"),
        format!("{good} "),
        format!("cc{}x", &good[2..]),
        format!("cc{}-a b", &good[2..]),
        format!("cc{}-é", &good[2..]),
        format!("cc{}-{}", &good[2..], "a".repeat(500)),
    ] {
        assert!(!is_traceparent(&bad), "{bad}");
        let body = with("traceparent", &format!("\"{bad}\""));
        assert_eq!(decode(body.as_bytes(), 1000).unwrap().traceparent, None);
    }
    for value in ["null", "5", "{}", r#""\ud800""#] {
        let body = with("traceparent", value);
        assert_eq!(decode(body.as_bytes(), 1000).unwrap().traceparent, None);
    }
}

#[test]
fn ids_are_opaque_strings_of_up_to_128_bytes() {
    for id in ["x", "a b", "é", &"x".repeat(128), &"é".repeat(64)] {
        let body = with("id", &format!("\"{id}\""));
        assert_eq!(decode(body.as_bytes(), 1000).unwrap().id, id);
    }
    for id in [
        "",
        &"x".repeat(129),
        &"é".repeat(65),
        r"a\u0000",
        "\u{7f}",
        "\u{85}",
    ] {
        assert_eq!(reason("id", &format!("\"{id}\"")), InvalidField, "{id}");
    }
    assert_eq!(reason("id", ""), MissingField);
    assert_eq!(reason("id", "null"), MissingField);
}

#[test]
fn times_are_rfc_3339_with_an_offset() {
    for (text, millis) in [
        ("2020-02-29T12:00:00Z", "2020-02-29T12:00:00.000Z"),
        ("2020-02-29t12:00:00.1z", "2020-02-29T12:00:00.100Z"),
        ("2020-02-29T12:00:00-00:00", "2020-02-29T12:00:00.000Z"),
        ("2020-02-29T00:00:00+23:59", "2020-02-28T00:01:00.000Z"),
        ("2019-12-31T18:59:60.7-05:00", "2019-12-31T23:59:59.700Z"),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"),
        (
            "9999-12-31T23:59:59.9999999999Z",
            "9999-12-31T23:59:59.999Z",
        ),
        ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59.000Z"),
    ] {
        struct Millis(Gmt);
        impl fmt::Display for Millis {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_millis(f)
            }
        }
        let time = Gmt::parse(text).unwrap_or_else(|fault| panic!("{text} {fault}"));
        assert_eq!(Millis(time).to_string(), millis);
    }
    for text in [
        "",
        "2020-02-29",
        "2020-02-29T12:00:00",
        "2020-02-29T12:00:00.5",
        "2020-02-29T12:00Z",
        "2020-02-29 12:00:00Z",
        "2020-02-29T12:00:00.Z",
        "2020-02-29T12:00:00,5Z",
        "2020-02-29T12:00:00+01",
        "2020-02-29T12:00:00+0100",
        "2020-02-29T12:00:00+24:00",
        "2020-02-29T12:00:00+01:60",
        "2020-02-29T12:00:00Z ",
        " 2020-02-29T12:00:00Z",
        "2020-02-29T12:00:00Z[UTC]",
        "20200229T120000Z",
        "2020-2-29T12:00:00Z",
        "+2020-02-29T12:00:00Z",
        "2021-02-29T12:00:00Z",
        "2020-13-01T12:00:00Z",
        "2020-02-00T12:00:00Z",
        "2020-02-29T24:00:00Z",
        "2020-02-29T12:60:00Z",
        "2020-02-29T12:00:60Z",
        "2020-02-29T23:59:61Z",
        "0000-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "２020-02-29T12:00:00Z",
    ] {
        assert!(Gmt::parse(text).is_err(), "{text}");
        assert_eq!(reason("time", &format!("\"{text}\"")), InvalidField);
    }
}

#[test]
fn a_time_past_the_range_of_timestamps_becomes_the_last_of_them() {
    let time = Gmt::parse("9999-12-31T23:59:59Z").unwrap();
    assert_eq!(time.timestamp(), Timestamp::MAX);
    let time = Gmt::parse("2020-02-29T12:00:00+01:00").unwrap();
    assert_eq!(time.timestamp().to_string(), "2020-02-29T11:00:00Z");
}
