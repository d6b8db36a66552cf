//! Takes a subscriber's secrets out of a text that comes from outside, such as an endpoint's
//! answer, before it is logged or written into a dead letter.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;
use url::Url;

use super::{Subscriber, Target};

const MASK: &str = "***";

/// Shorter secrets are masked only where they stand as a word of their own: replacing every `1`
/// because a query says `v=1` would make `HTTP 401` unreadable, and hide nothing.
const SHORTEST_MASKED_ANYWHERE: usize = 4;

impl Subscriber {
    /// The text with `***` in place of each of this subscriber's secrets: the authorization value,
    /// what follows the scheme in it, and the password that `Basic` holds, signing secrets with and without `whsec_`, header values,
    /// the password in a URI and a URL's query with each value in it, as written and
    /// percent-decoded, and all of them also as a JSON string has them.
    ///
    /// A secret shorter than four characters is replaced only where no letter or digit touches it.
    /// Secrets that touch or overlap in the text go together into one `***`. A secret that was cut in two
    /// is not found, so texts are to be redacted before they are shortened.
    pub fn redact(&self, text: &str) -> String {
        let mut covered: Vec<(usize, usize)> = Vec::new();
        for secret in self.secrets() {
            find(text, &secret, &mut covered);
        }
        covered.sort_unstable();
        let mut redacted = String::with_capacity(text.len());
        let mut done = 0;
        let mut masked_up_to = None;
        for (start, end) in covered {
            if masked_up_to.is_none_or(|end| start > end) {
                redacted.push_str(&text[done..start]);
                redacted.push_str(MASK);
            }
            done = done.max(end);
            masked_up_to = Some(done);
        }
        redacted.push_str(&text[done..]);
        redacted
    }

    /// Every text that must not be shown.
    fn secrets(&self) -> Vec<Cow<'_, str>> {
        let mut secrets = Vec::new();
        for secret in &self.signing_secrets {
            let secret = secret.expose_secret();
            secrets.push(Cow::from(secret));
            secrets.extend(secret.strip_prefix("whsec_").map(Cow::from));
        }
        match &self.target {
            Target::Http(target) => {
                if let Some(authorization) = &target.authorization {
                    secrets_in_authorization(authorization.expose_secret(), &mut secrets);
                }
                for (_, value) in &target.headers {
                    secrets.push(value.expose_secret().into());
                }
                secrets_in_query(&target.url, &mut secrets);
            }
            Target::Amqp(target) => {
                if let Some(broker) = &target.broker {
                    secrets_in_uri(broker.uri.expose_secret(), &mut secrets);
                }
            }
        }
        secrets.retain(|secret| !secret.is_empty());
        let in_json: Vec<_> = secrets
            .iter()
            .flat_map(|secret| forms_in_json(secret))
            .map(Cow::from)
            .collect();
        secrets.extend(in_json);
        secrets
    }
}

/// How the secret reads inside a JSON string, where that differs: many endpoints answer with what
/// they were sent as JSON, and some of them escape slashes, too.
fn forms_in_json(secret: &str) -> impl Iterator<Item = String> {
    let quoted = serde_json::Value::from(secret).to_string();
    let plain = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(&quoted)
        .to_owned();
    let with_slashes = plain.replace('/', "\\/");
    [plain, with_slashes]
        .into_iter()
        .filter(move |form| form != secret)
}

/// The value, what follows its scheme, and the password in it when the scheme is `Basic`.
fn secrets_in_authorization<'a>(value: &'a str, secrets: &mut Vec<Cow<'a, str>>) {
    secrets.push(value.into());
    let Some((scheme, token)) = value.split_once(char::is_whitespace) else {
        return;
    };
    secrets.push(token.trim().into());
    if scheme.eq_ignore_ascii_case("basic")
        && let Ok(pair) = BASE64_STANDARD.decode(token.trim())
        && let Ok(pair) = String::from_utf8(pair)
        && let Some((_, password)) = pair.split_once(':')
    {
        secrets.push(password.to_owned().into());
    }
}

fn secrets_in_query<'a>(url: &'a Url, secrets: &mut Vec<Cow<'a, str>>) {
    let Some(query) = url.query() else { return };
    secrets.push(query.into());
    for pair in query.split('&') {
        let (_, value) = pair.split_once('=').unwrap_or(("", pair));
        secrets.push(value.into());
    }
    for (name, value) in url.query_pairs() {
        secrets.push(if value.is_empty() { name } else { value });
    }
}

