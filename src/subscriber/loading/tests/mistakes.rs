//! Mistakes in subscribers' files: each with its line, what is said of it, and its remedy.

use super::{SECRET, inspect};
use crate::settings::{Mistake, Place};

/// A sound subscriber that a mistake is made in, at `$` or in place of a sound value.
const HTTP: &str =
    "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n$\n[http]\nurl = \"https://a.example\"\n";
const AMQP: &str = "id = \"a\"\nparty = \"p\"\nevents = [\"*\"]\n[amqp]\n$\n";

fn top(line: &str) -> String {
    HTTP.replace('$', line)
}

fn within_http(line: &str) -> String {
    top("") + line
}

fn amqp(line: &str) -> String {
    AMQP.replace('$', line)
}

fn without(key: &str) -> String {
    let lines = HTTP.lines();
    let lines = lines.filter(|line| !line.starts_with(key) && *line != "$");
    lines.collect::<Vec<_>>().join("\n")
}

fn id(id: &str) -> String {
    top("").replace("\"a\"", &format!("\"{id}\""))
}

fn no_party(line: &str) -> String {
    top("").replace("party = \"p\"", line)
}

fn events(events: &str) -> String {
    top("").replace("[\"*\"]", events)
}

fn secret(secret: &str) -> String {
    top(&format!("signing_secret = {secret}"))
}

fn url(url: &str) -> String {
    top("").replace("https://a.example", url)
}

/// A file with one mistake, its line (0 for the whole file), a part of what is said of it, and a
/// part of its remedy.
type Case<'a> = (String, usize, &'a str, &'a str);

