//! What loading makes of settings files and environments, right ones and wrong ones.

use std::{fs, path::Path, time::Duration};

use config::{Config, File, FileFormat, Value};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{
    keys::{Default, KEYS},
    *,
};

mod mistakes;

/// A directory with this settings file in it.
fn directory(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hookbridge.toml"), text).unwrap();
    directory
}

fn load_in(directory: &Path, variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    let pairs = variables.iter();
    load(
        &directory.join("hookbridge.toml"),
        pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn sound(text: &str, variables: &[(&str, &str)]) -> Settings {
    load_in(directory(text).path(), variables).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str, variables: &[(&str, &str)]) -> Vec<Mistake> {
    let read = load_in(directory(text).path(), variables);
    read.expect_err(text).into_iter().collect()
}

/// Line in the settings file, and nothing for another file or a variable.
fn line(mistake: &Mistake) -> Option<usize> {
    match &mistake.place {
        Place::File { path, line } if path.ends_with("hookbridge.toml") => *line,
        _ => None,
    }
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let settings = sound("", &[]);
    let uri = settings.broker.uri.expose_secret();
    assert_eq!(uri, "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!(settings.broker.prefix, "hookbridge");
    assert!(settings.broker.declare);
    assert!(settings.broker.ca_file.is_none());
    assert_eq!(settings.source.exchange, "domain.events");
    assert_eq!(settings.source.bindings, ["#"]);
    assert_eq!(settings.source.unknown_events, UnknownEvents::Ignore);
    assert_eq!(settings.source.max_event_bytes, 1_048_576);
    assert_eq!(settings.source.prefetch, 1000);
    assert_eq!(settings.delivery.retry_delay, Duration::from_secs(30));
    assert_eq!(settings.delivery.timeout, Duration::from_secs(15));
    assert_eq!(settings.delivery.max_in_flight_per_subscriber, 64);
    assert_eq!(settings.delivery.shutdown_timeout, Duration::from_secs(30));
    assert!(settings.targets.allow_networks.is_empty());
    assert!(settings.targets.proxy.is_none());
    assert!(settings.subscribers.directory.ends_with("subscribers"));
    assert!(settings.subscribers.watch.is_none());
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:8080");
    assert!(settings.admin.tls.is_none() && settings.admin.tokens.is_empty());
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.log.level, "info");
}

#[test]
fn the_shipped_file_explains_every_key_and_equals_the_defaults_but_has_a_store() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/hookbridge.toml");
    let text = fs::read_to_string(&path).unwrap();
    load(&path, std::iter::empty()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let shipped = Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .build()
        .unwrap();
    for (key, default) in KEYS {
        let value: Value = shipped.get(key).unwrap_or_else(|_| panic!("no {key}"));
        if *key == "store.url" {
            assert_eq!(value.into_string().unwrap(), "sqlite://hookbridge.db");
            continue;
        }
        match default {
            Default::Text(text) => assert_eq!(value.into_string().unwrap(), *text, "{key}"),
            Default::Number(number) => assert_eq!(value.into_int().unwrap(), *number, "{key}"),
            Default::Flag(flag) => assert_eq!(value.into_bool().unwrap(), *flag, "{key}"),
            Default::List(texts) => {
                let values = value.into_array().unwrap().into_iter();
                let values: Vec<_> = values.map(|value| value.into_string().unwrap()).collect();
                assert_eq!(values, *texts, "{key}");
            }
            Default::Tables => assert!(value.into_array().unwrap().is_empty(), "{key}"),
        }
    }
}

#[test]
fn the_file_goes_before_the_defaults_and_the_environment_before_the_file() {
    let text = "[source]\nprefetch = 5\nexchange = \"file\"\n[log]\nformat = \"json\"\n";
    let variables = [
        ("HOOKBRIDGE__SOURCE__EXCHANGE", "environment"),
        ("HOOKBRIDGE__BROKER__DECLARE", "false"),
        ("HOOKBRIDGE__SOURCE__MAX_EVENT_BYTES", "2048"),
        ("HOOKBRIDGE__DELIVERY__RETRY_DELAY", "500ms"),
        ("HOOKBRIDGE_SERVER", "one underscore: none of ours"),
        ("PATH", "/bin"),
    ];
    let settings = sound(text, &variables);
    assert_eq!(settings.source.prefetch, 5);
    assert_eq!(settings.source.exchange, "environment");
    assert_eq!(settings.source.max_event_bytes, 2048);
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.delivery.retry_delay, Duration::from_millis(500));
    assert!(!settings.broker.declare);
}

#[test]
fn lists_in_the_environment_are_toml_or_have_commas() {
    let name = "HOOKBRIDGE__SOURCE__BINDINGS";
    for value in [
        "case.#, claim.#",
        "[\"case.#\", 'claim.#']",
        "case.#,,claim.#,",
    ] {
        let settings = sound("", &[(name, value)]);
        assert_eq!(settings.source.bindings, ["case.#", "claim.#"], "{value}");
    }
    let settings = sound(
        "[targets]\nallow_networks = [\"10.0.0.0/8\"]\n",
        &[("HOOKBRIDGE__TARGETS__ALLOW_NETWORKS", "")],
    );
    assert!(settings.targets.allow_networks.is_empty());
}

#[test]
fn texts_of_the_environment_stay_as_they_are() {
    let settings = sound("", &[("HOOKBRIDGE__BROKER__PREFIX", "1e5")]);
    assert_eq!(settings.broker.prefix, "1e5");
}

#[test]
fn single_addresses_are_networks_too() {
    let settings = sound(
        "[targets]\nallow_networks = [\"127.0.0.1\", \"::1\", \"10.0.0.0/8\"]\n",
        &[],
    );
    let networks: Vec<String> = settings
        .targets
        .allow_networks
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["127.0.0.1/32", "::1/128", "10.0.0.0/8"]);
}

