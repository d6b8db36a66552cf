//! Where a delivery goes, and where it must not.

use std::net::SocketAddr;

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::*;

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_a_timeout() {
    // The handshake never comes, though the kernel takes the connection.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://receiver.example:{}/hooks",
        listener.local_addr().unwrap().port()
    );
    let failure = failed(send(&sender(), &url, SHORT).await);
    assert_eq!(failure.reason, Reason::Timeout);
    assert!(
        failure.detail.ends_with(": no connection within 400ms"),
        "{}",
        failure.detail
    );
}

#[tokio::test]
async fn connecting_takes_ten_seconds_at_most_and_is_a_timeout_then() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("https://receiver.example:{port}/hooks");
    let failure = failed(send(&sender(), &url, PLENTY).await);
    assert_eq!(failure.reason, Reason::Timeout);
    assert!(
        failure.detail.contains("cannot connect"),
        "{}",
        failure.detail
    );
}

#[tokio::test]
async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let receiver = Receiver::answering(OK, Then::Close).await;
    // What the system lets wait there is full: as at a machine that is off, nobody answers.
    let socket = TcpSocket::new_v4().unwrap();
    let silent = SocketAddr::from(([127, 0, 0, 2], receiver.port));
    socket.bind(silent).unwrap();
    let _listener = socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(SHORT, TcpStream::connect(silent)).await {
        waiting.push(connected.unwrap());
    }
    let guard = AddressGuard::with_lookup(
        vec!["127.0.0.0/8".parse().unwrap()],
        Lookup::Fixed(Arc::new(|_| {
            let addresses = [[127, 0, 0, 2], [127, 0, 0, 1]];
            Ok(addresses.map(IpAddr::from).to_vec())
        })),
    );
    let sender = HttpSender::new(&targets(), guard).unwrap();
    let url = format!("http://receiver.example:{}/hooks", receiver.port);
    assert_eq!(send(&sender, &url, PLENTY).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://127.0.0.1:{port}/hooks");
        let failure = failed(send(&sender(), &url, PLENTY).await);
        assert_eq!(failure.reason, Reason::Connect);
        let expected = format!(
            "{scheme}://127.0.0.1:{port}: cannot connect: Connection refused (os error 111)"
        );
        assert_eq!(failure.detail, expected);
    }
}

#[tokio::test]
async fn an_unknown_name_is_a_dns_failure() {
    let sender = sender_resolving(|_| Err(io::Error::other("no such host is known")));
    let failure = failed(send(&sender, "http://nobody.example/hooks", PLENTY).await);
    assert_eq!(failure.reason, Reason::Dns);
    assert_eq!(
        failure.detail,
        "http://nobody.example:80: the name does not resolve: no such host is known"
    );
}

#[tokio::test]
async fn a_name_that_hangs_is_a_timeout() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let sender = sender_resolving(move |_| {
        let _ = held.lock().unwrap().recv();
        Ok(Vec::new())
    });
    let failure = failed(send(&sender, "http://hanging.example/hooks", SHORT).await);
    assert_eq!(failure.reason, Reason::Timeout);
    drop(release);
}

#[tokio::test]
async fn a_forbidden_address_is_not_called() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [
        "127.0.0.2",
        "2130706434",
        "0x7f.2",
        "[::ffff:127.0.0.2]",
        "[::1]",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/hooks");
        let failure = failed(send(&sender(), &url, PLENTY).await);
        assert_eq!(failure.reason, Reason::TargetForbidden, "{host}");
        assert!(
            failure.detail.contains("is a forbidden address"),
            "{}",
            failure.detail
        );
    }
    let inner = sender_resolving(|_| Ok(vec![IpAddr::from([127, 0, 0, 2])]));
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://inner.example:{port}/hooks");
        let failure = failed(send(&inner, &url, PLENTY).await);
        assert_eq!(failure.reason, Reason::TargetForbidden);
        assert_eq!(
            failure.detail,
            format!("{scheme}://inner.example:{port}: 127.0.0.2 is a forbidden address (loopback)")
        );
    }
    assert!(
        futures_util::poll!(Box::pin(listener.accept())).is_pending(),
        "nobody came"
    );
}

