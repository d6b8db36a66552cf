//! Against the parser of the client library itself.

use amq_protocol::frame::{AMQPFrame, parsing::parse_frame};
use proptest::{collection::vec, prelude::*};

use super::{fields::DEEPEST, *};

const FRAME_MAX: u32 = 4096;

/// What comes out of a sieve, if `input` comes in pieces of at most these sizes, in turn, and is
/// taken out in pieces of at most `take`.
fn sifted(input: &[u8], pieces: &[usize], take: usize) -> io::Result<(Vec<u8>, Vec<Repair>)> {
    let mut sieve = Sieve::new(0);
    sieve.frame_max = FRAME_MAX as usize;
    let (mut out, mut rest) = (Vec::new(), input);
    let mut empty = |sieve: &mut Sieve| {
        let mut taken = vec![0; take];
        loop {
            let count = sieve.take(&mut taken);
            out.extend_from_slice(&taken[..count]);
            if count == 0 {
                break;
            }
        }
    };
    for piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let room = sieve.room();
        let count = rest.len().min(*piece).min(room.len());
        room[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        sieve.fill(count)?;
        empty(&mut sieve);
    }
    sieve.finish();
    empty(&mut sieve);
    Ok((out, sieve.repairs))
}

/// The same with everything at once.
fn sift_all(input: &[u8]) -> (Vec<u8>, Vec<Repair>) {
    sifted(input, &[usize::MAX], 1000).unwrap()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1][..], &size, payload, &[0xce]].concat()
}

fn method(class: u8, method: u8, arguments: &[u8]) -> Vec<u8> {
    frame(METHOD, &[&[0, class, 0, method][..], arguments].concat())
}

fn name(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

fn deliver(exchange: &[u8], key: &[u8]) -> Vec<u8> {
    let arguments = [&name(b"ctag")[..], &[0; 9], &name(exchange), &name(key)];
    method(60, 60, &arguments.concat())
}

fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    let start = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4];
    frame(
        HEADER,
        &[&start[..], &flags.to_be_bytes(), properties].concat(),
    )
}

fn nested(depth: usize) -> Vec<u8> {
    let inner = (0..depth).fold(long(b""), |inner, _| long(&[b"A", &inner[..]].concat()));
    [&name(b"deep")[..], b"A", &inner].concat()
}

/// The frames in these bytes, as the client library reads them.
fn parsed(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).unwrap();
        assert!(frame_fits(bytes.len() - rest.len(), &frame));
        frames.push(frame);
        bytes = rest;
    }
    frames
}

fn frame_fits(size: usize, frame: &AMQPFrame) -> bool {
    size <= FRAME_MAX as usize || !matches!(frame, AMQPFrame::Header(..))
}

/// Bytes that are UTF-8 half of the time.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..40),
        "\\PC{0,20}".prop_map(String::into_bytes)
    ]
}

/// A value of a table with the letter of its type.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop_oneof![
        Just(b"V".to_vec()),
        any::<u8>().prop_map(|n| vec![b't', n]),
        any::<[u8; 2]>().prop_map(|n| [&b"s"[..], &n].concat()),
        any::<[u8; 4]>().prop_map(|n| [&b"I"[..], &n].concat()),
        any::<[u8; 5]>().prop_map(|n| [&b"D"[..], &n].concat()),
        any::<[u8; 8]>().prop_map(|n| [&b"l"[..], &n].concat()),
        vec(any::<u8>(), 0..2000).prop_map(|text| [&b"S"[..], &long(&text)].concat()),
        (0..60_usize).prop_map(|depth| nested(depth)[5..].to_vec()),
    ];
    plain.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|all| [&b"A"[..], &long(&all.concat())].concat()),
            table(inner).prop_map(|table| [&b"F"[..], &table].concat()),
        ]
    })
}

fn table(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let entry = (any_name(), value).prop_map(|(key, value)| [name(&key), value].concat());
    vec(entry, 0..4).prop_map(|entries| long(&entries.concat()))
}