#[test]
fn a_secret_in_a_file_is_read_without_its_newline() {
    let directory = directory("[broker]\nuri_file = \"uri\"\n");
    fs::write(directory.path().join("uri"), "amqp://u:p@rabbit:5672\n").unwrap();
    let settings = load_in(directory.path(), &[]).unwrap();
    assert_eq!(
        settings.broker.uri.expose_secret(),
        "amqp://u:p@rabbit:5672"
    );
}

#[test]
fn a_uri_in_a_file_is_read_again_and_what_is_wrong_with_it_does_not_show_it() {
    let directory = directory("[broker]\nuri_file = \"uri\"\n");
    let file = directory.path().join("uri");
    fs::write(&file, "amqp://u:old@rabbit\n").unwrap();
    let broker = load_in(directory.path(), &[]).unwrap().broker;
    fs::write(&file, "amqp://u:new@rabbit\n").unwrap();
    let uri = broker.current_uri().unwrap();
    assert_eq!(uri.expose_secret(), "amqp://u:new@rabbit");

    fs::write(&file, "u:s3cret\n").unwrap();
    let wrong = broker.current_uri().unwrap_err();
    assert!(wrong.contains("broker.uri_file"), "{wrong}");
    assert!(wrong.contains("another scheme"), "{wrong}");
    assert!(!wrong.contains("s3cret"), "{wrong}");
    fs::remove_file(&file).unwrap();
    let wrong = broker.current_uri().unwrap_err();
    assert!(wrong.contains("does not exist"), "{wrong}");
}

#[test]
fn a_uri_that_is_not_in_a_file_stays_as_it_is() {
    let broker = sound("[broker]\nuri = \"amqp://u:p@rabbit\"", &[]).broker;
    let uri = broker.current_uri().unwrap();
    assert_eq!(uri.expose_secret(), "amqp://u:p@rabbit");
}

