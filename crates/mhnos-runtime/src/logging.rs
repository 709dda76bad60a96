//! The log: lines on stderr, for people or for machines.

use std::io::IsTerminal;

use mhnos_server::config::{Config, LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;

/// Starts logging as configured. Called once, before anything is logged.
pub(crate) fn start(config: &Config) {
    let level = match config.log_level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let terminal = std::io::stderr().is_terminal();
    let text = match config.log_format {
        LogFormat::ByTerminal => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines =
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    if text {
        lines.with_ansi(terminal).init();
    } else {
        lines.json().flatten_event(true).with_target(true).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, error = panic.payload_as_str(), "panicked");
    }));
}
