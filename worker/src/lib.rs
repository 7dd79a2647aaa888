//! The jobplane worker: the agent that leases executions, the runtime that runs them, and the
//! retrying client that both the worker and the command line call the controller with.

mod agent;
mod backoff;
mod client;
mod error;
mod exec;
mod logging;
mod settings;
mod shutdown;

pub use backoff::Backoff;
pub use client::{Call, Client, Credential, RetryPolicy};
pub use error::Error;
pub use logging::start_logging;
pub use settings::{LogFormat, Runtime, Settings};
pub use shutdown::{Shutdown, on_signals};

use tokio::sync::watch;

/// Runs a worker until SIGTERM or SIGINT has been received and it has drained.
///
/// # Errors
/// As [`run_until`].
pub async fn run(settings: Settings) -> Result<(), Error> {
    run_until(settings, on_signals()?).await
}

/// Runs a worker until `shutdown` says so and it has drained.
///
/// # Errors
/// [`Error::Configuration`] for a setting that cannot work; [`Error::Refused`] or [`Error::Gateway`]
/// if the controller refuses the very first dequeue. Once it has been answered, nothing but a
/// shutdown ends the worker.
pub async fn run_until(settings: Settings, shutdown: watch::Receiver<Shutdown>) -> Result<(), Error> {
    if settings.runtime == Runtime::Container {
        return Err(Error::Configuration("the container runtime is not in this build".to_owned()));
    }
    agent::Agent::run(settings, shutdown).await
}