/// The password as it stands in the text, and percent-decoded.
fn secrets_in_uri<'a>(uri: &'a str, secrets: &mut Vec<Cow<'a, str>>) {
    let Some((_, rest)) = uri.split_once("://") else {
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((userinfo, _)) = authority.rsplit_once('@') else {
        return;
    };
    let Some((_, password)) = userinfo.split_once(':') else {
        return;
    };
    secrets.push(password.into());
    // A query is decoded by the same rules, but for `+`, which a password keeps.
    let pair = format!("p={}", password.replace('+', "%2B").replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(pair.as_bytes());
    secrets.extend(decoded.map(|(_, value)| Cow::from(value.into_owned())));
}

/// Notes where `secret` stands in `text`, also where it overlaps itself.
fn find(text: &str, secret: &str, covered: &mut Vec<(usize, usize)>) {
    let word_only = secret.chars().count() < SHORTEST_MASKED_ANYWHERE;
    let mut from = 0;
    while let Some(offset) = text[from..].find(secret) {
        let (start, end) = (from + offset, from + offset + secret.len());
        let touched = text[..start].ends_with(char::is_alphanumeric)
            || text[end..].starts_with(char::is_alphanumeric);
        if !(word_only && touched) {
            covered.push((start, end));
        }
        from = start + text[start..].chars().next().map_or(1, char::len_utf8);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::SecretString;

    use super::*;
    use crate::subscriber::{
        AmqpTarget, Destination, HttpTarget, Interest, Origin, OutsideBroker, SubscriberId,
        WebhookTypes,
    };

    fn subscriber(target: Target) -> Subscriber {
        Subscriber {
            id: SubscriberId::new("one"),
            enabled: true,
            interest: Interest::All,
            events: WebhookTypes::default(),
            signing_secrets: vec![SecretString::from("whsec_c2lnbmluZ3NlY3JldA==")],
            timeout: Duration::from_secs(1),
            max_in_flight: 1,
            target,
            origin: Origin::File {
                file: std::path::Path::new("one.toml").into(),
                line: 1,
            },
        }
    }

    fn http(url: &str, authorization: &str, headers: &[&str]) -> Subscriber {
        let headers = headers
            .iter()
            .map(|value| ("x".to_owned(), (*value).into()));
        subscriber(Target::Http(HttpTarget {
            url: url.parse().unwrap(),
            authorization: Some(authorization.into()),
            headers: headers.collect(),
        }))
    }

    fn amqp(uri: &str) -> Subscriber {
        subscriber(Target::Amqp(AmqpTarget {
            broker: Some(OutsideBroker { uri: uri.into() }),
            destination: Destination::Queue {
                name: "q".to_owned(),
                declare: false,
            },
        }))
    }

    #[test]
    fn the_authorization_goes_with_and_without_its_scheme() {
        let one = http("https://a.example/", "Bearer tok-en/9", &[]);
        assert_eq!(one.redact("got Bearer tok-en/9!"), "got ***!");
        assert_eq!(one.redact("bad token tok-en/9"), "bad token ***");
        assert_eq!(one.redact("Bearer of news"), "Bearer of news");
    }

    #[test]
    fn the_password_inside_basic_credentials_goes() {
        let one = http("https://a.example/", "Basic dXNlcjpzZXNhbWU=", &[]);
        assert_eq!(one.redact("user/sesame, dXNlcjpzZXNhbWU="), "user/***, ***");
    }

    #[test]
    fn signing_secrets_go_with_and_without_their_prefix() {
        let one = http("https://a.example/", "Bearer token", &[]);
        assert_eq!(one.redact("whsec_c2lnbmluZ3NlY3JldA== is it"), "*** is it");
        assert_eq!(one.redact("key c2lnbmluZ3NlY3JldA=="), "key ***");
    }

    #[test]
    fn header_values_go() {
        let one = http("https://a.example/", "Bearer token", &["s3cret value"]);
        assert_eq!(one.redact("s3cret values3cret value"), "***");
    }

    #[test]
    fn secrets_go_as_json_writes_them() {
        let one = http("https://a.example/", "Bearer tok/en", &["a \"quoted\" one"]);
        assert_eq!(
            one.redact(r#"{"k":"a \"quoted\" one","t":"tok/en","u":"tok\/en"}"#),
            r#"{"k":"***","t":"***","u":"***"}"#
        );
    }

    #[test]
    fn a_query_goes_whole_and_value_by_value_also_decoded() {
        let one = http(
            "https://a.example/h?key=ab%20cd%2Fef&other=longer",
            "B token",
            &[],
        );
        assert_eq!(one.redact("/h?key=ab%20cd%2Fef&other=longer"), "/h?***");
        assert_eq!(
            one.redact("ab%20cd%2Fef or ab cd/ef or longer"),
            "*** or *** or ***"
        );
        assert_eq!(one.redact("key, other"), "key, other");
    }

    #[test]
    fn a_query_without_a_name_goes() {
        let one = http("https://a.example/h?c0ffee", "B token", &[]);
        assert_eq!(one.redact("no such key c0ffee"), "no such key ***");
    }

    #[test]
    fn the_password_of_a_uri_goes_as_written_and_decoded() {
        let one = amqp("amqps://user:p%40ss%2Bw+rd%26x@rabbit.example/v");
        assert_eq!(
            one.redact("user:p%40ss%2Bw+rd%26x@rabbit"),
            "user:***@rabbit"
        );
        assert_eq!(
            one.redact("refused p@ss+w+rd&x for user"),
            "refused *** for user"
        );
    }

    #[test]
    fn a_short_secret_goes_only_where_it_stands_alone() {
        let one = http("https://a.example/h?v=1", "B token", &["x"]);
        assert_eq!(
            one.redact("HTTP 401 v=1 x 1 exit"),
            "HTTP 401 *** *** *** exit"
        );
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_either() {
        let one = http(
            "https://a.example/",
            "Bearer token",
            &["abcdef", "defghi", "abcdefgh"],
        );
        assert_eq!(one.redact("-abcdefghi-"), "-***-");
        assert_eq!(one.redact("abcdefabcdef"), "***");
        let one = http("https://a.example/", "Bearer token", &["aaaa"]);
        assert_eq!(one.redact("aaaaaa"), "***");
    }

    #[test]
    fn a_secret_made_of_stars_does_not_grow() {
        let one = http("https://a.example/", "Bearer token", &["****"]);
        assert_eq!(one.redact("a **** token"), "a *** ***");
    }

    #[test]
    fn letters_of_several_bytes_survive() {
        let one = http(
            "https://a.example/?k=%C3%BC%C3%BC%C3%BC%C3%BC",
            "Bearer token",
            &[],
        );
        assert_eq!(one.redact("größe üüüüü ß"), "größe *** ß");
    }
}