#[tokio::test]
async fn a_name_whose_address_changes_is_called_where_it_was_checked_and_nowhere_else() {
    // 127.0.0.1 stands for a public address here, 127.0.0.2 for a forbidden one.
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let public = Receiver::answering(closing, Then::Close).await;
    let forbidden = TcpListener::bind(("127.0.0.2", public.port)).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let sender = sender_resolving({
        let asked = Arc::clone(&asked);
        move |_| {
            let last = if asked.fetch_add(1, Ordering::Relaxed) == 0 {
                1
            } else {
                2
            };
            Ok(vec![IpAddr::from([127, 0, 0, last])])
        }
    });
    let url = format!("http://turning.example:{}/hooks", public.port);
    assert_eq!(send(&sender, &url, PLENTY).await, Outcome::Delivered);
    assert_eq!(
        asked.load(Ordering::Relaxed),
        1,
        "no look-up between check and connection"
    );
    public.drained().await;

    let failure = failed(send(&sender, &url, PLENTY).await);
    assert_eq!(failure.reason, Reason::TargetForbidden);
    assert_eq!(public.connections(), 1);
    assert!(
        futures_util::poll!(Box::pin(forbidden.accept())).is_pending(),
        "nobody came"
    );
}

#[tokio::test]
async fn behind_a_proxy_the_proxy_gets_the_request_and_does_the_check() {
    let proxy = Receiver::answering(OK, Then::Next).await;
    let targets = TargetsSettings {
        proxy: Some(format!("http://bridge:proxy-secret@127.0.0.1:{}", proxy.port).into()),
        ..targets()
    };
    let sender = HttpSender::new(&targets, AddressGuard::new(Vec::new())).unwrap();
    for host in ["receiver.example", "10.0.0.1"] {
        let outcome = send(&sender, &format!("http://{host}/hooks"), PLENTY).await;
        assert_eq!(outcome, Outcome::Delivered);
        let request = proxy.requests().pop().unwrap();
        assert!(
            request.starts_with(&format!("POST http://{host}/hooks?")),
            "{request}"
        );
        assert!(request.contains("\r\nproxy-authorization: Basic "));
    }
    // To an https:// target it is a tunnel, which this proxy does not make.
    let refusing = Receiver::answering("HTTP/1.1 403 Forbidden\r\n\r\n", Then::Close).await;
    let targets = TargetsSettings {
        proxy: Some(format!("http://bridge:proxy-secret@127.0.0.1:{}", refusing.port).into()),
        ..targets
    };
    let sender = HttpSender::new(&targets, AddressGuard::new(Vec::new())).unwrap();
    let failure = failed(send(&sender, "https://receiver.example/hooks", PLENTY).await);
    assert_eq!(failure.reason, Reason::Connect);
    assert!(refusing.requests()[0].starts_with("CONNECT receiver.example:443 "));
    assert!(!refusing.requests()[0].contains(AUTHORIZATION));
}

#[test]
fn a_wrong_setting_is_named_without_its_secret() {
    let refused = |targets: TargetsSettings| {
        let guard = AddressGuard::new(Vec::new());
        HttpSender::new(&targets, guard).err().unwrap().to_string()
    };
    for proxy in [
        "socks5://bridge:secret@proxy",
        "bridge:secret@proxy",
        "http://",
        "not a url",
    ] {
        let error = refused(TargetsSettings {
            proxy: Some(proxy.into()),
            ..targets()
        });
        assert_eq!(error, "targets.proxy is not an http:// or https:// URL");
    }
    let missing = PathBuf::from("/nowhere/ca.pem");
    let error = refused(TargetsSettings {
        ca_file: Some(missing),
        ..targets()
    });
    assert!(
        error.starts_with("cannot read targets.ca_file /nowhere/ca.pem: "),
        "{error}"
    );
    for text in ["", "no certificate"] {
        let file = ScratchFile::holding(text);
        let error = refused(TargetsSettings {
            ca_file: Some(file.0.clone()),
            ..targets()
        });
        assert!(error.ends_with(" holds no PEM certificate"), "{error}");
    }
}