fn each(cases: &[Case<'_>]) {
    let mut unexpected = Vec::new();
    for (text, at, what, remedy) in cases {
        let read = inspect(&[("a.toml", text), ("void", "\n"), ("word", "s3cret")]);
        let as_expected = |mistake: &Mistake| {
            let line = match &mistake.place {
                Place::File { path, line } if path.ends_with("a.toml") => line.unwrap_or(0),
                _ => usize::MAX,
            };
            line == *at && mistake.what.contains(what) && mistake.remedy.contains(remedy)
        };
        if read.mistakes.len() != 1 || !read.mistakes.iter().all(as_expected) {
            unexpected.push(format!("{text}\n=> {}", read.mistakes));
        }
        assert!(read.set.iter().next().is_none(), "{text}");
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n\n"));
}

#[test]
#[rustfmt::skip]
fn what_a_file_is_made_of() {
    each(&[
        (String::new(), 0, "no subscriber in this file", "remove the file"),
        ("id = a".into(), 1, "not TOML", "quotes"),
        (top("evnts = []"), 4, "`evnts` is not a known key", "`events`"),
        (top("colour = 1"), 4, "`colour` is not a known key", "there are id"),
        (without("[http]").replace("url", "#"), 1, "so is `amqp`", "[http] or [amqp]"),
        (within_http("[amqp]\nqueue = \"q\""), 7, "stands beside `http`", "two subscribers"),
        (top("http = 5").replace("[http]\nurl", "#"), 4, "is not a table", "[http]"),
        ("subscriber = 5".into(), 1, "not a list of tables", "[[subscriber]]"),
        ("[subscriber]\nid = \"a\"".into(), 1, "not a list of tables", "[[subscriber]]"),
        ("enabled = true\nsubscriber = []".into(), 1, "`enabled` stands beside", "below"),
    ]);
}

#[test]
#[rustfmt::skip]
fn who_a_subscriber_is_and_what_it_wants() {
    each(&[
        (without("id"), 1, "`id` is missing", "a-z"),
        (id("A"), 1, "is \"A\"", "a-z"),
        (id("-a"), 1, "is \"-a\"", "beginning with a letter"),
        (id(&"a".repeat(64)), 1, "is \"aaa", "1 to 63"),
        (id("case-1"), 1, "the cases' own hooks", "another id"),
        (HTTP.replace("\"a\"", "5").replace('$', ""), 1, "is not a text", "quotes"),
        (top("enabled = \"no\""), 4, "neither true nor false", "true or false"),
        (no_party(""), 1, "`party` is missing", "scope = \"all\""),
        (no_party("scope = \"everything\""), 2, "`scope` is", "\"all\""),
        (top("scope = \"all\""), 4, "stands beside `party`", "Remove"),
        (no_party("cases = [\"c\"]\nscope = \"all\""), 3, "stands beside `cases`", "Remove"),
        (no_party("cases = []"), 2, "is an empty list", "case ids"),
        (no_party("cases = \"c\""), 2, "is not a list of texts", "brackets"),
        (no_party("cases = [\n\"c\",\n\"\"\n]"), 4, "no event can carry", "128 bytes"),
        (no_party("party = \"\""), 2, "no event can carry", "128 bytes"),
        (without("events"), 1, "`events` is missing", "[\"*\"]"),
        (events("[]"), 3, "is an empty list", "[\"*\"]"),
        (events("\"*\""), 3, "is not a list of texts", "brackets"),
        (events("[1]"), 3, "no text", "quotes"),
        (events("[\"*\", \"StatusUpdate\"]"), 3, "\"*\" beside others", "alone"),
        (events("[\n\"StatusUpdate\",\n\"StatusUpdates\",\n]"), 5, "no webhook type", "\"StatusUpdate\""),
        (events("[\"Payment\"]"), 3, "no webhook type", "There are StatusUpdate"),
        (events("[\"NewMessage\"]").replace("party = \"p\"", "cases = [\"c\"]"), 3, "told from the sender", "Write `party`"),
        (top("timeout = \"1 parsec\""), 4, "is not a duration", "\"30s\""),
        (top("timeout = \"0s\""), 4, "is zero", "longer"),
        (top("timeout = \"30s\""), 4, "`delivery.shutdown_timeout` is 30s", "below"),
        (top("max_in_flight = 0"), 4, "from 1 to 1000", "quotes"),
        (top("max_in_flight = 1001"), 4, "from 1 to 1000", "quotes"),
        (top("max_in_flight = -1"), 4, "from 1 to 1000", "quotes"),
    ]);
}

#[test]
#[rustfmt::skip]
fn signing_secrets() {
    each(&[
        (secret("\"c2VjcmV0\""), 4, "does not begin with whsec_", "openssl rand"),
        (secret("\"whsec_*\""), 4, "is not base64", "openssl rand"),
        (secret("\"whsec_c2VjcmV0\""), 4, "holds 6 bytes", "24 to 64"),
        (secret("[]"), 4, "is an empty list", "remove the key"),
        (secret("[\n\"whsec_c2VjcmV0\"]"), 5, "holds 6 bytes", "24 to 64"),
        (top("signing_secret_file = \"none\""), 4, "which does not exist", "correct the path"),
        (top("signing_secret_file = \"void\""), 4, "void, which is empty", "Write the secret"),
        (top("signing_secret_file = \"word\""), 4, "whose content does not begin", "whsec_"),
        (top("signing_secret_env = \"NONE\""), 4, "variable that is set", "Set it"),
        (top("signing_secret_env = \"EMPTY\""), 4, "which is empty", "Set it"),
        (top("signing_secret_env = \"TOKEN\""), 4, "whose value does not begin", "whsec_"),
        (top(&format!("signing_secret = \"{SECRET}\"\nsigning_secret_env = \"SECRET\"")), 5, "is given beside `signing_secret`", "Keep one"),
    ]);
}

#[test]
#[rustfmt::skip]
fn http_targets() {
    each(&[
        (without("url"), 4, "`http.url` is missing", "URL"),
        (url("ftp://a.example"), 6, "another scheme", "https://"),
        (url("a.example"), 6, "is not a URL", "https://"),
        (url("https://u:p@a.example"), 6, "a user or a password", "`authorization`"),
        (url("https://a.example/#x"), 6, "holds a `#`", "%23"),
        (within_http("urll = 1"), 7, "`http.urll` is not a known key", "`url`"),
        (within_http("authorization = \"\""), 7, "is empty", "remove"),
        (within_http("authorization = \"Bearer ü\""), 7, "not visible ASCII", "ASCII"),
        (within_http("authorization = \"Bearer t\\n\""), 7, "not visible ASCII", "ASCII"),
        (within_http("authorization = \"Bearer t \""), 7, "a space", "Remove"),
        (within_http("headers = 5"), 7, "is not a table", "[headers]"),
        (within_http("headers = { \"x y\" = \"z\" }"), 7, "not a header's name", "letters"),
        (within_http("headers = { \"Host\" = \"z\" }"), 7, "the bridge sets itself", "Remove"),
        (within_http("headers = { \"Content-Type\" = \"z\" }"), 7, "sets itself", "Remove"),
        (within_http("headers = { \"Authorization\" = \"z\" }"), 7, "sets itself", "[http]"),
        (within_http("headers = { \"WEBHOOK-id\" = \"z\" }"), 7, "sets itself", "Remove"),
        (within_http("headers = { traceparent = \"z\" }"), 7, "sets itself", "Remove"),
        (within_http("headers = { \"x-a\" = \"1\", \"X-A\" = \"2\" }"), 7, "given twice", "keep"),
        (within_http("headers = { \"x-a\" = 1 }"), 7, "is not a text", "quotes"),
        (within_http("headers = { \"x-a\" = \"ü\" }"), 7, "`http.headers.x-a` holds", "ASCII"),
    ]);
}

#[test]
#[rustfmt::skip]
fn amqp_targets() {
    let long = "x".repeat(256);
    each(&[
        (amqp(""), 4, "so is `exchange`", "`queue` or `exchange`"),
        (amqp("queue = \"q\"\nexchange = \"e\""), 6, "stands beside `queue`", "Keep one"),
        (amqp("queue = \"\""), 5, "is empty", "name"),
        (amqp(&format!("queue = \"{long}\"")), 5, "256 bytes", "shorter"),
        (amqp("queue = \"q\"\nrouting_key = \"k\""), 6, "is for an exchange", "Remove"),
        (amqp("exchange = \"e\"\ndeclare = true"), 6, "is for a queue", "owner"),
        (amqp("exchange = \"e\"\nrouting_key = \"{typ}\""), 6, "holds {typ}", "{type}"),
        (amqp("exchange = \"e\"\nrouting_key = \"{colour}\""), 6, "{colour}", "{party}"),
        (amqp("exchange = \"e\"\nrouting_key = \"a{type\""), 6, "without its `}`", "`}`"),
        (amqp(&format!("exchange = \"e\"\nrouting_key = \"{long}\"")), 6, "256 bytes", "shorter"),
        (amqp("exchange = \"\""), 5, "the default exchange", "`queue`"),
        (amqp("exchange = \"domain.events\""), 5, "domain events come from", "another"),
        (amqp("exchange = \"amq.topic\""), 5, "begins with `amq.`", "own"),
        (amqp("queue = \"hookbridge.dead\""), 5, "begins with `hookbridge.`", "own"),
        (amqp("queue = \"q\"\nuri = \"http://a\""), 6, "another scheme", "amqp://user"),
        (amqp("queue = \"q\"\nuri = \"amqp://\""), 6, "names no host", "amqp://user"),
        (amqp("queue = \"q\"\nuri_env = \"TOKEN\""), 6, "whose value is not a URI", "amqp://user"),
        (amqp("queue = \"q\"\nvhost = \"v\""), 6, "`amqp.vhost` is not a known key", "Remove"),
    ]);
}
