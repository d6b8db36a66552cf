use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use url::Url;
use uuid::Uuid;

use super::*;
use crate::{
    delivery::webhook_id,
    subscriber::{HttpTarget, Interest, Origin, SubscriberId, Target, WebhookTypes},
    webhook::WebhookType,
};

const NEW: &str = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldw==";
const OLD: &str = "whsec_b2xkLXNlY3JldC1vbGQtc2VjcmV0LW9sZA==";

pub(crate) fn subscriber(secrets: &[&str]) -> Subscriber {
    Subscriber {
        id: SubscriberId::new("fixit"),
        enabled: true,
        interest: Interest::All,
        events: WebhookTypes::default(),
        signing_secrets: secrets.iter().map(|s| (*s).into()).collect(),
        timeout: Duration::from_secs(10),
        max_in_flight: 1,
        target: Target::Http(HttpTarget {
            url: Url::parse("https://fixit.example/hooks").unwrap(),
            authorization: None,
            headers: Vec::new(),
        }),
        origin: Origin::File {
            file: std::path::Path::new("fixit.toml").into(),
            line: 1,
        },
    }
}

pub(crate) fn delivery() -> Delivery {
    Delivery {
        webhook_id: webhook_id("/orders", "1", "fixit"),
        kind: WebhookType::StatusUpdate,
        subscriber: SubscriberId::new(Arc::from("fixit")),
        payload: Bytes::from_static(r#"{"guid":"1","status":"déjà vu"}"#.as_bytes()),
        event_time: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
        replay: 0,
        case: None,
        traceparent: None,
    }
}

fn verifies(secret: &str, payload: &[u8], headers: &[(&'static str, String)]) -> bool {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(payload, &headers).is_ok()
}

#[test]
fn the_headers_stand_in_the_documented_order() {
    let mut delivery = delivery();
    delivery.traceparent =
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
    let now: Timestamp = "2021-04-13T08:58:50.999Z".parse().unwrap();
    let headers = webhook_headers(&subscriber(&[NEW]), &delivery, Attempt::Second, now).unwrap();
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "webhook-id",
            "webhook-timestamp",
            "webhook-type",
            "webhook-attempt",
            "webhook-signature",
            "traceparent"
        ]
    );
    assert_eq!(headers[0].1, delivery.webhook_id.to_string());
    assert_eq!(headers[1].1, "1618304330");
    assert_eq!(headers[2].1, "StatusUpdate");
    assert_eq!(headers[3].1, "2");
    assert_eq!(headers[5].1, delivery.traceparent.unwrap());
}

#[test]
fn without_a_secret_and_a_trace_there_is_no_header_for_them() {
    let now = Timestamp::now();
    let headers = webhook_headers(&subscriber(&[]), &delivery(), Attempt::First, now).unwrap();
    assert_eq!(headers.len(), 4);
    assert_eq!(headers[3], ("webhook-attempt", "1".to_owned()));
}

#[test]
fn a_receiver_verifies_with_the_new_and_with_the_old_secret() {
    let delivery = delivery();
    let now = Timestamp::now();
    let headers =
        webhook_headers(&subscriber(&[NEW, OLD]), &delivery, Attempt::First, now).unwrap();
    assert!(verifies(NEW, &delivery.payload, &headers));
    assert!(verifies(OLD, &delivery.payload, &headers));
    assert!(!verifies(
        "whsec_c29tZWJvZHkgZWxzZQ==",
        &delivery.payload,
        &headers
    ));
    assert!(!verifies(NEW, b"{}", &headers));
}

#[test]
fn the_signature_is_that_of_the_standard_with_the_newest_secret_first() {
    // Computed apart from the library: base64(HMAC-SHA256(key, "id.timestamp.body")).
    let mut delivery = delivery();
    delivery.webhook_id = Uuid::nil();
    delivery.payload = Bytes::from_static(b"{}");
    let headers = webhook_headers(
        &subscriber(&[NEW, OLD]),
        &delivery,
        Attempt::First,
        Timestamp::UNIX_EPOCH,
    )
    .unwrap();
    assert_eq!(
        headers[4].1,
        "v1,KHmlonq7sWhZb0kAr5WCmLuNLW5PI2aGzNMe+z9+8sU= v1,Gr4LK0YXC1tsHppn8mk2t/zKdWT43fLE60pa++Kiqv0="
    );
}

#[test]
fn the_second_attempt_is_signed_for_its_own_time() {
    let (subscriber, delivery) = (subscriber(&[NEW]), delivery());
    let signature = |second| {
        let now = Timestamp::from_second(second).unwrap();
        webhook_headers(&subscriber, &delivery, Attempt::First, now).unwrap()[4].clone()
    };
    assert_ne!(signature(1), signature(2));
    assert_eq!(signature(1), signature(1));
}

#[test]
fn a_secret_that_cannot_sign_fails_the_attempt_without_being_shown() {
    let failure = webhook_headers(
        &subscriber(&["whsec_?not-base64"]),
        &delivery(),
        Attempt::First,
        Timestamp::now(),
    )
    .unwrap_err();
    assert_eq!(failure.reason, Reason::Protocol);
    assert!(!failure.detail.contains("not-base64"));
    assert!(!failure.detail.contains('?'));
}

#[test]
fn a_trace_that_no_header_can_carry_is_left_out() {
    let mut delivery = delivery();
    delivery.traceparent = Some("00-\r\nx-evil: 1".to_owned());
    let now = Timestamp::now();
    let headers = webhook_headers(&subscriber(&[]), &delivery, Attempt::First, now).unwrap();
    assert!(headers.iter().all(|(name, _)| *name != "traceparent"));
}
