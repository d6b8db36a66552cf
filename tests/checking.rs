//! `hookbridge check` and `hookbridge run` refuse the same files, and name them.

use std::time::Duration;

use hookbridge::{
    settings::{StorePlace, StoreSettings},
    store::{Store, StoreError},
};

use crate::support::{certificates::Authority, program::Setup};

/// Nobody listens there: what is refused is refused before anything is connected.
const NOWHERE: &str = "amqps://localhost:1";

/// 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Settings with every kind of file, all of them sound.
fn sound() -> Setup {
    let setup = Setup::new(NOWHERE);
    let authority = Authority::new();
    for name in ["admin", "broker", "targets"] {
        authority.client(2040).write(&setup.path(""), name);
    }
    std::fs::write(setup.path("ca.pem"), &authority.pem).unwrap();
    std::fs::write(setup.path("store.key"), KEY).unwrap();
    setup.set("admin.certificate_file", "admin.pem");
    setup.set("admin.key_file", "admin.key");
    for section in ["broker", "targets"] {
        let file = |end: &str| format!("{section}.{end}");
        setup.set(&format!("{section}.ca_file"), "ca.pem");
        setup.set(&format!("{section}.client_certificate_file"), file("pem"));
        setup.set(&format!("{section}.client_key_file"), file("key"));
    }
    setup.set("store.url", "sqlite://store.db");
    setup.set("store.secret_key_file", "store.key");
    setup.tokens(&[("ops", "a-token-that-is-long-enough", "operator")]);
    setup.http_subscriber("one", "https://one.example");
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_files_hold_is_refused_by_check_and_by_run() {
    let setup = sound();
    let said = setup.call(&["check"]).await;
    let ok = "ok: 1 subscriber (1 enabled)\n";
    assert_eq!((said.code, said.out.as_str()), (Some(0), ok));

    let files = [
        ("admin.pem", "admin.certificate_file", "the certificate"),
        ("admin.key", "admin.key_file", "private key"),
        ("ca.pem", "targets.ca_file", "the authorities'"),
        ("ca.pem", "broker.ca_file", "the authorities'"),
        ("broker.pem", "broker.client_certificate_file", "its chain"),
        ("broker.key", "broker.client_key_file", "private key"),
        (
            "targets.pem",
            "targets.client_certificate_file",
            "its chain",
        ),
        ("targets.key", "targets.client_key_file", "private key"),
        ("store.key", "store.secret_key_file", "openssl rand"),
    ];
    let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for (file, key, remedy) in files {
        let before = std::fs::read(setup.path(file)).unwrap();
        for garbage in ["garbage", torn] {
            std::fs::write(setup.path(file), garbage).unwrap();
            for command in ["check", "run"] {
                let said = setup.call(&[command]).await;
                let words = said.out + &said.err;
                assert_eq!(said.code, Some(1), "{command}, {file}: {words}");
                let line = words
                    .lines()
                    .find(|line| line.contains(&format!("`{key}`")));
                let line = line.unwrap_or_else(|| panic!("{command} does not name {key}: {words}"));
                assert!(line.contains(file) && line.contains(remedy), "{line}");
                assert!(line.contains("hookbridge.toml:"), "{line}");
            }
        }
        // What needs the settings for something else does not mind.
        let said = setup.call(&["topology"]).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
        std::fs::write(setup.path(file), before).unwrap();
    }

    // Sound by itself, and another's.
    std::fs::copy(setup.path("broker.key"), setup.path("admin.key")).unwrap();
    let said = setup.call(&["check"]).await;
    assert!(said.out.contains("cannot be used with"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_can_be_guessed_is_warned_of() {
    let setup = sound();
    setup.tokens(&[("ops", "x", "operator")]);
    let said = setup.call(&["check"]).await;
    assert_eq!(said.code, Some(0), "{}", said.out);
    let warned = "warning: `admin.token.value_file` has a length of 1, and can be guessed";
    assert!(said.out.contains(warned), "{}", said.out);
    assert!(said.out.ends_with(", 1 warning\n"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_the_store_agree_about_the_files_of_keys() {
    let setup = sound();
    let url = setup.path("store.db");
    for (text, sound) in [
        (KEY.to_owned(), true),
        (format!("\n  {KEY}\r\n\n{KEY}\n"), true),
        (format!("{KEY}\n{KEY}\n{KEY}\n"), false),
        ("c2hvcnQ=".to_owned(), false),
        (format!("{KEY} "), true),
        (KEY.replace('=', ""), false),
        ("\n".to_owned(), false),
        (String::new(), false),
    ] {
        std::fs::write(setup.path("store.key"), &text).unwrap();
        let store = Store::new(StoreSettings {
            place: StorePlace::Sqlite(url.clone()),
            secret_key_file: setup.path("store.key"),
            dead_letter_retention: Some(Duration::from_hours(1)),
        });
        let opened = store.open().await;
        let refused = matches!(&opened, Err(StoreError::Unreadable(_)));
        assert!(opened.is_ok() != refused, "{text:?}: {opened:?}");
        let said = setup.call(&["check"]).await;
        assert_eq!(
            (refused, said.code),
            (!sound, Some(i32::from(!sound))),
            "{text:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_the_store_agree_about_what_a_url_asks_for() {
    let setup = sound();
    // Nobody listens there, either.
    let base = "postgres://user@127.0.0.1:1/database";
    for (query, sound) in [
        ("sslmode=disable", true),
        ("ssl-mode=Prefer", true),
        ("sslmode=bogus", false),
        ("port=2", true),
        ("port=65536", false),
        ("hostaddr=127.0.0.2", true),
        ("hostaddr=localhost", false),
        ("statement-cache-capacity=5", true),
        ("statement-cache-capacity=-5", false),
    ] {
        let url = format!("{base}?{query}");
        let store = Store::new(StoreSettings {
            place: StorePlace::Postgres(url.clone().into()),
            secret_key_file: setup.path("store.key"),
            dead_letter_retention: None,
        });
        let Err(StoreError::Away(why)) = store.open().await else {
            panic!("{query}: nobody can be there");
        };
        let tried = why.contains("onnect") && !why.contains("configuration");
        setup.set("store.url", url);
        let said = setup.call(&["check"]).await;
        assert_eq!(
            (tried, said.code),
            (sound, Some(i32::from(!sound))),
            "{query}: {why}"
        );
    }
}
