//! What is sent, and over which connections.

use super::*;

#[tokio::test]
async fn the_request_is_exactly_the_documented_one() {
    let receiver = Receiver::answering(OK, Then::Next).await;
    let outcome = send(&sender(), &receiver.url("/hooks"), PLENTY).await;
    assert_eq!(outcome, Outcome::Delivered);
    let requests = receiver.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    let delivery = delivery();
    assert_eq!(body.as_bytes(), delivery.payload);

    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /hooks?key=query-secret HTTP/1.1"));
    let headers: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let value = |name| {
        let mut values = headers.iter().filter(|(n, _)| *n == name);
        let value = values.next().map(|(_, value)| *value);
        assert_eq!(values.next(), None, "{name} once");
        value.unwrap_or_default()
    };
    let mut names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent",
            "webhook-attempt",
            "webhook-id",
            "webhook-signature",
            "webhook-timestamp",
            "webhook-type",
            "x-team",
        ]
    );
    assert_eq!(value("authorization"), AUTHORIZATION);
    assert_eq!(value("content-length"), delivery.payload.len().to_string());
    assert_eq!(value("content-type"), "application/json");
    assert_eq!(value("host"), format!("127.0.0.1:{}", receiver.port));
    assert_eq!(
        value("user-agent"),
        format!("hookbridge/{}", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(value("webhook-attempt"), "1");
    assert_eq!(value("webhook-id"), delivery.webhook_id.to_string());
    assert_eq!(value("webhook-type"), "StatusUpdate");
    assert_eq!(value("x-team"), HEADER);
    let timestamp: i64 = value("webhook-timestamp").parse().unwrap();
    assert!((Timestamp::now().as_second() - timestamp).abs() < 60);
    let to_verify = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let webhook = Webhook::new(SIGNING_SECRET).unwrap();
    webhook.verify(body.as_bytes(), &to_verify).unwrap();
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_fails_the_attempt_without_its_value() {
    let receiver = Receiver::answering(OK, Then::Next).await;
    let target = HttpTarget {
        url: Url::parse(&receiver.url("/hooks")).unwrap(),
        authorization: None,
        headers: vec![("x-team".to_owned(), "header-secret\nx-evil: 1".into())],
    };
    let (sender, subscriber, delivery) = (sender(), subscriber(&[]), delivery());
    let outcome = sender
        .send(&subscriber, &target, &delivery, Attempt::First)
        .await
        .unwrap();
    let failure = failed(outcome);
    assert_eq!(failure.reason, Reason::Protocol);
    assert!(failure.detail.contains("the header x-team"));
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_delivery() {
    for answer in [OK.to_owned(), status("500 Oh no", "sorry")] {
        let receiver = Receiver::answering(answer, Then::Next).await;
        let sender = sender();
        for _ in 0..3 {
            send(&sender, &receiver.url("/hooks"), PLENTY).await;
        }
        assert_eq!(receiver.requests().len(), 3);
        assert_eq!(receiver.connections(), 1);
    }
}

#[tokio::test]
async fn a_connection_closed_between_deliveries_costs_none_of_them() {
    let receiver = Receiver::answering(OK, Then::Close).await;
    let sender = sender();
    for sent in 1..=20 {
        let outcome = send(&sender, &receiver.url("/hooks"), PLENTY).await;
        assert_eq!(outcome, Outcome::Delivered);
        receiver.drained().await;
        assert_eq!(receiver.requests().len(), sent);
    }
    assert_eq!(receiver.connections(), 20);
}

#[tokio::test]
async fn what_was_written_to_a_connection_that_then_closed_is_not_sent_again() {
    let receiver =
        Receiver::following([(OK, Then::Next), ("", Then::Close), (OK, Then::Next)]).await;
    let sender = sender();
    assert_eq!(
        send(&sender, &receiver.url("/hooks"), PLENTY).await,
        Outcome::Delivered
    );
    let failure = failed(send(&sender, &receiver.url("/hooks"), PLENTY).await);
    assert_eq!(failure.reason, Reason::Protocol);
    assert_eq!(receiver.requests().len(), 2);
    assert_eq!(receiver.connections(), 1);
    assert_eq!(
        send(&sender, &receiver.url("/hooks"), PLENTY).await,
        Outcome::Delivered
    );
}
