//! What loading makes of subscribers' files, right ones and wrong ones.

use std::fs;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::{subscriber::Destination, webhook::WebhookType};

mod mistakes;

/// The base64 of 24 bytes.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

fn rules() -> Rules {
    Rules {
        timeout: Duration::from_secs(15),
        shutdown_timeout: Duration::from_secs(30),
        max_in_flight: 64,
        prefix: "hookbridge".to_owned(),
        source_exchange: "domain.events".to_owned(),
    }
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn inspect(files: &[(&str, &str)]) -> Inspection {
    let variable = |name: &str| match name {
        "TOKEN" => Some("Bearer from-variable\n".to_owned()),
        "EMPTY" => Some("\n".to_owned()),
        "SECRET" => Some(SECRET.to_owned()),
        _ => None,
    };
    inspect_directory(directory(files).path(), &rules(), &variable)
}

/// The one subscriber in these files, which have no mistakes.
fn sound(files: &[(&str, &str)]) -> std::sync::Arc<Subscriber> {
    let read = inspect(files);
    assert!(read.mistakes.is_empty(), "{}", read.mistakes);
    std::sync::Arc::clone(read.set.iter().next().unwrap())
}

fn http(subscriber: &Subscriber) -> &crate::subscriber::HttpTarget {
    match &subscriber.target {
        Target::Http(target) => target,
        Target::Amqp(_) => panic!("not HTTP"),
    }
}

fn amqp(subscriber: &Subscriber) -> &crate::subscriber::AmqpTarget {
    match &subscriber.target {
        Target::Amqp(target) => target,
        Target::Http(_) => panic!("not AMQP"),
    }
}

#[test]
fn a_file_says_everything_there_is_to_say() {
    let text = format!(
        r#"
        id = "fixit-repairs"
        enabled = false
        party = "fixit"
        cases = ["c1", "c2"]
        events = ["StatusUpdate", "NewMessage"]
        signing_secret = ["{SECRET}", "{SECRET}"]
        timeout = "10s"
        max_in_flight = 7
        [http]
        url = "https://fixit.example/hooks?key=1"
        authorization = "Bearer token"
        headers = {{ "X-Team" = "repairs" }}
        "#
    );
    let subscriber = sound(&[("fixit.toml", &text)]);
    assert_eq!(subscriber.id.as_str(), "fixit-repairs");
    assert!(!subscriber.enabled);
    assert_eq!(
        subscriber.interest,
        Interest::Party {
            party: "fixit".to_owned(),
            cases: Some(["c1".to_owned(), "c2".to_owned()].into()),
        }
    );
    let wanted = [WebhookType::StatusUpdate, WebhookType::NewMessage];
    assert_eq!(subscriber.events, wanted.into_iter().collect());
    assert_eq!(subscriber.signing_secrets.len(), 2);
    assert_eq!(subscriber.timeout, Duration::from_secs(10));
    assert_eq!(subscriber.max_in_flight, 7);
    let target = http(&subscriber);
    assert_eq!(target.url.as_str(), "https://fixit.example/hooks?key=1");
    let (name, value) = &target.headers[0];
    assert_eq!(
        (name.as_str(), value.expose_secret()),
        ("x-team", "repairs")
    );
    assert!(place_of(&subscriber.origin).0.ends_with("fixit.toml"));
}

#[test]
fn what_is_left_out_comes_from_the_settings() {
    let text = "id = \"a\"\nscope = \"all\"\nevents = [\"*\"]\n[amqp]\nqueue = \"q\"\n";
    let subscriber = sound(&[("a.toml", text)]);
    assert!(subscriber.enabled);
    assert_eq!(subscriber.timeout, Duration::from_secs(15));
    assert_eq!(subscriber.max_in_flight, 64);
    assert!(subscriber.signing_secrets.is_empty());
    assert_eq!(place_of(&subscriber.origin).1, 1);
    let target = amqp(&subscriber);
    assert!(target.broker.is_none());
    let queue = Destination::Queue {
        name: "q".to_owned(),
        declare: false,
    };
    assert_eq!(target.destination, queue);
}

#[test]
fn all_types_leave_messages_out_for_whoever_has_no_party() {
    let common = "id = \"a\"\nevents = [\"*\"]\n[amqp]\nqueue = \"q\"\n";
    let without = sound(&[("a.toml", &format!("cases = [\"c\"]\n{common}"))]);
    assert!(!without.events.contains(WebhookType::NewMessage));
    assert!(without.events.contains(WebhookType::StatusUpdate));
    let with = sound(&[("a.toml", &format!("party = \"p\"\n{common}"))]);
    assert!(with.events.contains(WebhookType::NewMessage));
}

#[test]
fn an_exchange_has_a_routing_key_by_default() {
    let common = "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n[amqp]\nexchange = \"e\"\n";
    let key = |text: &str| match &amqp(&sound(&[("a.toml", text)])).destination {
        Destination::Exchange { routing_key, .. } => routing_key.0.clone(),
        Destination::Queue { .. } => panic!("not an exchange"),
    };
    assert_eq!(key(common), "{type}.{case}");
    let own = format!("{common}routing_key = \"x.{{party}}.{{subscriber}}\"");
    assert_eq!(key(&own), "x.{party}.{subscriber}");
}

#[test]
fn secrets_come_from_files_and_variables() {
    let text = "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n\
                signing_secret_file = [\"one\", \"two\"]\n\
                [http]\nurl = \"https://a.example\"\nauthorization_env = \"TOKEN\"\n";
    let files = [("a.toml", text), ("one", SECRET), ("two", SECRET)];
    let subscriber = sound(&files);
    assert_eq!(subscriber.signing_secrets.len(), 2);
    let authorization = http(&subscriber).authorization.as_ref().unwrap();
    assert_eq!(authorization.expose_secret(), "Bearer from-variable");

    let text = "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\nsigning_secret_env = \"SECRET\"\n\
                [amqp]\nuri_file = \"uri\"\nqueue = \"hookbridge.q\"\n";
    let subscriber = sound(&[
        ("a.toml", text),
        ("uri", "amqps://u:p@rabbit.example/v\r\n"),
    ]);
    assert_eq!(subscriber.signing_secrets[0].expose_secret(), SECRET);
    let broker = amqp(&subscriber).broker.as_ref().unwrap();
    assert_eq!(broker.uri.expose_secret(), "amqps://u:p@rabbit.example/v");
}

#[test]
fn several_subscribers_share_a_file_and_know_their_lines() {
    let text = "[[subscriber]]\nid = \"a\"\nscope = \"all\"\nevents = [\"*\"]\namqp.queue = \"a\"\n\
                \n[[subscriber]]\nid = \"b\"\nscope = \"all\"\nevents = [\"*\"]\n\
                [subscriber.amqp]\nqueue = \"b\"\n";
    let read = inspect(&[("two.toml", text)]);
    assert!(read.mistakes.is_empty(), "{}", read.mistakes);
    let lines: Vec<_> = read.set.iter().map(|one| place_of(&one.origin).1).collect();
    assert_eq!(lines, [1, 7]);
}

#[test]
fn files_that_are_no_toml_are_left_alone() {
    let text = "id = \"a\"\nscope = \"all\"\nevents = [\"*\"]\n[amqp]\nqueue = \"q\"\n";
    let read = inspect(&[
        ("a.toml", text),
        ("README", "?"),
        (".a.toml", "?"),
        ("b.toml~", "?"),
    ]);
    assert!(read.mistakes.is_empty(), "{}", read.mistakes);
    assert_eq!(read.set.counts(), (1, 0));
}

#[test]
fn the_shipped_examples_are_sound_and_disabled() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/subscribers");
    let loaded = load_directory(&directory, &rules()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.set.counts(), (0, 5));
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_directory_that_is_missing_is_a_mistake_and_an_empty_one_a_warning() {
    let empty = inspect(&[]);
    assert!(empty.mistakes.is_empty());
    assert!(empty.warnings[0].what.contains("no subscriber"));

    let directory = directory(&[("file", "")]);
    for (name, what) in [("none", "does not exist"), ("file", "is a file")] {
        let path = directory.path().join(name);
        let error = load_directory(&path, &rules()).unwrap_err();
        let mistake = error.iter().next().unwrap();
        assert_eq!(mistake.place, Place::File { path, line: None });
        assert!(mistake.what.contains(what), "{mistake}");
    }
}

#[test]
fn an_id_that_is_taken_names_both_places() {
    let text = "id = \"a\"\nscope = \"all\"\nevents = [\"*\"]\n[amqp]\nqueue = \"q\"\n";
    let read = inspect(&[("1.toml", text), ("2.toml", &format!("\n{text}"))]);
    let text = read.mistakes.to_string();
    assert_eq!(read.mistakes.len(), 1, "{text}");
    assert!(text.contains("2.toml:2: the id \"a\" is taken"), "{text}");
    assert!(text.contains("1.toml:1 has it too"), "{text}");
}

#[test]
fn different_cases_on_one_url_are_a_warning() {
    let one = |id: &str, case: &str| {
        format!(
            "[[subscriber]]\nid = \"{id}\"\ncases = [\"{case}\"]\nevents = [\"*\"]\n\
             http.url = \"https://a.example/h\"\n"
        )
    };
    let text = one("a", "c1") + &one("b", "c1") + &one("c", "c2");
    let read = inspect(&[("a.toml", &text)]);
    assert!(read.mistakes.is_empty(), "{}", read.mistakes);
    assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
    let warning = read.warnings[0].to_string();
    assert!(warning.contains("a.toml:11: \"c\" and \"a\""), "{warning}");
    assert!(warning.contains("a.toml:1)"), "{warning}");
    let shared = |one, other| share_url(read.set.get(one).unwrap(), read.set.get(other).unwrap());
    assert!(shared("a", "c") && shared("c", "b"));
    assert!(!shared("a", "b"));
}

/// A sound subscriber on AMQP, with the lines `$`.
const AMQP: &str = "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n[amqp]\n$\n";

#[test]
fn on_a_broker_of_its_own_every_name_is_the_subscribers() {
    let own = AMQP.replace(
        '$',
        "uri = \"amqps://rabbit.example\"\nexchange = \"domain.events\"",
    );
    sound(&[("a.toml", &own)]);
    sound(&[("a.toml", &own.replace("domain.events", "amq.topic"))]);
}

#[test]
fn all_mistakes_of_all_files_are_found_at_once() {
    let text = "id = \"A\"\nevents = [\"x\"]\ntimeout = 5\n[http]\nurl = 5\n";
    let read = inspect(&[("1.toml", text), ("2.toml", text)]);
    assert_eq!(read.mistakes.len(), 10, "{}", read.mistakes);
}

#[test]
fn no_mistake_and_no_debug_output_repeats_a_secret() {
    let within = [
        "[http]\nurl = \"ftp://a.example/?key=s3cret\"",
        "[http]\nurl = \"https://u:s3cret@a.example\"",
        "[http]\nurl = \"https://a.example:port/?s3cret\"",
        "[http]\nurl = \"https://a.example\"\nauthorization = \"s3cret\\n\"",
        "[http]\nurl = \"https://a.example\"\nauthorization = [\"s3cret\"]",
        "[http]\nurl = \"https://a.example\"\nauthorization = s3cret",
        "[http]\nurl = \"https://a.example\"\nheaders = { x = \"s3cretü\" }",
        "signing_secret = \"s3cret\"\n[amqp]\nqueue = \"q\"",
        "signing_secret = \"whsec_s3cret!\"\n[amqp]\nqueue = \"q\"",
        "signing_secret_file = \"secret\"\n[amqp]\nqueue = \"q\"",
        "[amqp]\nqueue = \"q\"\nuri = \"amqp://u:s3cret@a:port\"",
        "[amqp]\nqueue = \"q\"\nuri = \"http://u:s3cret@a\"",
    ];
    for text in within {
        let text = format!("id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n{text}\n");
        let read = inspect(&[("a.toml", &text), ("secret", "s3cret")]);
        assert!(!read.mistakes.is_empty(), "{text}");
        assert!(
            !format!("{read:?} {}", read.mistakes).contains("s3cret"),
            "{text}"
        );
    }
    let text = "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n[http]\n\
                url = \"https://a.example/?s3cret\"\nauthorization = \"s3cret\"\n\
                headers = { x = \"s3cret\" }\n";
    assert!(!format!("{:?}", sound(&[("a.toml", text)])).contains("s3cret"));
    let text = "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n[amqp]\n\
                uri = \"amqp://u:s3cret@a\"\nqueue = \"q\"\n";
    assert!(!format!("{:?}", sound(&[("a.toml", text)])).contains("s3cret"));
}

fn place_of(origin: &Origin) -> (&Path, usize) {
    match origin {
        Origin::File { file, line } => (file, *line),
        Origin::Store { .. } => panic!("it is defined in a file"),
    }
}
