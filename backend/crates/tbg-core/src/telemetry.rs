//! Log output: lines for people, JSON in production.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Environment, LogFormat, Settings};

/// Starts logging to standard error. Does nothing when logging has started already.
///
/// # Errors
/// When `TBG_LOG_FILTER` is not a filter.
pub fn init(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log_filter).map_err(|_| {
        anyhow::anyhow!("setting TBG_LOG_FILTER is not valid: expected a level or module=level pairs")
    })?;
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => settings.environment == Environment::Production,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error here means that a subscriber is installed, as in tests: keep that one.
    let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
    Ok(())
}