/// A message as RabbitMQ lets others publish it: its frames, and its body alone.
fn any_message() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let names = (any_name(), any_name(), vec(any_name(), 16));
    let rest = (table(any_value()), any::<u16>(), vec(any::<u8>(), 0..300));
    (names, rest).prop_map(|((exchange, key, names), (table, flags, body))| {
        let mut properties = Vec::new();
        for bit in (2..16).rev().filter(|bit| flags & 1 << bit != 0) {
            properties.extend(match bit {
                13 => table.clone(),
                12 | 11 => vec![1],
                6 => vec![0; 8],
                _ => name(&names[bit]),
            });
        }
        let parts = [
            deliver(&exchange, &key),
            header(flags, &properties),
            frame(BODY, &body),
        ];
        (parts.concat(), body)
    })
}

proptest! {
    #[test]
    fn every_message_can_be_read_and_keeps_its_body(
        messages in vec(any_message(), 1..5),
        pieces in vec(1..3000_usize, 1..5),
        take in 1..2000_usize,
    ) {
        let input: Vec<u8> = messages.iter().flat_map(|(frames, _)| frames.clone()).collect();
        let (out, repairs) = sifted(&input, &pieces, take).unwrap();
        let bodies: Vec<_> = parsed(&out)
            .into_iter()
            .filter_map(|frame| match frame {
                AMQPFrame::Body(_, body) => Some(body),
                _ => None,
            })
            .collect();
        let expected: Vec<_> = messages.into_iter().map(|(_, body)| body).collect();
        prop_assert_eq!(bodies, expected);
        prop_assert_eq!(repairs.is_empty(), out == input);
        // What came out is as it should be, so nothing is left to do.
        prop_assert_eq!(sift_all(&out), (out, Vec::new()));
    }

    #[test]
    fn no_bytes_make_it_panic_or_lose_any_while_frames_are_whole(
        bytes in vec(any::<u8>(), 0..2000),
        pieces in vec(1..300_usize, 1..5),
    ) {
        if let Ok((out, repairs)) = sifted(&bytes, &pieces, 100) {
            prop_assert!(!repairs.is_empty() || out == bytes);
        }
    }

    #[test]
    fn no_payload_makes_it_panic_and_the_next_frame_is_untouched(
        kind in prop_oneof![Just(METHOD), Just(HEADER)],
        payload in vec(prop_oneof![0..4_u8, Just(60), any::<u8>()], 0..200),
    ) {
        let next = frame(BODY, b"next");
        if let Ok((out, _)) = sifted(&[frame(kind, &payload), next.clone()].concat(), &[7], 9) {
            prop_assert!(out.ends_with(&next));
        }
    }
}

#[test]
fn a_message_is_repaired_the_same_wherever_it_is_split() {
    let headers = long(&[&name(b"M\xfcller")[..], b"S", &long(b"M\xfcller")].concat());
    let input = [
        deliver(b"\xc3", b"M\xfcller"),
        header(HEADERS | 1 << 5, &[headers, name(b"\xe2\x82")].concat()),
        frame(BODY, b"\xff\xff\xff\xff"),
        frame(HEARTBEAT, b""),
    ]
    .concat();
    let headers = long(&[&name(b"M?ller")[..], b"S", &long(b"M\xfcller")].concat());
    let expected = [
        deliver(b"?", b"M?ller"),
        header(HEADERS | 1 << 5, &[headers, name(b"??")].concat()),
        frame(BODY, b"\xff\xff\xff\xff"),
        frame(HEARTBEAT, b""),
    ]
    .concat();
    for first in 1..input.len() {
        let (out, repairs) = sifted(&input, &[first, input.len()], 5).unwrap();
        assert_eq!(out, expected, "split at {first}");
        assert_eq!(repairs, [Repair::Names, Repair::Names]);
    }
}

