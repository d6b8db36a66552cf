//! What single values must be, wherever they stand: settings and subscribers share these. What a
//! check says is wrong never repeats a value that may hold a secret.

use std::{fs, io, path::Path, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::mistakes::Wrong;

/// The longest name of a queue or exchange, and the longest routing or binding key, in bytes.
pub(crate) const LONGEST_NAME: usize = 255;

/// A duration above zero.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(Wrong::new(
            "is zero",
            "Write a longer duration, such as \"30s\"",
        )),
        Ok(duration) => Ok(duration),
        Err(_) => Err(Wrong::new(
            format!("is \"{text}\", which is not a duration"),
            "Write a number with its unit, such as \"30s\" or \"500ms\"",
        )),
    }
}

/// The name of a queue or exchange.
pub(crate) fn broker_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() {
        return Err(Wrong::new("is empty", "Write a name"));
    }
    at_most_255_bytes(text)
}

/// A binding or routing key, or a name that may be empty.
pub(crate) fn at_most_255_bytes(text: &str) -> Result<String, Wrong> {
    if text.len() > LONGEST_NAME {
        return Err(Wrong::new(
            format!("has {} bytes", text.len()),
            format!("AMQP allows {LONGEST_NAME} at most: write a shorter one"),
        ));
    }
    Ok(text.to_owned())
}

/// An AMQP URI with a host.
pub(crate) fn amqp_uri(text: &str) -> Result<Url, Wrong> {
    const SHAPE: &str = "Write amqp://user:password@host:5672/vhost (or amqps://), with special \
                         characters in user, password and vhost percent-encoded";
    let Ok(uri) = Url::parse(text) else {
        return Err(Wrong::new("is not a URI", SHAPE));
    };
    if !matches!(uri.scheme(), "amqp" | "amqps") {
        return Err(Wrong::new("has another scheme than amqp or amqps", SHAPE));
    }
    if uri.host_str().is_none_or(str::is_empty) {
        return Err(Wrong::new("names no host", SHAPE));
    }
    if uri.fragment().is_some() {
        return Err(Wrong::new(
            "holds a `#`, and what follows it would be ignored",
            "Write %23 for a `#` in the password or the vhost",
        ));
    }
    if uri.path() == "/" {
        return Err(Wrong::new(
            "ends with `/`, which names the virtual host with the empty name",
            "Write /%2f for the virtual host `/`, or leave the `/` out",
        ));
    }
    // Each %xx is one byte. The first is the `/` before it.
    let encoded = uri.path().matches('%').count();
    if uri.path().len() > LONGEST_NAME + 1 + 2 * encoded {
        return Err(Wrong::new(
            "has a virtual host that is too long",
            format!("AMQP allows {LONGEST_NAME} bytes"),
        ));
    }
    for (name, value) in uri.query_pairs() {
        let narrow = matches!(&*name, "channel_max" | "heartbeat") && value.parse::<u16>().is_err();
        let number = matches!(
            &*name,
            "frame_max" | "channel_max" | "heartbeat" | "connection_timeout"
        );
        if narrow || number && value.parse::<u32>().is_err() {
            return Err(Wrong::new(
                format!("has a `{name}` that is not a whole number, or too large"),
                format!("Correct `{name}`, or leave it out"),
            ));
        }
    }
    Ok(uri)
}

/// An `http://` or `https://` URL with a host.
pub(crate) fn http_url(text: &str) -> Result<Url, Wrong> {
    const SHAPE: &str = "Write a whole URL, such as https://host.example/path";
    let url =
        Url::parse(text).map_err(|error| Wrong::new(format!("is not a URL ({error})"), SHAPE))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Wrong::new("has another scheme than http or https", SHAPE));
    }
    Ok(url)
}

/// A file that a setting names: it must be there, and readable.
pub(crate) fn readable_file(path: &Path) -> Result<(), Wrong> {
    let opened = fs::File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(metadata) if metadata.is_dir() => Err(Wrong::new(
            format!("names {}, which is a directory", path.display()),
            "Name a file",
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// The secret in a file, without the newline that editors and `echo` put at its end.
pub(crate) fn secret_in(path: &Path) -> Result<SecretString, Wrong> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let secret = without_newline(&text);
    if secret.is_empty() {
        return Err(Wrong::new(
            format!("names {}, which is empty", path.display()),
            "Write the secret into it",
        ));
    }
    Ok(SecretString::from(secret))
}

/// [`secret_in`] that holds what `check` wants.
pub(crate) fn checked_secret_in(
    path: &Path,
    check: impl Fn(&str) -> Result<(), Wrong>,
) -> Result<SecretString, Wrong> {
    let secret = secret_in(path)?;
    check(secret.expose_secret()).map_err(|wrong| Wrong {
        what: format!("names {}, whose content {}", path.display(), wrong.what),
        ..wrong
    })?;
    Ok(secret)
}

/// The text without one newline at its end.
pub(crate) fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn unreadable(path: &Path, error: &io::Error) -> Wrong {
    match error.kind() {
        io::ErrorKind::NotFound => Wrong::new(
            format!("names {}, which does not exist", path.display()),
            "Make the file, or correct the path: a relative one starts from the directory of the \
             settings or subscriber's file",
        ),
        io::ErrorKind::InvalidData => Wrong::new(
            format!("names {}, which is not UTF-8 text", path.display()),
            "Name the right file",
        ),
        _ => Wrong::new(
            format!("names {}, which cannot be read ({error})", path.display()),
            "Let the user that the bridge runs as read it",
        ),
    }
}
