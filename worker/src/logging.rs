//! The worker's own log, on standard error.

use crate::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged when `RUST_LOG` does not say.
const DEFAULT_FILTER: &str = "info";

/// Sends the process's log to standard error; `RUST_LOG` filters it. Without a format: pretty on a
/// terminal, JSON otherwise. Once per process, before anything is logged.
pub fn start_logging(format: Option<LogFormat>) {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // A line that cannot be written is lost. Said on standard error it would panic, and take a job's result along.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match format {
        LogFormat::Pretty => builder.with_ansi(terminal).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
