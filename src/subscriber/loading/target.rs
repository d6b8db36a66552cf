//! Where a subscriber's webhooks go: its `[http]` or `[amqp]` table.

use crate::settings::{
    checks,
    mistakes::{Wrong, nearest},
};

use super::{
    super::{AmqpTarget, Destination, HttpTarget, OutsideBroker, RoutingKeyTemplate},
    Rules,
    secrets::{self, AUTHORIZATION, URI, Variable},
    table::{Given, Table},
    value::{Field, Value},
};

const HTTP_KEYS: [&str; 5] = [
    "url",
    "authorization",
    "authorization_file",
    "authorization_env",
    "headers",
];

const AMQP_KEYS: [&str; 7] = [
    "uri",
    "uri_file",
    "uri_env",
    "queue",
    "declare",
    "exchange",
    "routing_key",
];

/// Headers that the bridge sets itself.
const OWN_HEADERS: [&str; 6] = [
    "host",
    "connection",
    "transfer-encoding",
    "authorization",
    "user-agent",
    "traceparent",
];

/// What a routing key is made from unless the subscriber says otherwise.
const DEFAULT_ROUTING_KEY: &str = "{type}.{case}";

const PLACEHOLDERS: [&str; 4] = ["type", "case", "subscriber", "party"];

/// `[http]`
pub(super) fn http(table: &Table<'_>, variable: Variable<'_>) -> Option<HttpTarget> {
    table.allow_only(&HTTP_KEYS);
    let authorization = secrets::one(table, &AUTHORIZATION, variable, secrets::header_value);
    let headers = headers(table);
    if !table.has("url") {
        let wrong = Wrong::new("is missing", "Write the URL that webhooks are sent to");
        table.wrong("url", wrong);
    }
    let Given { value, place } = table.text("url")?;
    let read = checks::http_url(value).and_then(|url| {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Wrong::new(
                "holds a user or a password",
                "Write `authorization` instead, such as \"Basic …\" or \"Bearer …\"",
            ));
        }
        if url.fragment().is_some() {
            return Err(Wrong::new(
                "holds a `#`, and what follows it is never sent",
                "Leave it out, or write %23",
            ));
        }
        Ok(url)
    });
    Some(HttpTarget {
        url: table.accept("url", read, place)?,
        authorization,
        headers,
    })
}

/// The subscriber's own headers, names in lower case.
fn headers(table: &Table<'_>) -> Vec<(String, secrecy::SecretString)> {
    let Some(own) = table.table("headers", "http.headers.") else {
        return Vec::new();
    };
    let mut headers: Vec<(String, secrecy::SecretString)> = Vec::new();
    for Field {
        name: key, node, ..
    } in own.fields()
    {
        let name = key.to_lowercase();
        if let Err(wrong) = header_name(&name) {
            own.wrong(key, wrong);
        } else if headers.iter().any(|(other, _)| *other == name) {
            let wrong = Wrong::new("is given twice", "Case makes no difference: keep one");
            own.wrong(key, wrong);
        }
        let Value::Text(value) = &node.value else {
            own.wrong(key, Wrong::new("is not a text", "Write it in quotes"));
            continue;
        };
        if let Err(wrong) = secrets::header_value(value) {
            own.wrong(key, wrong);
        }
        headers.push((name, value.as_str().into()));
    }
    table.absorb(&own);
    headers
}

fn header_name(name: &str) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(Wrong::new(
            "is not a header's name",
            "Write letters, digits and `-`",
        ));
    }
    if OWN_HEADERS.contains(&name) || name.starts_with("content-") || name.starts_with("webhook-") {
        let remedy = match name {
            "authorization" => "Write it as `authorization` in [http]",
            _ => "Remove it",
        };
        let what = "is a header that the bridge sets itself";
        return Err(Wrong::new(what, remedy));
    }
    Ok(())
}

