//! Endpoints by TLS.

use super::*;

#[tokio::test]
async fn a_trusted_certificate_delivers_over_tls() {
    let authority = Authority::new();
    let mut tls = authority.server("receiver.example");
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let receiver = Receiver::with_tls(OK, Then::Next, tls).await;
    let url = format!("https://receiver.example:{}/hooks", receiver.port);
    let outcome = send(&sender_trusting(&authority), &url, PLENTY).await;
    assert_eq!(outcome, Outcome::Delivered);
    assert_eq!(receiver.alpn().as_deref(), Some(b"http/1.1".as_slice()));
}

#[tokio::test]
async fn an_endpoint_that_speaks_http_2_gets_it() {
    let authority = Authority::new();
    let mut tls = authority.server("receiver.example");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut received = Vec::new();
        for status in [204, 500] {
            let (mut request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut answer = http::Response::new(());
            *answer.status_mut() = status.try_into().unwrap();
            respond.send_response(answer, true).unwrap();
            received.push(request.headers()["content-length"].clone());
            let reading = async { request.body_mut().data().await.unwrap().unwrap() };
            tokio::select! {
                body = reading => assert_eq!(body, delivery().payload),
                next = connection.accept() => panic!("{next:?} before the body"),
            }
        }
        connection.graceful_shutdown();
        let _ = connection.accept().await;
        received
    };
    let sender = sender_trusting(&authority);
    let url = format!("https://receiver.example:{port}/hooks");
    let sending = async {
        let first = send(&sender, &url, PLENTY).await;
        let second = send(&sender, &url, PLENTY).await;
        drop(sender);
        (first, second)
    };
    let (received, (first, second)) = tokio::join!(serve, sending);
    assert_eq!(first, Outcome::Delivered);
    assert_eq!(failed(second).reason, Reason::HttpStatus);
    let length = delivery().payload.len().to_string();
    assert_eq!(received, [length.as_str(), length.as_str()]);
}

#[tokio::test]
async fn an_answer_that_is_not_http_2_is_a_protocol_failure() {
    let authority = Authority::new();
    let mut tls = authority.server("receiver.example");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let receiver = Receiver::with_tls("not a frame of HTTP/2", Then::Close, tls).await;
    let url = format!("https://receiver.example:{}/hooks", receiver.port);
    let failure = failed(send(&sender_trusting(&authority), &url, PLENTY).await);
    assert_eq!(failure.reason, Reason::Protocol, "{}", failure.detail);
    assert_eq!(receiver.alpn().as_deref(), Some(b"h2".as_slice()));
}

#[tokio::test]
async fn a_handshake_that_fails_is_a_tls_failure() {
    let authority = Authority::new();
    let url = |receiver: &Receiver| format!("https://receiver.example:{}/hooks", receiver.port);

    let tls = authority.server("receiver.example");
    let receiver = Receiver::with_tls(OK, Then::Next, tls).await;
    let failure = failed(send(&sender(), &url(&receiver), PLENTY).await);
    assert_eq!(failure.reason, Reason::Tls, "untrusted");
    assert!(
        failure
            .detail
            .contains("TLS failed: invalid peer certificate"),
        "{}",
        failure.detail
    );
    assert!(receiver.requests().is_empty());

    let trusting = sender_trusting(&authority);
    let tls = authority.server("somebody-else.example");
    let receiver = Receiver::with_tls(OK, Then::Next, tls).await;
    let failure = failed(send(&trusting, &url(&receiver), PLENTY).await);
    assert_eq!(failure.reason, Reason::Tls, "another name");
    assert!(receiver.requests().is_empty());

    let tls = authority.suspicious_server("receiver.example");
    let receiver = Receiver::with_tls(OK, Then::Next, tls).await;
    let failure = failed(send(&trusting, &url(&receiver), PLENTY).await);
    assert_eq!(
        failure.reason,
        Reason::Tls,
        "wants a client certificate: {}",
        failure.detail
    );
    assert!(receiver.requests().is_empty());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = format!(
        "https://receiver.example:{}/hooks",
        listener.local_addr().unwrap().port()
    );
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 4096];
            tokio::io::AsyncReadExt::read(&mut stream, &mut hello)
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut stream)
                .await
                .unwrap();
            stream
        };
        let sender = sender();
        let (_stream, outcome) = tokio::join!(serve, send(&sender, &plain, PLENTY));
        let failure = failed(outcome);
        assert_eq!(
            failure.reason,
            Reason::Tls,
            "answered {answer:?}: {}",
            failure.detail
        );
    }
}
