//! Mistakes in the settings file: each with its line, what is said of it, and its remedy.

use super::{line, mistakes};
use crate::settings::{Mistake, Mistakes};

/// A file with one mistake, its line, a part of what is said of it, and a part of its remedy.
type Case<'a> = (&'a str, usize, &'a str, &'a str);

fn each(cases: &[Case<'_>]) {
    let mut unexpected = Vec::new();
    for (text, at, what, remedy) in cases {
        let found = mistakes(text, &[]);
        let as_expected = |mistake: &Mistake| {
            line(mistake) == Some(*at)
                && mistake.what.contains(what)
                && mistake.remedy.contains(remedy)
        };
        if found.len() != 1 || !as_expected(&found[0]) {
            unexpected.push(format!("{text}\n=> {}", Mistakes::from(found)));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n\n"));
}

#[test]
#[rustfmt::skip]
fn keys_that_nobody_knows_and_text_that_is_no_toml() {
    each(&[
        ("[borker]\nuri = \"\"", 1, "`borker` is not a section", "[broker]"),
        ("prefetch = 10", 1, "`prefetch` is not a section", "below [source]"),
        ("broker = 5", 1, "`broker` is a section, not a key", "Write [broker]"),
        ("\n[source]\nprefetsh = 10", 3, "`source.prefetsh` is not a setting", "`prefetch`"),
        ("[broker]\ntimeout = \"1s\"", 2, "`broker.timeout` is not", "below [delivery]"),
        ("[log]\ncolour = 1", 2, "`log.colour` is not a setting", "has every key"),
        ("[log]\nlevel = info", 2, "not TOML", "texts in quotes"),
        ("[log]\nlevel = \"info\"\nlevel = \"warn\"", 3, "not TOML: duplicate key", ""),
        ("[source]\nprefetch = 99999999999999999999", 2, "64 bits", "smaller"),
    ]);
}

#[test]
#[rustfmt::skip]
fn the_broker() {
    let long_prefix = format!("[broker]\nprefix = \"{}\"", "x".repeat(101));
    each(&[
        ("[broker]\nuri = \"http://host\"", 2, "another scheme", "amqp://user"),
        ("[broker]\nuri = \"amqp://\"", 2, "names no host", "amqp://user"),
        ("[broker]\nuri = \"amqp://host#w\"", 2, "`#`", "%23"),
        ("[broker]\nuri = \"amqp://host/\"", 2, "empty name", "/%2f"),
        ("[broker]\nuri = \"amqp://host?heartbeat=x\"", 2, "`heartbeat`", "leave it out"),
        ("[broker]\nuri = \"\"", 2, "`broker.uri` is empty", "broker.uri_file"),
        ("[broker]\nuri = 5", 2, "is not a text", "in quotes"),
        ("[broker]\nuri_file = \"none\"", 2, "which does not exist", "correct the path"),
        ("[broker]\nuri_file = \".\"", 2, "cannot be read", "the user"),
        ("[broker]\nuri = \"amqp://a\"\nuri_file = \"hookbridge.toml\"", 3, "`broker.uri_file` is given beside `broker.uri`", "Keep one"),
        ("[broker]\nca_file = \"hookbridge.toml\"", 2, "is for TLS", "amqps://"),
        ("[broker]\nuri = \"amqps://a\"\nca_file = \"none\"", 3, "not exist", "correct"),
        ("[broker]\nuri = \"amqps://a\"\nca_file = \".\"", 3, "is a directory", "Name a file"),
        ("[broker]\nuri = \"amqps://a\"\nclient_key_file = \"hookbridge.toml\"", 3, "is given without `broker.client_certificate_file`", "both, or neither"),
        ("[broker]\nprefix = \"\"", 2, "is empty", "letters"),
        ("[broker]\nprefix = \"hook bridge\"", 2, "holds ' '", "letters"),
        ("[broker]\nprefix = \"amq.mine\"", 2, "RabbitMQ keeps", "hookbridge"),
        ("[broker]\nprefix = \"amq\"", 2, "RabbitMQ keeps", "hookbridge"),
        (&long_prefix, 2, "has 101 characters", "at most 100"),
        ("[broker]\ndeclare = \"yes\"", 2, "neither true nor false", "true or false"),
    ]);
}

#[test]
#[rustfmt::skip]
fn the_source() {
    let long = "x".repeat(256);
    let long_exchange = format!("[source]\nexchange = \"{long}\"");
    let long_binding = format!("[source]\nbindings = [\"#\",\n  \"{long}\"]");
    each(&[
        ("[source]\nexchange = \"\"", 2, "is empty", "name"),
        (&long_exchange, 2, "has 256 bytes", "shorter"),
        ("[source]\nexchange = \"hookbridge.first\"", 2, "the bridge's own", "backend"),
        ("[source]\nexchange = \"amq.mine\"", 2, "begins with `amq.`", "amq.topic"),
        ("[source]\nbindings = []", 2, "is empty", "[\"#\"]"),
        ("[source]\nbindings = \"#\"", 2, "is not a list of texts", "brackets"),
        ("[source]\nbindings = [\"#\", 5]", 2, "is not a list of texts", "brackets"),
        (&long_binding, 3, "has 256 bytes", "shorter"),
        ("[source]\nunknown_events = \"rejekt\"", 2, "holds \"rejekt\"", "\"reject\""),
        ("[source]\nmax_event_bytes = 1023", 2, "is 1023", "1024 to 134217728"),
        ("[source]\nmax_event_bytes = 134217729", 2, "is 134217729", "1024 to 134217728"),
        ("[source]\nprefetch = 0", 2, "is 0", "1 to 65535"),
        ("[source]\nprefetch = 65536", 2, "is 65536", "1 to 65535"),
        ("[source]\nprefetch = \"10\"", 2, "is not a whole number", "1 to 65535"),
        ("[source]\nprefetch = 10.0", 2, "is not a whole number", "1 to 65535"),
    ]);
}

#[test]
#[rustfmt::skip]
fn deliveries() {
    each(&[
        ("[delivery]\nretry_delay = \"soon\"", 2, "is not a duration", "\"500ms\""),
        ("[delivery]\nretry_delay = 30", 2, "is not a text", "quotes"),
        ("[delivery]\nretry_delay = \"0s\"", 2, "is zero", "longer"),
        ("[delivery]\nretry_delay = \"1500us\"", 2, "whole number of milliseconds", "500ms"),
        ("[delivery]\nretry_delay = \"25d\"", 2, "is 25days", "24d"),
        ("[delivery]\ntimeout = \"0s\"", 2, "is zero", "longer"),
        ("[delivery]\ntimeout = \"30s\"", 2, "not below `delivery.shutdown_timeout`", "Keep"),
        ("[delivery]\nshutdown_timeout = \"9s\"", 2, "not above `delivery.timeout`", "Keep"),
        ("[delivery]\nshutdown_timeout = \"601s\"", 2, "is 10m 1s", "at most \"10m\": RabbitMQ closes the channel"),
        ("[delivery]\nshutdown_timeout = \"10m\"\ntimeout = \"1h\"", 3, "is 1h", "consumer_timeout"),
        ("[delivery]\nmax_in_flight_per_subscriber = 0", 2, "is 0", "1 to 1000"),
    ]);
}

#[test]
#[rustfmt::skip]
fn targets_and_everything_else() {
    each(&[
        ("[targets]\nallow_networks = [\"ten\"]", 2, "not a network", "10.1.0.0/16"),
        ("[targets]\nallow_networks = [\n  \"10.0.0.0/8\",\n  \"10.0.0.1/8\",\n]", 4, "an address with a network's length", "Write \"10.0.0.0/8\" for the network, or \"10.0.0.1\""),
        ("[targets]\nproxy = \"socks5://a\"", 2, "another scheme", "https://"),
        ("[targets]\nproxy = \"proxy:3128\"", 2, "another scheme", "https://"),
        ("[targets]\nca_file = \"none\"", 2, "does not exist", "correct the path"),
        ("[subscribers]\ndirectory = \"\"", 2, "is empty", "directory"),
        ("[subscribers]\nwatch = \"soon\"", 2, "not a duration", "\"5s\""),
        ("[store]\nurl = \"mysql://x\"", 2, "neither sqlite:// nor postgres://", "sqlite://hookbridge.db"),
        ("[store]\nurl = \"postgres://h/d?sslmode=bogus\"\nsecret_key_file = \"hookbridge.toml\"", 2, "has a `sslmode`", "verify-full"),
        ("[store]\nurl = \"postgres://h/d?port=many\"\nsecret_key_file = \"hookbridge.toml\"", 2, "has a `port`", "65535"),
        ("[store]\nurl = \"sqlite://\"", 2, "names no file", "the path of a file"),
        ("[store]\nurl = \"postgres://h/d\"\nsecret_key_file = \"none\"", 3, "does not exist", "correct the path"),
        ("[store]\nurl = \"sqlite://a.db\"\nsecret_key_file = \"\"", 3, "is empty, and there is a store", "hookbridge.key"),
        ("[store]\ndead_letter_retention = \"ever\"", 2, "not a duration", "\"forever\""),
        ("[admin]\nlisten = \"localhost:80\"", 2, "not an address", "127.0.0.1:8080"),
        ("[admin]\nkey_file = \"key\"", 2, "does not exist", "correct the path"),
        ("[admin]\nkey_file = \"hookbridge.toml\"", 2, "is given without `admin.certificate_file`", "both, or neither"),
        ("[log]\nformat = \"xml\"", 2, "holds \"xml\"", "\"text\", \"json\""),
        ("[log]\nlevel = \"inof\"", 2, "holds \"inof\"", "\"info\""),
        ("[log]\nlevel = \"info,hookbridge=loud\"", 2, "is not a filter", "hookbridge=debug"),
        ("[telemetry]\notlp_endpoint = \"collector:4318\"", 2, "has another scheme", "whole URL"),
        ("[telemetry]\notlp_endpoint = \"http://a:b@c:4318\"", 2, "a user or a password", "OTEL_EXPORTER_OTLP_HEADERS"),
    ]);
}

#[test]
#[rustfmt::skip]
fn tokens() {
    let ops = "[[admin.token]]\nname = \"ops\"\nvalue = \"one\"\nrole = \"operator\"\n";
    let same_name = format!("{ops}[[admin.token]]\nname = \"ops\"\nvalue = \"two\"\nrole = \"viewer\"");
    let same_value = format!("{ops}[[admin.token]]\nname = \"two\"\nvalue = \"one\"\nrole = \"viewer\"");
    each(&[
        ("[admin]\ntoken = \"one\"", 2, "is not a list of tables", "[[admin.token]]"),
        ("[admin]\ntoken = [\n  \"one\"]", 3, "no table", "[[admin.token]]"),
        ("[[admin.token]]\nvalue = \"one\"\nrole = \"viewer\"", 1, "`admin.token.name` is missing", "log names it"),
        ("[[admin.token]]\nname = \"ops\"\nvalue = \"one\"", 1, "`admin.token.role` is missing", "viewer"),
        ("[[admin.token]]\nname = \"ops\"\nvalue = \"one\"\nrole = \"root\"", 4, "holds \"root\"", "operator"),
        ("[[admin.token]]\nname = \"ops\"\nrole = \"viewer\"", 1, "`admin.token.value` is missing", "value_file"),
        ("[[admin.token]]\nname = \"ops\"\nvalue = 5\nrole = \"viewer\"", 3, "is not a text", "quotes"),
        ("[[admin.token]]\nname = \"ops\"\nvalue = \"a b\"\nrole = \"viewer\"", 3, "holds a space", "one line"),
        ("[[admin.token]]\nname = \"ops\"\nvalue = \"\"\nrole = \"viewer\"", 3, "is empty", "openssl"),
        ("[[admin.token]]\nname = \"ops\"\nvalue_file = \"none\"\nrole = \"viewer\"", 3, "does not exist", "correct"),
        ("[[admin.token]]\nname = \"ops\"\nvalue = \"one\"\nvalue_file = \"none\"\nrole = \"viewer\"", 4, "beside `value`", "Keep one"),
        ("[[admin.token]]\nname = \"ops\"\nvalue = \"one\"\nrole = \"viewer\"\nrolle = 1", 5, "`admin.token.rolle` is not a setting", "`role`"),
        ("[[admin.token]]\nname = \"\"\nvalue = \"one\"\nrole = \"viewer\"", 2, "is empty", "letters"),
        (&same_name, 6, "a second time", "of its own"),
        (&same_value, 7, "is the same as that of \"ops\"", "of its own"),
    ]);
}
