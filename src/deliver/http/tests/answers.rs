//! What an answer is taken for.

use super::*;

#[tokio::test]
async fn any_2xx_delivers() {
    for answer in [
        status("200 OK", ""),
        status("200 OK", "received"),
        status("201 Created", r#"{"id":1}"#),
        status("299 Whatever", ""),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
    ] {
        let outcome = answered(&answer, Then::Next, PLENTY).await;
        assert_eq!(outcome, Outcome::Delivered, "{answer}");
    }
}

#[tokio::test]
async fn a_2xx_whose_body_ends_with_the_connection_delivers() {
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ] {
        assert_eq!(
            answered(answer, Then::Close, PLENTY).await,
            Outcome::Delivered
        );
    }
}

#[tokio::test]
async fn a_2xx_with_a_body_without_end_delivers_after_64_kib() {
    let endless = "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n";
    let receiver = Receiver::answering(endless, Then::Flood).await;
    let outcome = send(&sender(), &receiver.url("/hooks"), PLENTY).await;
    assert_eq!(outcome, Outcome::Delivered);
    // Nothing more is taken.
    receiver.drained().await;
}

#[tokio::test]
async fn any_other_status_fails_with_the_beginning_of_the_body() {
    for (line, shown) in [
        (
            "300 Multiple Choices",
            "300 Multiple Choices (redirects are not followed)",
        ),
        (
            "304 Not Modified",
            "304 Not Modified (redirects are not followed)",
        ),
        ("400 Bad Request", "400 Bad Request"),
        ("401 Unauthorized", "401 Unauthorized"),
        ("404 Not Found", "404 Not Found"),
        ("410 Gone", "410 Gone"),
        ("429 Too Many Requests", "429 Too Many Requests"),
        ("500 Oh no", "500 Internal Server Error"),
        ("503 Service Unavailable", "503 Service Unavailable"),
    ] {
        let failure = failure_of(status(line, ""), Then::Next, PLENTY).await;
        assert_eq!(failure.reason, Reason::HttpStatus);
        assert!(
            failure.detail.ends_with(&format!("answered {shown}")),
            "{}",
            failure.detail
        );
    }
    let answer = status(
        "422 Unprocessable Entity",
        "  what\r\n\tis \u{1b}[1m this?\u{7}\n",
    );
    let receiver = Receiver::answering(answer, Then::Next).await;
    let outcome = send(&sender(), &receiver.url("/hooks"), PLENTY).await;
    let Outcome::Failed(failure) = outcome else {
        panic!("delivered")
    };
    let expected = format!(
        "http://127.0.0.1:{}: answered 422 Unprocessable Entity: what is [1m this?",
        receiver.port
    );
    assert_eq!(failure.detail, expected);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::answering(OK, Then::Next).await;
    for line in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let location = elsewhere.url("/elsewhere");
        let answer =
            format!("HTTP/1.1 {line}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let failure = failure_of(answer, Then::Next, PLENTY).await;
        assert_eq!(failure.reason, Reason::HttpStatus);
        assert!(
            failure.detail.contains("not followed"),
            "{}",
            failure.detail
        );
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_answer_is_quoted_up_to_200_bytes_without_the_secrets_in_it() {
    let body = format!(
        "{} {AUTHORIZATION} {HEADER} {SIGNING_SECRET} {QUERY} é",
        "x".repeat(184)
    );
    let failure = failure_of(status("500 Oh no", &body), Then::Next, PLENTY).await;
    let quote = failure.detail.rsplit(": ").next().unwrap();
    assert!(quote.ends_with("x *** *** *** ***"), "{quote}");
    assert_eq!(quote.len(), 200);
    let wide = failure_of(
        status("500 Oh no", &"é日".repeat(10_000)),
        Then::Next,
        PLENTY,
    )
    .await;
    let quote = wide.detail.rsplit(": ").next().unwrap();
    assert!((197..=200).contains(&quote.len()));
    let binary = [
        b"HTTP/1.1 500 Oh no\r\ncontent-length: 3\r\n\r\n".as_slice(),
        &[0xff, 0, b'a'],
    ]
    .concat();
    let binary = failure_of(binary, Then::Next, PLENTY).await;
    assert!(binary.detail.ends_with(": \u{fffd} a"), "{}", binary.detail);
}

#[tokio::test]
async fn a_failures_body_that_hangs_does_not_hide_the_status() {
    let began = Clock::now();
    let failure = failure_of(
        "HTTP/1.1 500 Oh no\r\ncontent-length: 100\r\n\r\nthe database",
        Then::Hang,
        PLENTY,
    )
    .await;
    assert_eq!(failure.reason, Reason::HttpStatus);
    assert!(
        failure.detail.ends_with(": the database"),
        "{}",
        failure.detail
    );
    assert!(began.elapsed() < PLENTY / 2);

    let cut = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 100\r\n\r\nhalf";
    let failure = failure_of(cut, Then::Close, PLENTY).await;
    assert_eq!(failure.reason, Reason::HttpStatus);
    assert!(failure.detail.ends_with(": half"), "{}", failure.detail);

    let flood = "HTTP/1.1 500 Oh no\r\ncontent-length: 10000000000\r\n\r\n";
    let failure = failure_of(flood, Then::Flood, PLENTY).await;
    assert_eq!(failure.reason, Reason::HttpStatus);
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-len"] {
        let failure = failure_of(answer, Then::Hang, SHORT).await;
        assert_eq!(failure.reason, Reason::Timeout);
        assert!(
            failure
                .detail
                .ends_with("connected, but no answer within 400ms"),
            "{}",
            failure.detail
        );
    }
    let failure = failure_of("HTTP/1.1 200 OK\r\nx: ", Then::Trickle, SHORT).await;
    assert_eq!(failure.reason, Reason::Timeout);
}

#[tokio::test]
async fn a_2xx_whose_body_does_not_end_in_time_is_a_timeout() {
    let began = "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n";
    for then in [Then::Hang, Then::Trickle] {
        let failure = failure_of(began, then, SHORT).await;
        assert_eq!(failure.reason, Reason::Timeout);
        assert!(
            failure
                .detail
                .ends_with("answered 200 OK, but the body did not end within 400ms"),
            "{}",
            failure.detail
        );
    }
}

#[tokio::test]
async fn a_2xx_whose_body_breaks_off_is_a_protocol_failure() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n",
    ] {
        let failure = failure_of(answer, Then::Close, PLENTY).await;
        assert_eq!(failure.reason, Reason::Protocol, "{answer}");
        assert!(
            failure
                .detail
                .contains("answered 200 OK, but the body broke off"),
            "{}",
            failure.detail
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_protocol_failure() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\u{0}\u{1}\u{2}garbage without an end\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let failure = failure_of(answer, Then::Close, PLENTY).await;
        assert_eq!(
            failure.reason,
            Reason::Protocol,
            "{answer}: {}",
            failure.detail
        );
    }
}

#[tokio::test]
async fn a_head_without_end_is_a_protocol_failure() {
    let receiver = Receiver::answering("HTTP/1.1 200 OK\r\nx: ", Then::Flood).await;
    let failure = failed(send(&sender(), &receiver.url("/hooks"), PLENTY).await);
    assert_eq!(failure.reason, Reason::Protocol);
    receiver.drained().await;
}

#[tokio::test]
async fn a_connection_reset_before_the_answer_is_a_protocol_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    let reset = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Closed with something left to read, a connection is reset.
        let mut byte = [0];
        tokio::io::AsyncReadExt::read(&mut stream, &mut byte)
            .await
            .unwrap();
    };
    let sender = sender();
    let ((), outcome) = tokio::join!(reset, send(&sender, &url, PLENTY));
    let failure = failed(outcome);
    assert_eq!(failure.reason, Reason::Protocol);
    assert!(
        failure.detail.contains("no valid answer: "),
        "{}",
        failure.detail
    );
}