#[test]
fn headers_go_and_the_other_properties_stay_when_a_frame_is_too_large_or_nested_too_deep() {
    let padding = |size| [&name(b"p")[..], b"S", &long(&vec![b'x'; size])].concat();
    let message = |headers: &[u8]| {
        let properties = [&name(b"text")[..], &long(headers), &[2], &name(b"id")];
        header(0xb080, &properties.concat())
    };
    let fits = FRAME_MAX as usize - message(&padding(0)).len();
    let largest = message(&padding(fits));
    assert_eq!(largest.len(), FRAME_MAX as usize);
    assert_eq!(sift_all(&largest), (largest, Vec::new()));
    let without = header(0x9080, &[&name(b"text")[..], &[2], &name(b"id")].concat());
    for headers in [
        padding(fits + 1),
        nested(DEEPEST),
        nested(20_000),
        b"\x01xZ".to_vec(),
    ] {
        let (out, repairs) = sift_all(&[message(&headers), frame(BODY, b"body")].concat());
        assert_eq!(out, [without.clone(), frame(BODY, b"body")].concat());
        assert_eq!(repairs, [Repair::Headers]);
    }
    let deepest = message(&nested(DEEPEST - 2));
    assert_eq!(sift_all(&deepest), (deepest, Vec::new()));
}

#[test]
fn properties_that_make_no_sense_are_left_out() {
    for properties in [&b"\x09cut"[..], b"\x03texttrailing"] {
        let (out, repairs) = sift_all(&[header(1 << 15, properties), frame(BODY, b"")].concat());
        assert_eq!(out, [header(0, b""), frame(BODY, b"")].concat());
        assert_eq!(repairs, [Repair::Properties]);
    }
}

#[test]
fn every_method_with_names_of_others_is_repaired() {
    let bad = name(b"\xff");
    let methods = [
        (10, 50, [&[0; 2][..], &bad, &[0; 4]].concat()),
        (20, 40, [&[0; 2][..], &bad, &[0; 4]].concat()),
        (60, 50, [&[0; 2][..], &bad, &bad, &bad].concat()),
        (60, 60, [&bad[..], &[0; 9], &bad, &bad].concat()),
        (60, 71, [&[0; 9][..], &bad, &bad, &[0; 4]].concat()),
    ];
    for (class, id, arguments) in methods {
        let bytes = method(class, id, &arguments);
        assert!(parse_frame(&bytes[..]).is_err(), "{class}.{id}");
        let (out, repairs) = sift_all(&bytes);
        assert_eq!(parsed(&out).len(), 1);
        assert_eq!(repairs, [Repair::Names], "{class}.{id}");
    }
}

#[test]
fn a_broker_that_would_end_the_process_is_left() {
    let start = |table: &[u8]| {
        let arguments = [&[0, 9][..], table, &long(b"PLAIN"), &long(b"en_US")];
        method(10, 10, &arguments.concat())
    };
    let fine = start(&long(&nested(5)));
    assert_eq!(sift_all(&fine), (fine, Vec::new()));
    for bytes in [start(&long(&nested(20_000))), method(50, 10, b"")] {
        let error = sifted(&bytes, &[1000], 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn the_smaller_limit_is_agreed_on() {
    let tune = |frame_max: u32| {
        let arguments = [&[0, 0][..], &frame_max.to_be_bytes(), &[0, 0]];
        method(10, 30, &arguments.concat())
    };
    for (own, peers, expected) in [
        (0, 0, u32::MAX),
        (0, 131_072, 131_072),
        (16_384, 131_072, 16_384),
        (16_384, 0, 16_384),
        (131_072, 8_192, 8_192),
        (0, 100, 4096),
    ] {
        let mut sieve = Sieve::new(own);
        let bytes = tune(peers);
        sieve.room()[..bytes.len()].copy_from_slice(&bytes);
        sieve.fill(bytes.len()).unwrap();
        assert_eq!(sieve.frame_max, expected as usize, "{own} and {peers}");
    }
}

#[test]
fn a_stream_that_ends_in_a_frame_gives_what_came() {
    let bytes = &deliver(b"\xff", b"key")[..12];
    assert_eq!(sift_all(bytes).0, bytes);
    let bytes = b"AMQP\0\0\x09\x01";
    assert_eq!(sift_all(bytes).0, bytes, "what is no frame passes");
}