#[test]
fn the_environments_form_of_a_secret_goes_before_the_files() {
    let directory = directory("[broker]\nuri = \"amqp://plain\"\n");
    fs::write(directory.path().join("uri"), "amqp://from-file\n").unwrap();
    let file = ("HOOKBRIDGE__BROKER__URI_FILE", "uri");
    let settings = load_in(directory.path(), &[file]).unwrap();
    assert_eq!(settings.broker.uri.expose_secret(), "amqp://from-file");

    let text = "[broker]\nuri_file = \"uri\"\n";
    fs::write(directory.path().join("hookbridge.toml"), text).unwrap();
    let plain = ("HOOKBRIDGE__BROKER__URI", "amqp://variable");
    let settings = load_in(directory.path(), &[plain]).unwrap();
    assert_eq!(settings.broker.uri.expose_secret(), "amqp://variable");

    let both = load_in(directory.path(), &[plain, file]).unwrap_err();
    let both: Vec<_> = both.iter().collect();
    let variable = Place::Variable("HOOKBRIDGE__BROKER__URI_FILE".to_owned());
    assert_eq!((both.len(), &both[0].place), (1, &variable));
}

#[test]
fn relative_paths_start_from_the_settings_file() {
    let directory =
        directory("[targets]\nca_file = \"ca.pem\"\n[subscribers]\ndirectory = \"who\"");
    fs::write(directory.path().join("ca.pem"), "").unwrap();
    let settings = load_in(directory.path(), &[]).unwrap();
    assert_eq!(
        settings.targets.ca_file,
        Some(directory.path().join("ca.pem"))
    );
    assert_eq!(settings.subscribers.directory, directory.path().join("who"));
}

#[test]
fn files_for_tls_are_taken_with_amqps() {
    let text = "[broker]\nuri = \"amqps://rabbit\"\nca_file = \"a\"\n\
                client_certificate_file = \"a\"\nclient_key_file = \"a\"\n";
    let directory = directory(text);
    fs::write(directory.path().join("a"), "").unwrap();
    load_in(directory.path(), &[]).unwrap();
}

#[test]
fn a_missing_file_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let missing = load_in(directory.path(), &[]).unwrap_err().to_string();
    let path = directory.path().join("hookbridge.toml");
    let expected = "the settings file does not exist. Make it, or name another";
    assert_eq!(missing, format!("{}: {expected}", path.display()));
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let table = [
        (
            "HOOKBRIDGE__BROKER__URL",
            "amqp://a",
            "no setting",
            "HOOKBRIDGE__BROKER__URI",
        ),
        (
            "HOOKBRIDGE__BROKER__PREFETCH",
            "1",
            "no setting",
            "HOOKBRIDGE__SOURCE__PREFETCH",
        ),
        (
            "HOOKBRIDGE__BORKER__PREFX",
            "1",
            "no setting",
            "HOOKBRIDGE__BROKER__PREFIX",
        ),
        (
            "HOOKBRIDGE__PREFETCH",
            "1",
            "no setting",
            "HOOKBRIDGE__SOURCE__PREFETCH",
        ),
        ("HOOKBRIDGE__NONSENSE", "", "no setting", "Unset"),
        (
            "HOOKBRIDGE__SOURCE__PREFETCH",
            "many",
            "is not a whole number",
            "1 to 65535",
        ),
        (
            "HOOKBRIDGE__BROKER__DECLARE",
            "yes",
            "neither true nor false",
            "true or false",
        ),
        (
            "HOOKBRIDGE__SOURCE__BINDINGS",
            "[1]",
            "is not a list",
            "brackets",
        ),
        (
            "HOOKBRIDGE__TARGETS__ALLOW_NETWORKS",
            "ten",
            "not a network",
            "10.1.0.0/16",
        ),
        (
            "HOOKBRIDGE__STORE__URL",
            "mysql://u:p@h",
            "neither sqlite://",
            "sqlite://hookbridge.db",
        ),
        (
            "HOOKBRIDGE__ADMIN__TOKEN",
            "s3cret",
            "is not a list of tables",
            "Write [{ name =",
        ),
    ];
    let text = "[source]\nbindings = [\"#\"]\n[targets]\nallow_networks = [\"::1\"]\n";
    for (name, value, what, remedy) in table {
        let found = mistakes(text, &[(name, value)]);
        assert_eq!(found.len(), 1, "{name}\n{found:#?}");
        assert_eq!(found[0].place, Place::Variable(name.to_owned()));
        assert!(found[0].what.contains(what), "{}", found[0]);
        assert!(found[0].remedy.contains(remedy), "{}", found[0]);
    }
}

