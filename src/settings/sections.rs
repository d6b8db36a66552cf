//! What the values of each section must be.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use secrecy::ExposeSecret;

use super::{
    AdminSettings, AdminTls, BrokerSettings, DeliverySettings, LogFormat, LogSettings, Settings,
    SourceSettings, SubscribersSettings, TargetsSettings, TelemetrySettings, UnknownEvents, checks,
    mistakes::{Wrong, nearest},
    tokens,
    values::{Secret, Values},
};

mod store;

/// The longest prefix: every name made from it stays far below AMQP's 255 bytes.
const LONGEST_PREFIX: usize = 100;

/// The longest wait between two attempts: a queue's TTL is a 32-bit count of milliseconds, and
/// brokers differ on whether the sign bit counts.
const LONGEST_RETRY_DELAY: Duration = Duration::from_hours(24 * 24);

/// How long a message may be held at most, on its way or while the bridge stops: far less than
/// RabbitMQ's `consumer_timeout`, after which it closes the channel of whoever holds one.
const LONGEST_HOLD: Duration = Duration::from_mins(10);

/// The largest message that RabbitMQ can be configured to take.
const LARGEST_MESSAGE: i64 = 134_217_728;

/// The exchanges beginning with `amq.` that every RabbitMQ has; it lets nobody make others.
const BUILT_IN_EXCHANGES: [&str; 7] = [
    "amq.direct",
    "amq.fanout",
    "amq.headers",
    "amq.match",
    "amq.topic",
    "amq.rabbitmq.log",
    "amq.rabbitmq.trace",
];

/// Reads every section. `None` cannot come of a mistake in the file or the environment, only of a
/// default that its own check refuses.
pub(super) fn read(values: &mut Values<'_>) -> Option<Settings> {
    let broker = broker(values)?;
    Some(Settings {
        source: source(values, &broker.prefix)?,
        broker,
        delivery: delivery(values)?,
        targets: targets(values)?,
        subscribers: subscribers(values),
        store: store::store(values),
        admin: admin(values)?,
        log: log(values)?,
        telemetry: telemetry(values)?,
    })
}

fn broker(values: &mut Values<'_>) -> Option<BrokerSettings> {
    let uri = values.secret("broker.uri", "broker.uri_file", |uri| {
        checks::amqp_uri(uri).map(drop)
    });
    if uri.is_none() && values.is_sound("broker.uri") && values.is_sound("broker.uri_file") {
        let remedy = "Write amqp://user:password@host:5672/vhost, or name a file in \
                      `broker.uri_file`";
        values.wrong("broker.uri", Wrong::new("is empty", remedy));
    }
    let (uri, uri_file) = match uri {
        Some(Secret { value, file }) => (value, file),
        None => Default::default(),
    };
    let broker = BrokerSettings {
        ca_file: values.file("broker.ca_file"),
        client_certificate_file: values.file("broker.client_certificate_file"),
        client_key_file: values.file("broker.client_key_file"),
        prefix: values.text("broker.prefix", prefix)?,
        declare: values.flag("broker.declare")?,
        uri,
        uri_file,
    };
    let pair = [
        (
            &broker.client_certificate_file,
            "broker.client_certificate_file",
        ),
        (&broker.client_key_file, "broker.client_key_file"),
    ];
    both_or_neither(values, pair);
    let without_tls = values.is_sound("broker.uri")
        && checks::amqp_uri(broker.uri.expose_secret()).is_ok_and(|uri| uri.scheme() == "amqp");
    if without_tls {
        for (file, key) in [(&broker.ca_file, "broker.ca_file"), pair[0], pair[1]] {
            if file.is_some() {
                let remedy = "Write amqps:// in `broker.uri`, or leave this out";
                let what = "is for TLS, and `broker.uri` is amqp://";
                values.wrong(key, Wrong::new(what, remedy));
            }
        }
    }
    Some(broker)
}

/// A certificate and its key are given together, or not at all.
fn both_or_neither(values: &mut Values<'_>, pair: [(&Option<PathBuf>, &'static str); 2]) {
    for ((this, key), (other, missing)) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        if this.is_some() && other.is_none() && values.is_sound(missing) {
            let what = format!("is given without `{missing}`");
            values.wrong(key, Wrong::new(what, "Give both, or neither"));
        }
    }
}

fn prefix(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let remedy = "Write letters, digits, `.`, `_` and `-`, such as \"hookbridge\"";
    if text.is_empty() {
        return Err(Wrong::new("is empty", remedy));
    }
    if let Some(stranger) = text.chars().find(|c| !allowed(*c)) {
        return Err(Wrong::new(format!("holds {stranger:?}"), remedy));
    }
    if text == "amq" || text.starts_with("amq.") {
        return Err(Wrong::new(
            "makes names that begin with `amq.`, which RabbitMQ keeps for itself",
            "Write another, such as \"hookbridge\"",
        ));
    }
    if text.len() > LONGEST_PREFIX {
        return Err(Wrong::new(
            format!("has {} characters", text.len()),
            format!("Write at most {LONGEST_PREFIX}: AMQP limits the names made from it"),
        ));
    }
    Ok(text.to_owned())
}