/// `[amqp]`
pub(super) fn amqp(table: &Table<'_>, rules: &Rules, variable: Variable<'_>) -> Option<AmqpTarget> {
    table.allow_only(&AMQP_KEYS);
    let on_home_broker = !AMQP_KEYS[..3].iter().any(|key| table.has(key));
    let uri = secrets::one(table, &URI, variable, |uri| checks::amqp_uri(uri).map(drop));
    let declare = table.flag("declare").unwrap_or(false);
    let routing_key = routing_key(table);
    let home_rules = on_home_broker.then_some(rules);
    let queue = name(table, "queue", home_rules);
    let exchange = name(table, "exchange", home_rules);
    match (table.has("queue"), table.has("exchange")) {
        (false, false) => {
            let what = "is missing, and so is `exchange`: nothing says where its webhooks go";
            table.wrong("queue", Wrong::new(what, "Write `queue` or `exchange`"));
        }
        (true, true) => {
            let what = "stands beside `queue`";
            table.wrong("exchange", Wrong::new(what, "Keep one of the two"));
        }
        (true, false) if table.has("routing_key") => {
            let what = "is for an exchange; a queue is published to by its name";
            let remedy = "Remove it, or write `exchange` instead of `queue`";
            table.wrong("routing_key", Wrong::new(what, remedy));
        }
        (false, true) if table.has("declare") => {
            let what = "is for a queue; an exchange must be there";
            let remedy = "Remove it, and let the exchange's owner make it";
            table.wrong("declare", Wrong::new(what, remedy));
        }
        _ => {}
    }
    let queue = queue.map(|name| Destination::Queue { name, declare });
    let exchange = exchange.zip(routing_key);
    let exchange = exchange.map(|(name, routing_key)| Destination::Exchange { name, routing_key });
    let broker = uri.map(|uri| OutsideBroker { uri });
    if broker.is_none() && !on_home_broker {
        return None;
    }
    Some(AmqpTarget {
        broker,
        destination: queue.or(exchange)?,
    })
}

/// The name of a queue or exchange. On the home broker, `rules` keep it off the bridge's own line.
fn name(table: &Table<'_>, key: &str, rules: Option<&Rules>) -> Option<String> {
    let Given { value, place } = table.text(key)?;
    let read = checks::broker_name(value).and_then(|name| {
        let Some(rules) = rules else { return Ok(name) };
        let own = format!("{}.", rules.prefix);
        if key == "exchange" && name == rules.source_exchange {
            return Err(Wrong::new(
                "is the exchange that domain events come from",
                "Name another: webhooks published there would come back as events",
            ));
        }
        if name.starts_with(&own) {
            let remedy = "Name one of the subscriber's own";
            let what = format!("begins with `{own}`, as the bridge's own do");
            return Err(Wrong::new(what, remedy));
        }
        if name.starts_with("amq.") {
            let remedy = "Name one of the subscriber's own";
            let what = "begins with `amq.`, as RabbitMQ's own do";
            return Err(Wrong::new(what, remedy));
        }
        Ok(name)
    });
    let read = read.map_err(|wrong| match (key, value) {
        ("exchange", "") => Wrong::new(
            "is empty, which means the default exchange",
            "Write `queue` instead to publish to a queue by its name",
        ),
        _ => wrong,
    });
    table.accept(key, read, place)
}

fn routing_key(table: &Table<'_>) -> Option<RoutingKeyTemplate> {
    if !table.has("routing_key") {
        return Some(RoutingKeyTemplate(DEFAULT_ROUTING_KEY.to_owned()));
    }
    let Given { value, place } = table.text("routing_key")?;
    table.accept("routing_key", template(value), place)
}

/// A template whose placeholders are all known, and whose fixed part fits into a routing key.
fn template(text: &str) -> Result<RoutingKeyTemplate, Wrong> {
    let mut fixed = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        fixed.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            let remedy = "Write `}` behind the placeholder's name";
            return Err(Wrong::new("holds a `{` without its `}`", remedy));
        };
        if !PLACEHOLDERS.contains(&name) {
            let remedy = match nearest(name, PLACEHOLDERS) {
                Some(near) => format!("Write {{{near}}}"),
                None => "There are {type}, {case}, {subscriber} and {party}".to_owned(),
            };
            let what = format!("holds {{{name}}}, which nothing fills in");
            return Err(Wrong::new(what, remedy));
        }
        rest = behind;
    }
    fixed.push_str(rest);
    checks::at_most_255_bytes(&fixed)?;
    Ok(RoutingKeyTemplate(text.to_owned()))
}
