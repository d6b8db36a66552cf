//! The log, on standard error, as lines for people or JSON objects.

use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::settings::{LogFormat, LogSettings};

/// Always last in the filter. The client library logs a returned message whole, payload and all.
const QUIET: [&str; 3] = ["lapin=off", "hyper=warn", "h2=warn"];

/// Why logging could not start.
#[derive(Debug, Error)]
pub enum LogError {
    /// `log.level` is not a filter.
    #[error("log.level '{level}' is not valid: {error}; use error, warn, info, debug or trace")]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// Logging runs already.
    #[error("logging runs already")]
    Running,
}

/// Which lines are written at this level, which may name parts: `info,hookbridge=debug`.
pub fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let wrong = |error| LogError::Level {
        level: level.to_owned(),
        error,
    };
    let mut filter = EnvFilter::try_new(level).map_err(wrong)?;
    for directive in QUIET {
        filter = filter.add_directive(directive.parse().map_err(wrong)?);
    }
    Ok(filter)
}

/// Starts logging.
pub fn start(settings: &LogSettings) -> Result<(), LogError> {
    let filter = filter(&settings.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colours).with_target(false).try_init()
        }
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    started.map_err(|_| LogError::Running)
}
