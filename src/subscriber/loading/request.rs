//! Subscribers from requests: the JSON form of what a subscriber's file says, held to the same
//! rules. A read shows `{"set": true}` in place of a secret; written back, that keeps the secret,
//! but never sends it to another address than the one that it was given for.

use secrecy::ExposeSecret;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    settings::{
        Mistake, Mistakes, Place, checks,
        mistakes::{Wrong, nearest},
    },
    webhook::WebhookType,
};

use super::{
    super::{Subscriber, SubscriberId, Target, address},
    Rules, entry,
    table::{Source, Table},
    value,
};

/// What stands in place of a URL's query in what is shown.
pub(in crate::subscriber) const HIDDEN_QUERY: &str = "***";

/// The webhook types of a case's own hook: those of the case administration.
pub const HOOK_EVENTS: [WebhookType; 6] = [
    WebhookType::ActivityChange,
    WebhookType::ClaimAttributeChange,
    WebhookType::CaseAttributeChange,
    WebhookType::ContactAttributeChange,
    WebhookType::ActivityAttributeChange,
    WebhookType::ClaimStatusChange,
];

/// What a request asks for.
#[derive(Debug)]
pub struct Asked {
    /// The subscriber; its origin says nothing yet.
    pub subscriber: Subscriber,
    /// Whether `timeout` was given. Otherwise it is today's default.
    pub timeout: bool,
    /// Whether `max_in_flight` was given. Otherwise it is today's default.
    pub max_in_flight: bool,
    /// Whether a secret is kept: it is that of the subscriber as it was when the request was read.
    pub kept: bool,
}

const HOOK_KEYS: [&str; 3] = ["url", "authorization", "enabled"];

/// The id of the hook of this case: `case-` and the first 32 hex digits of SHA-256 of the case id.
pub fn hook_id(case: &str) -> SubscriberId {
    let digest = Sha256::digest(case.as_bytes());
    let hex = digest[..16].iter().map(|byte| format!("{byte:02x}"));
    SubscriberId::new(format!("case-{}", hex.collect::<String>()))
}

/// Reads the subscriber that `body` describes, whose id is `id`. `current` is what has this id now,
/// whose secrets may be kept. The error holds every mistake there is.
pub fn subscriber(
    id: &str,
    body: Json,
    current: Option<&Subscriber>,
    rules: &Rules,
) -> Result<Asked, Mistakes> {
    let mut body = object(body)?;
    let mut mistakes = Vec::new();
    match body.get("id") {
        Some(Json::String(given)) if given != id => mistakes.push(mistake(
            "id",
            Wrong::new(
                format!("is {given:?}, and the address of the request says {id:?}"),
                "Leave it out, or correct one of the two",
            ),
        )),
        // What is no text is found wrong below.
        Some(_) => {}
        None => {
            body.insert("id".to_owned(), id.into());
        }
    }
    let kept = keep(&mut body, current, &mut mistakes);
    read(body, rules, false, kept, mistakes)
}

/// Reads the hook of a case: `url`, and optionally `authorization` and `enabled`.
pub fn hook(
    case: &str,
    body: Json,
    current: Option<&Subscriber>,
    rules: &Rules,
) -> Result<Asked, Mistakes> {
    let mut given = object(body)?;
    let mut mistakes = Vec::new();
    for name in given
        .keys()
        .filter(|name| !HOOK_KEYS.contains(&name.as_str()))
    {
        let remedy = match nearest(name, HOOK_KEYS) {
            Some(near) => format!("Write `{near}`"),
            None => format!("Remove it; there are {}", HOOK_KEYS.join(", ")),
        };
        mistakes.push(mistake(name, Wrong::new("is not a known key", remedy)));
    }
    let mut http = Map::new();
    for key in ["url", "authorization"] {
        // "No authorization" may be said either way.
        if let Some(value) = given.remove(key).filter(|v| key == "url" || !v.is_null()) {
            http.insert(key.to_owned(), value);
        }
    }
    let mut body = Map::new();
    body.insert("id".to_owned(), hook_id(case).as_str().into());
    body.insert("cases".to_owned(), json!([case]));
    body.insert(
        "events".to_owned(),
        json!(HOOK_EVENTS.map(WebhookType::name)),
    );
    body.extend(
        given
            .remove("enabled")
            .map(|flag| ("enabled".to_owned(), flag)),
    );
    body.insert("http".to_owned(), http.into());
    let kept = keep(&mut body, current, &mut mistakes);
    read(body, rules, true, kept, mistakes).map_err(|mistakes| {
        let own = mistakes.into_iter().map(as_of_hook).collect::<Vec<_>>();
        own.into()
    })
}

/// A mistake in the subscriber that a hook stands for, as one in the hook.
fn as_of_hook(mistake: Mistake) -> Mistake {
    let place = match mistake.place {
        Place::Request(pointer) if pointer.starts_with("/cases") => {
            return Mistake {
                place: Place::Request("/case".to_owned()),
                what: "the case in the address of the request is no id that an event can carry"
                    .to_owned(),
                remedy: mistake.remedy,
            };
        }
        Place::Request(pointer) => match pointer.strip_prefix("/http") {
            Some(rest) => Place::Request(rest.to_owned()),
            None => Place::Request(pointer),
        },
        place => place,
    };
    Mistake {
        place,
        what: mistake.what.replace("`http.", "`"),
        remedy: mistake.remedy,
    }
}