#[test]
fn all_mistakes_are_found_at_once_in_the_order_of_their_lines() {
    let text =
        "[log]\nlevel = \"loud\"\n[broker]\nprefix = \"\"\nfix = 1\n[source]\nprefetch = 0\n";
    let found = mistakes(text, &[("HOOKBRIDGE__DELIVERY__TIMEOUT", "x")]);
    let lines: Vec<_> = found.iter().map(line).collect();
    assert_eq!(lines, [Some(2), Some(4), Some(5), Some(7), None]);
}

#[test]
fn a_mistake_does_not_bring_others_after_it() {
    let texts = [
        "[broker]\nuri = \"amqpss://a\"\nca_file = \"hookbridge.toml\"",
        "[delivery]\ntimeout = \"20s\"\nshutdown_timeout = \"1 moment\"\n",
        "[delivery]\ntimeout = \"soon\"\nshutdown_timeout = \"10s\"\n",
        "[broker]\nprefix = \"\"\n[source]\nexchange = \".events\"\n",
    ];
    for text in texts {
        let found = mistakes(text, &[]);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    }
}

#[test]
fn no_mistake_and_no_debug_output_repeats_a_secret() {
    let texts = [
        "[broker]\nuri = \"http://user:s3cret@host\"",
        "[broker]\nuri = \"amqp://user:s3cret@host:port\"",
        "[broker]\nuri = amqp://user:s3cret@host",
        "[broker]\nuri = \"amqp://user:s3cret@host\"\nuri = \"s3cret\"",
        "[broker]\nuri = [\"s3cret\"]",
        "[broker]\nuri_file = \"secret\"",
        "[targets]\nproxy = \"ftp://user:s3cret@host\"",
        "[store]\nurl = \"postgres://user:s3cret@host\"",
        "[[admin.token]]\nvalue = \"s3cret\"",
        "[admin]\ntoken = \"s3cret\"",
    ];
    for text in texts {
        let directory = directory(text);
        fs::write(directory.path().join("secret"), "http://s3cret").unwrap();
        let found = load_in(directory.path(), &[]).unwrap_err();
        assert!(!format!("{found} {found:?}").contains("s3cret"), "{found}");
    }
    let settings = sound(
        "[broker]\nuri = \"amqp://user:s3cret@host\"\n[targets]\nproxy = \"http://u:s3cret@h\"",
        &[],
    );
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn tokens_come_from_the_file_from_files_of_their_own_and_from_a_variable() {
    let directory = directory(
        "[[admin.token]]\nname = \"ops\"\nvalue = \"one\"\nrole = \"operator\"\n\
         [[admin.token]]\nname = \"desk\"\nvalue_file = \"desk.token\"\nrole = \"viewer\"\n",
    );
    fs::write(directory.path().join("desk.token"), "two\n").unwrap();
    let told = |variables: &[(&str, &str)]| {
        let settings = load_in(directory.path(), variables).unwrap_or_else(|all| panic!("{all}"));
        let tokens = settings.admin.tokens.into_iter();
        tokens
            .map(|token| {
                (
                    token.name,
                    token.value.expose_secret().to_owned(),
                    token.role,
                )
            })
            .collect::<Vec<_>>()
    };
    let token = |name: &str, value: &str, role| (name.to_owned(), value.to_owned(), role);
    assert_eq!(
        told(&[]),
        [
            token("ops", "one", Role::Operator),
            token("desk", "two", Role::Viewer)
        ]
    );
    let name = "HOOKBRIDGE__ADMIN__TOKEN";
    let value = r#"[{ name = "ci", value = "three", role = "viewer" }]"#;
    assert_eq!(told(&[(name, value)]), [token("ci", "three", Role::Viewer)]);
    assert_eq!(told(&[(name, "")]), []);
    let wrong = load_in(directory.path(), &[(name, "[{ value = 's3cret' ]")]).unwrap_err();
    assert!(
        wrong.to_string().contains("HOOKBRIDGE__ADMIN__TOKEN"),
        "{wrong}"
    );
    assert!(!wrong.to_string().contains("s3cret"), "{wrong}");
}
