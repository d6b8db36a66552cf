//! Who gets in: tokens and their roles, TLS, and the bounds that keep the listener standing.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    api::{Answer, Api, OPERATOR, TOKENS, VIEWER},
    bridge::Setup,
    broker::Vhost,
    certificates::{Authority, end_of},
    eventually::{SOON, eventually},
    http::{Answer as Reply, Receiver},
    program,
};

#[track_caller]
fn is_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(answer.status, status, "{:#}", answer.body);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(
        answer.body["type"],
        format!("urn:hookbridge:problem:{kind}")
    );
    assert_eq!(answer.body["status"], status);
    assert!(answer.detail().len() > 10, "{:#}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_in_the_settings_the_api_is_closed_and_says_so() {
    let vhost = Vhost::new("doors");
    let bridge = Setup::new(&vhost).start().await;
    let api = Api::new(bridge.admin(), Some(OPERATOR));
    let closed = api.get("/v1/subscribers").await;
    is_problem(&closed, 403, "no-token-configured");
    assert!(
        closed.detail().contains("[[admin.token]]"),
        "{}",
        closed.detail()
    );
    is_problem(&api.get("/v1/nothing").await, 403, "no-token-configured");
    api.get("/openapi.json").await.expect(200);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_role_may_and_nothing_else() {
    let vhost = Vhost::new("doors");
    let bridge = Setup::new(&vhost).settings(TOKENS).start().await;
    let nobody = Api::new(bridge.admin(), None).get("/v1/subscribers").await;
    is_problem(&nobody, 401, "unauthorized");
    let challenge = nobody.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"hookbridge\""));
    let wrong = Api::new(bridge.admin(), Some("operators-toke"))
        .get("/v1/nothing")
        .await;
    is_problem(&wrong, 401, "unauthorized");
    assert!(
        wrong
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    assert!(!wrong.body.to_string().contains("operators-toke"));

    let viewer = Api::new(bridge.admin(), Some(VIEWER));
    viewer.get("/v1/subscribers").await.expect(200);
    let hook = json!({"url": "https://a.example"});
    for answer in [
        viewer.put("/v1/cases/one/hook", hook).await,
        viewer.delete("/v1/subscribers/one").await,
        viewer
            .patch("/v1/subscribers/one", json!({"enabled": true}))
            .await,
        viewer
            .post("/v1/subscribers/one/test", json!({"type": "StatusUpdate"}))
            .await,
        viewer
            .post("/v1/dead-letters/replay", json!({"dry_run": true}))
            .await,
    ] {
        is_problem(&answer, 403, "operators-only");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_logged_and_what_they_sent_is_not() {
    let vhost = Vhost::new("doors");
    let setup = program::Setup::of(&vhost);
    setup.tokens(&[("ops", OPERATOR, "operator"), ("desk", VIEWER, "viewer")]);
    let mut program = setup.run_ready().await;
    let address = program.admin().await.parse().unwrap();
    let wrong = Some("zQplanted-wrong");
    for token in [None, wrong, wrong, wrong, wrong] {
        let stranger = Api::new(address, token);
        stranger.get("/v1/subscribers").await.expect(401);
    }
    let viewer = Api::new(address, Some(VIEWER));
    viewer.delete("/v1/subscribers/one").await.expect(403);
    let said = program.wait_said("by=\"desk\"", SOON).await.text;
    assert!(said.contains("may read and not change"), "{said}");
    let said = program.wait_said("carries no token", SOON).await.text;
    assert!(said.contains("from=127.0.0.1"), "{said}");
    program
        .wait_said("none of those in the settings", SOON)
        .await;
    program.signal("TERM");
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    // Those of the same kind are counted.
    let log = program.log_text();
    let of_kind = |line: &&str| line.contains("none of those in the settings");
    let lines: Vec<_> = log.lines().filter(of_kind).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains("unsaid=2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_token_or_certificate_is_taken_over_at_a_reload() {
    let vhost = Vhost::new("doors");
    let setup = program::Setup::of(&vhost);
    setup.tokens(&[("ops", OPERATOR, "operator")]);
    let certificate = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(setup.path("admin.crt"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(setup.path("admin.key"), key).unwrap();
        made.cert.pem()
    };
    let first = certificate();
    setup.set("admin.certificate_file", "admin.crt");
    setup.set("admin.key_file", "admin.key");
    let program = setup.run();
    let address: std::net::SocketAddr = program.admin().await.parse().unwrap();
    let api = |certificate: &str, token: &str| {
        let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([certificate])
            .resolve("localhost", address)
            .build()
            .unwrap();
        Api::with_client(
            format!("https://localhost:{}", address.port()),
            token,
            client,
        )
    };
    api(&first, OPERATOR)
        .get("/v1/subscribers")
        .await
        .expect(200);

    // What is wrong changes nothing.
    std::fs::write(setup.path("ops.token"), "two words").unwrap();
    std::fs::write(setup.path("admin.crt"), "nothing").unwrap();
    program.signal("HUP");
    program.wait_said("tokens stay as they were", SOON).await;
    let said = program.wait_said("certificate stays as it was", SOON).await;
    assert!(said.text.contains("admin.crt"), "{}", said.text);
    assert_eq!(program.said("two words"), 0);
    api(&first, OPERATOR)
        .get("/v1/subscribers")
        .await
        .expect(200);

    let second = certificate();
    std::fs::write(setup.path("ops.token"), "zQplanted-another\n").unwrap();
    program.signal("HUP");
    program.wait_said("certificate is read again", SOON).await;
    for (token, status) in [("zQplanted-another", 200), (OPERATOR, 401)] {
        let answer = api(&second, token).get("/v1/subscribers").await;
        answer.expect(status);
    }
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_that_is_told_is_that_of_the_certificate_that_is_shown() {
    let vhost = Vhost::new("doors");
    let setup = program::Setup::of(&vhost);
    let authority = Authority::new();
    let folder = setup.path("");
    authority.client(2035).write(&folder, "admin");
    setup.set("admin.certificate_file", "admin.pem");
    setup.set("admin.key_file", "admin.key");
    let program = setup.run();
    let address = program.admin().await;
    // Whose certificate it is does not matter here.
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let told = async |year: i32| {
        let what = format!("the end in {year} is told");
        let series = "hookbridge_certificate_expiry_timestamp_seconds{certificate=\"admin\"} ";
        let reached = async || {
            let asked = client.get(format!("https://{address}/metrics")).send();
            let text = asked.await.ok()?.text().await.ok()?;
            let end = text.lines().find_map(|line| line.strip_prefix(series))?;
            ((end.parse::<f64>().unwrap() - end_of(year)).abs() < 1.0).then_some(())
        };
        eventually(&what, SOON, reached).await;
    };
    told(2035).await;
    authority.client(2036).write(&folder, "admin");
    program.signal("HUP");
    program.wait_said("certificate is read again", SOON).await;
    told(2036).await;
    // One that is not taken is not shown either.
    std::fs::write(setup.path("admin.pem"), "nothing").unwrap();
    program.signal("HUP");
    program.wait_said("certificate stays as it was", SOON).await;
    told(2036).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_also_where_nothing_is() {
    let vhost = Vhost::new("doors");
    let bridge = Setup::new(&vhost).settings(TOKENS).sqlite().start().await;
    let api = bridge.api();
    is_problem(&api.get("/v1/nothing").await, 404, "not-found");
    is_problem(&api.get("/nothing").await, 404, "not-found");
    is_problem(&api.get("/v1/subscribers/none").await, 404, "not-found");
    let method = api.post("/v1/subscribers", json!({})).await;
    is_problem(&method, 405, "method-not-allowed");
    let allowed = method.header("allow").unwrap_or_default();
    assert!(allowed.contains("GET"), "{allowed}");

    let path = "/v1/subscribers/one";
    let put = |kind: &str, body: Vec<u8>| {
        let request = api.request("PUT", path).header("content-type", kind);
        api.answer(request.body(body))
    };
    is_problem(&put("text/plain", b"{}".to_vec()).await, 415, "not-json");
    let broken = put(
        "application/json",
        b"{\"authorization\": \"s3cret\", ".to_vec(),
    )
    .await;
    is_problem(&broken, 400, "bad-request");
    assert!(!broken.body.to_string().contains("s3cret"));
    let large = vec![b' '; 1024 * 1024 + 1];
    is_problem(&put("application/json", large).await, 413, "too-large");
    let chunks =
        futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])));
    let request = api
        .request("PUT", path)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(chunks));
    is_problem(&api.answer(request).await, 413, "too-large");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_turned_away_and_disturb_no_other_token() {
    let vhost = Vhost::new("doors");
    let bridge = Setup::new(&vhost).settings(TOKENS).start().await;
    let stranger = Api::new(bridge.admin(), Some("wrong"));
    let mut last = stranger.get("/v1/subscribers").await;
    for _ in 0..1000 {
        if last.status != 401 {
            break;
        }
        last = stranger.get("/v1/subscribers").await;
    }
    is_problem(&last, 429, "too-many-requests");
    assert_eq!(last.header("retry-after"), Some("1"));
    bridge.api().get("/v1/subscribers").await.expect(200);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_listener_speaks_tls_and_nothing_else() {
    let vhost = Vhost::new("doors");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let setup = Setup::new(&vhost)
        .settings(TOKENS)
        .settings("[admin]\ncertificate_file = \"admin.crt\"\nkey_file = \"admin.key\"");
    std::fs::write(setup.folder().join("admin.crt"), made.cert.pem()).unwrap();
    std::fs::write(
        setup.folder().join("admin.key"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    let bridge = setup.start_unready().await;
    let certificate = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([certificate])
        .resolve("localhost", bridge.admin())
        .build()
        .unwrap();
    let base = format!("https://localhost:{}", bridge.admin().port());
    let api = Api::with_client(base, OPERATOR, client);
    api.get("/v1/subscribers").await.expect(200);

    let address = bridge.admin().to_string();
    let healthy = async || {
        let asked = tokio::process::Command::new(env!("CARGO_BIN_EXE_hookbridge"))
            .args(["healthcheck", "--address", &address, "--tls"])
            .output()
            .await;
        (asked.unwrap().status.code() == Some(0)).then_some(())
    };
    eventually("the healthcheck is content, over TLS", SOON * 3, healthy).await;

    // One that shakes no hands holds up nobody.
    let mut silent = TcpStream::connect(bridge.admin()).await.unwrap();
    api.get("/v1/subscribers").await.expect(200);
    silent
        .write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut answer));
    // A reset says the same as an end.
    let _ = read.await.unwrap();
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP/1.1"),
        "no word in the clear"
    );
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    let vhost = Vhost::new("doors");
    let bridge = Setup::new(&vhost).settings(TOKENS).start().await;
    let mut slow = TcpStream::connect(bridge.admin()).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhos").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(30), slow.read_to_end(&mut answer));
    assert!(closed.await.is_ok(), "still open");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_reads_nothing_is_closed() {
    let vhost = Vhost::new("doors");
    let bridge = Setup::new(&vhost).settings(TOKENS).start().await;
    let mut deaf = TcpStream::connect(bridge.admin()).await.unwrap();
    let filling = async {
        // Ends when the bridge hangs up: until then its answers fill what lies between.
        while deaf
            .write_all(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .is_ok()
        {}
    };
    let closed = tokio::time::timeout(Duration::from_mins(1), filling).await;
    assert!(closed.is_ok(), "it holds its place");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_test_too_many_is_told_when_to_come_again() {
    let vhost = Vhost::new("doors");
    let receiver = Receiver::start().await;
    receiver.answer("/hangs", Reply::Hang);
    let setup = Setup::new(&vhost).settings(TOKENS).sqlite();
    let bridge = setup.start().await;
    let api = bridge.api();
    let hangs = json!({
        "scope": "all", "events": ["*"], "timeout": "3s", "http": {"url": receiver.url("/hangs")},
    });
    api.put("/v1/subscribers/one", hangs).await.expect(201);
    let test = || api.post("/v1/subscribers/one/test", json!({"type": "StatusUpdate"}));
    let answers = futures_util::future::join_all((0..20).map(|_| test())).await;
    let (refused, made): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status != 200);
    assert_eq!((refused.len(), made.len()), (4, 16));
    for answer in refused {
        is_problem(answer, 429, "too-many-tests");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    bridge.stop().await;
}
