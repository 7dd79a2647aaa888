//! The jobplane worker: the agent that leases executions, the runtime that runs them, and the
//! retrying client that both the worker and the command line call the controller with.

mod agent;
mod backoff;
mod client;
mod error;
mod exec;
mod logging;
mod logs;
mod runtime;
mod settings;
mod shutdown;
#[cfg(test)]
mod stub;

pub use backoff::Backoff;
pub use client::{Call, Client, Credential, RetryPolicy};
pub use error::Error;
pub use exec::warden;
pub use logging::start_logging;
pub use settings::{LogFormat, RuntimeKind, Settings};
pub use shutdown::{Shutdown, on_signals};

use nix::sys::prctl;

/// Runs a worker, the only thing its process does, until SIGTERM or SIGINT has been received and it
/// has drained. The process's `main` must have begun with [`warden`].
///
/// # Errors
/// [`Error::Configuration`] for a setting that cannot work; [`Error::Refused`] or [`Error::Gateway`]
/// if the controller refuses the very first dequeue; [`Error::Fault`] if a part of the worker fails.
/// Once the first dequeue has been answered, nothing else but a shutdown ends the worker.
pub async fn run(settings: Settings) -> Result<(), Error> {
    let shutdown = on_signals()?;
    // Jobs run as the same user: without this they could read the token in /proc/PID/environ.
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "jobs may be able to read this process's environment");
    }
    // What is left of a job whose warden was killed comes to this process, which ends it.
    if let Err(error) = prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "a job that kills its warden may leave processes behind");
    }
    agent::run(&settings, shutdown).await
}
