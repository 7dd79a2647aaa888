//! The jobplane worker: the agent that leases executions, the runtime that runs them, and the
//! retrying client that both the worker and the command line call the controller with.

mod agent;
mod backoff;
mod client;
mod error;
mod exec;
mod logging;
mod logs;
mod settings;
mod shutdown;
#[cfg(test)]
mod stub;

pub use backoff::Backoff;
pub use client::{Call, Client, Credential, RetryPolicy};
pub use error::Error;
pub use logging::start_logging;
pub use settings::{LogFormat, Runtime, Settings};
pub use shutdown::{Shutdown, on_signals};

use tokio::sync::watch;

/// Runs a worker, the only thing its process does, until SIGTERM or SIGINT has been received and it
/// has drained.
///
/// # Errors
/// As [`run_until`].
pub async fn run(settings: Settings) -> Result<(), Error> {
    let shutdown = on_signals()?;
    // Jobs run as the same user: without this they could read the token in /proc/PID/environ.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "jobs may be able to read this process's environment");
    }
    run_until(settings, shutdown).await
}

/// Runs a worker until `shutdown` says so and it has drained.
///
/// # Errors
/// [`Error::Configuration`] for a setting that cannot work; [`Error::Refused`] or [`Error::Gateway`]
/// if the controller refuses the very first dequeue. Once it has been answered, nothing but a
/// shutdown ends the worker.
pub async fn run_until(settings: Settings, shutdown: watch::Receiver<Shutdown>) -> Result<(), Error> {
    agent::run(&settings, shutdown).await
}