fn source(values: &mut Values<'_>, prefix: &str) -> Option<SourceSettings> {
    let prefix_is_sound = values.is_sound("broker.prefix");
    let exchange = values.text("source.exchange", |name| {
        let name = checks::broker_name(name)?;
        if prefix_is_sound && name.starts_with(&format!("{prefix}.")) {
            return Err(Wrong::new(
                format!("begins with `{prefix}.`, as the bridge's own exchanges do"),
                "Name the exchange that the backend services publish to, or change `broker.prefix`",
            ));
        }
        if name.starts_with("amq.") && !BUILT_IN_EXCHANGES.contains(&&*name) {
            return Err(Wrong::new(
                "begins with `amq.`, and no RabbitMQ has such an exchange",
                "Write a name that does not, or that of a built-in exchange such as \"amq.topic\"",
            ));
        }
        Ok(name)
    });
    let bindings = values.list("source.bindings", checks::at_most_255_bytes)?;
    if bindings.is_empty() && values.is_sound("source.bindings") {
        let what = "is empty, so that no event would ever arrive";
        let remedy = "Write [\"#\"] for every event, or the routing keys wanted";
        values.wrong("source.bindings", Wrong::new(what, remedy));
    }
    let max_event_bytes = values.number("source.max_event_bytes", 1024..=LARGEST_MESSAGE)?;
    let prefetch = values.number("source.prefetch", 1..=i64::from(u16::MAX))?;
    Some(SourceSettings {
        exchange: exchange?,
        bindings,
        unknown_events: values.text("source.unknown_events", |word| match word {
            "ignore" => Ok(UnknownEvents::Ignore),
            "reject" => Ok(UnknownEvents::Reject),
            _ => Err(one_of(word, &["ignore", "reject"])),
        })?,
        max_event_bytes: usize::try_from(max_event_bytes).ok()?,
        prefetch: u16::try_from(prefetch).ok()?,
    })
}

fn delivery(values: &mut Values<'_>) -> Option<DeliverySettings> {
    let max_in_flight = values.number("delivery.max_in_flight_per_subscriber", 1..=1000)?;
    let delivery = DeliverySettings {
        retry_delay: values.text("delivery.retry_delay", retry_delay)?,
        timeout: values.text("delivery.timeout", holding)?,
        max_in_flight_per_subscriber: usize::try_from(max_in_flight).ok()?,
        shutdown_timeout: values.text("delivery.shutdown_timeout", holding)?,
    };
    let (timeout, shutdown) = ("delivery.timeout", "delivery.shutdown_timeout");
    let both_sound = values.is_sound(timeout) && values.is_sound(shutdown);
    if both_sound && delivery.timeout >= delivery.shutdown_timeout {
        let (given, other) = if values.is_given(timeout) {
            (timeout, "is not below `delivery.shutdown_timeout`")
        } else {
            (shutdown, "is not above `delivery.timeout`")
        };
        let times = format!(
            " ({} and {})",
            humantime::format_duration(delivery.timeout),
            humantime::format_duration(delivery.shutdown_timeout)
        );
        let remedy = "Keep the timeout below it: a stop must be able to wait for the last attempt";
        values.wrong(given, Wrong::new(other.to_owned() + &times, remedy));
    }
    Some(delivery)
}

/// A time for which deliveries, and with them messages of the broker, are held.
fn holding(text: &str) -> Result<Duration, Wrong> {
    let time = checks::duration(text)?;
    if time > LONGEST_HOLD {
        return Err(Wrong::new(
            format!("is {}", humantime::format_duration(time)),
            "Write at most \"10m\": RabbitMQ closes the channel of whoever holds a message for longer \
             than its `consumer_timeout`, which is 30 minutes unless it is set lower",
        ));
    }
    Ok(time)
}

fn retry_delay(text: &str) -> Result<Duration, Wrong> {
    let delay = checks::duration(text)?;
    if delay.subsec_nanos() % 1_000_000 != 0 {
        return Err(Wrong::new(
            "is not a whole number of milliseconds",
            "Write whole milliseconds, such as \"30s\" or \"500ms\"",
        ));
    }
    if delay > LONGEST_RETRY_DELAY {
        return Err(Wrong::new(
            format!("is {}", humantime::format_duration(delay)),
            "Write at most \"24d\": a queue's TTL has 32 bits",
        ));
    }
    Ok(delay)
}