fn object(body: Json) -> Result<Map<String, Json>, Mistakes> {
    match body {
        Json::Object(members) => Ok(members),
        _ => Err(vec![Mistake {
            place: Place::Request(String::new()),
            what: "the body is not an object".to_owned(),
            remedy: "Write the subscriber's keys in braces".to_owned(),
        }]
        .into()),
    }
}

fn mistake(key: &str, wrong: Wrong) -> Mistake {
    let pointer = format!("/{}", key.replace('.', "/"));
    wrong.at(key, Place::Request(pointer))
}

fn read(
    body: Map<String, Json>,
    rules: &Rules,
    reserved: bool,
    kept: bool,
    mut mistakes: Vec<Mistake>,
) -> Result<Asked, Mistakes> {
    let (timeout, max_in_flight) = (
        body.contains_key("timeout"),
        body.contains_key("max_in_flight"),
    );
    let node = value::of_json(body.into(), String::new());
    let value::Value::Table(fields) = &node.value else {
        return Err(mistakes.into());
    };
    let table = Table::new(Source::Request, fields, node.place.clone(), "");
    let entry = entry::read(&table, rules, &|_| None, reserved);
    mistakes.extend(table.take_mistakes());
    match entry.subscriber {
        Some(subscriber) if mistakes.is_empty() => Ok(Asked {
            subscriber,
            timeout,
            max_in_flight,
            kept,
        }),
        _ => Err(mistakes.into()),
    }
}

/// Puts the secrets of `current` where `body` says to keep them; tells whether it does.
fn keep(
    body: &mut Map<String, Json>,
    current: Option<&Subscriber>,
    mistakes: &mut Vec<Mistake>,
) -> bool {
    let given = body.clone();
    if let Some(given) = body.get_mut("signing_secret") {
        let secrets = current.map_or(&[][..], |current| &current.signing_secrets);
        let mut secrets = secrets.iter();
        let mut put = |place: &mut Json| {
            if !is_kept(place) {
                return;
            }
            match secrets.next() {
                Some(secret) => *place = secret.expose_secret().into(),
                None => mistakes.push(nothing_to_keep("signing_secret", place)),
            }
        };
        match given {
            Json::Array(places) => places.iter_mut().for_each(put),
            place => put(place),
        }
    }
    if let Some(Json::Object(http)) = body.get_mut("http") {
        keep_http(http, current, mistakes);
    }
    if let Some(Json::Object(amqp)) = body.get_mut("amqp")
        && let Some(place) = amqp.get_mut("uri")
        && is_kept(place)
    {
        match current.map(|current| &current.target) {
            Some(Target::Amqp(target)) if let Some(broker) = &target.broker => {
                *place = broker.uri.expose_secret().into();
            }
            _ => mistakes.push(nothing_to_keep("amqp.uri", place)),
        }
    }
    *body != given
}

/// Secrets that go to an endpoint are kept only for the endpoint that they were given for: whoever
/// may change a subscriber must not be able to have them sent elsewhere.
fn keep_http(
    http: &mut Map<String, Json>,
    current: Option<&Subscriber>,
    mistakes: &mut Vec<Mistake>,
) {
    let current = match current.map(|current| &current.target) {
        Some(Target::Http(target)) => Some(target),
        _ => None,
    };
    let url = http.get("url").and_then(Json::as_str);
    let url = url.and_then(|url| checks::http_url(url).ok());
    let known = current.filter(|known| {
        url.as_ref()
            .is_some_and(|url| address(url) == address(&known.url))
    });
    if let Some(mut url) = url.filter(|url| url.query() == Some(HIDDEN_QUERY)) {
        let same = known.filter(|known| known.url.path() == url.path());
        if let Some(query) = same.and_then(|known| known.url.query()) {
            url.set_query(Some(query));
            http.insert("url".to_owned(), Url::to_string(&url).into());
        } else {
            let what = "has `***` for its query, and there is none to keep at this address";
            let remedy = "Write the whole URL";
            mistakes.push(mistake("http.url", Wrong::new(what, remedy)));
        }
    }
    if let Some(place) = http.get_mut("authorization").filter(|place| is_kept(place)) {
        match known.and_then(|known| known.authorization.as_ref()) {
            Some(secret) => *place = secret.expose_secret().into(),
            None => mistakes.push(nothing_to_keep("http.authorization", place)),
        }
    }
    if let Some(Json::Object(headers)) = http.get_mut("headers") {
        for (name, place) in headers.iter_mut().filter(|(_, place)| is_kept(place)) {
            let lower = name.to_lowercase();
            let mut own = known.iter().flat_map(|known| &known.headers);
            match own.find(|(other, _)| *other == lower) {
                Some((_, secret)) => *place = secret.expose_secret().into(),
                None => mistakes.push(nothing_to_keep(&format!("http.headers.{name}"), place)),
            }
        }
    }
}

/// Whether this is what a read shows in place of a secret.
fn is_kept(place: &Json) -> bool {
    place.get("set") == Some(&Json::Bool(true))
}

/// The mistake, and in its place a text that says nothing: one mistake is enough.
fn nothing_to_keep(key: &str, place: &mut Json) -> Mistake {
    *place = match key {
        "signing_secret" => "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
        "amqp.uri" => "amqp://unknown".into(),
        _ => "unknown".into(),
    };
    let what = "is to stay as it is set, and none is set for this address";
    mistake(key, Wrong::new(what, "Write the secret itself"))
}

#[cfg(test)]
mod tests;
