//! Log lines: to standard error, for people on a terminal, as JSON elsewhere.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::{Global, LogFormat};

/// Sets up logging for the whole process. A second call changes nothing.
pub(super) fn init(global: &Global, level: Level) {
    let filter = Targets::new()
        .with_default(Level::WARN)
        .with_target("walrust", level)
        .with_target("walrust_actors", level)
        .with_target("walrust_engine", level)
        .with_target("walrust_history", level)
        .with_target("walrust_sqlite", level)
        .with_target("walrust_storage", level)
        // Its spans live as long as an actor and would swallow every other.
        .with_target("ractor", Level::WARN);
    let terminal = std::io::stderr().is_terminal();
    let format =
        global.log_format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Human => layer.with_ansi(terminal).with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    // Fails only if a host program has set up logging already, which then is the one to use.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}