fn targets(values: &mut Values<'_>) -> Option<TargetsSettings> {
    let allow_networks = values.list("targets.allow_networks", network)?;
    let ca_file = values.file("targets.ca_file");
    let (certificate, key) = ("targets.client_certificate_file", "targets.client_key_file");
    let (client_certificate_file, client_key_file) = (values.file(certificate), values.file(key));
    let pair = [
        (&client_certificate_file, certificate),
        (&client_key_file, key),
    ];
    both_or_neither(values, pair);
    let proxy = values.secret("targets.proxy", "targets.proxy_file", |url| {
        checks::http_url(url).map(drop)
    });
    Some(TargetsSettings {
        allow_networks,
        ca_file,
        client_certificate_file,
        client_key_file,
        proxy: proxy.map(|proxy| proxy.value),
    })
}

fn network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(network) = text.parse::<IpNet>() else {
        let remedy = "Write one such as \"10.1.0.0/16\" or \"fd00::/8\"";
        return Err(Wrong::new(
            format!("holds \"{text}\", which is not a network"),
            remedy,
        ));
    };
    if network != network.trunc() {
        return Err(Wrong::new(
            format!("holds \"{text}\", an address with a network's length"),
            format!(
                "Write \"{}\" for the network, or \"{}\" for the address alone",
                network.trunc(),
                network.addr()
            ),
        ));
    }
    Ok(network)
}

fn subscribers(values: &mut Values<'_>) -> SubscribersSettings {
    let directory = values.path("subscribers.directory");
    if directory.is_none() && values.is_sound("subscribers.directory") {
        let remedy = "Write the directory that the subscribers' files are in";
        values.wrong("subscribers.directory", Wrong::new("is empty", remedy));
    }
    let watch = values.text("subscribers.watch", |text| match text {
        "" => Ok(None),
        _ => checks::duration(text).map(Some).map_err(|wrong| Wrong {
            remedy: "Write a duration such as \"5s\", or nothing for never".to_owned(),
            ..wrong
        }),
    });
    SubscribersSettings {
        directory: directory.unwrap_or_default(),
        watch: watch.flatten(),
    }
}

fn admin(values: &mut Values<'_>) -> Option<AdminSettings> {
    let listen = values.text("admin.listen", |text| {
        text.parse().map_err(|_| {
            let remedy = "Write an IP address and a port, such as \"127.0.0.1:8080\"";
            Wrong::new(format!("is \"{text}\", which is not an address"), remedy)
        })
    })?;
    let (certificate, key) = ("admin.certificate_file", "admin.key_file");
    let (certificate_file, key_file) = (values.file(certificate), values.file(key));
    both_or_neither(values, [(&certificate_file, certificate), (&key_file, key)]);
    let tls = certificate_file.zip(key_file);
    Some(AdminSettings {
        listen,
        tls: tls.map(|(certificate_file, key_file)| AdminTls {
            certificate_file,
            key_file,
        }),
        tokens: tokens::tokens(values),
    })
}

fn log(values: &mut Values<'_>) -> Option<LogSettings> {
    Some(LogSettings {
        format: values.text("log.format", |word| match word {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(one_of(word, &["text", "json"])),
        })?,
        level: values.text("log.level", log_level)?,
    })
}

fn telemetry(values: &mut Values<'_>) -> Option<TelemetrySettings> {
    let otlp_endpoint = values.text("telemetry.otlp_endpoint", |text| {
        if text.is_empty() {
            return Ok(None);
        }
        let url = checks::http_url(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Wrong::new(
                "holds a user or a password",
                "Put what the collector asks for into OTEL_EXPORTER_OTLP_HEADERS",
            ));
        }
        Ok(Some(url))
    })?;
    Some(TelemetrySettings { otlp_endpoint })
}

/// A level, or a filter of `target=level` pairs. The filter's own parser takes any lone word for a
/// target and would log nothing for a mistyped level, so a lone word must be a level here.
fn log_level(text: &str) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    if text.trim().is_empty() {
        return Err(Wrong::new("is empty", "Write a level, such as \"info\""));
    }
    for directive in text.split(',').map(str::trim) {
        let lone_word = !directive.contains(['=', '[']);
        if lone_word && !LEVELS.contains(&directive.to_lowercase().as_str()) {
            return Err(one_of(directive, &LEVELS));
        }
    }
    if tracing_subscriber::EnvFilter::builder()
        .parse(text)
        .is_err()
    {
        return Err(Wrong::new(
            "is not a filter",
            "Write a level, or pairs such as \"info,hookbridge=debug\"",
        ));
    }
    Ok(text.to_owned())
}

/// `word` is none of the words allowed.
fn one_of(word: &str, allowed: &[&str]) -> Wrong {
    let remedy = match nearest(word, allowed.iter().copied()) {
        Some(near) => format!("Write \"{near}\""),
        None => format!("Write one of \"{}\"", allowed.join("\", \"")),
    };
    Wrong::new(format!("holds \"{word}\""), remedy)
}
