//! The jobplane worker: the agent that leases executions, the runtimes that run them, and the
//! retrying client that both the worker and the command line call the controller with.
//!
//! A program of its own becomes a worker with [`Worker::builder`]: its async functions are the jobs, chosen by the
//! job's name.
//!
//! ```no_run
//! use jobplane_worker::{Context, Stream, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Resize {
//!     width: u32,
//!     height: u32,
//! }
//!
//! #[derive(Serialize)]
//! struct Resized {
//!     pixels: u64,
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     Worker::builder()
//!         .url(std::env::var("JOBPLANE_URL")?)
//!         .token(std::env::var("JOBPLANE_WORKER_TOKEN")?)
//!         .queues(["images"])
//!         .concurrency(16)
//!         .handler("resize", |ctx: Context, input: Resize| async move {
//!             ctx.log(Stream::Stdout, format!("attempt {}", ctx.attempt())).await;
//!             Ok(Resized { pixels: u64::from(input.width) * u64::from(input.height) })
//!         })
//!         .build()?
//!         .run()
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! Workers in other languages need no library: `docs/worker-protocol.md` has all that they must do.
//!
//! [`WorkerBuilder::handler`] says what becomes of inputs, outputs, errors and panics, [`Context`] what a handler
//! knows and can say.

mod agent;
mod backoff;
mod check;
mod client;
mod container;
mod error;
mod exec;
mod handlers;
mod health;
mod http;
mod logging;
mod logs;
mod metrics;
mod options;
mod otlp;
mod output;
mod result_file;
mod runtime;
mod settings;
mod shutdown;
#[cfg(test)]
mod stub;
mod trace;
mod worker;

pub use backoff::Backoff;
pub use check::check;
pub use client::{Call, Client, Credential, RetryPolicy};
pub use container::{ContainerSettings, Pull};
pub use error::Error;
pub use exec::{JobSettings, warden};
pub use handlers::{Context, JobError, StopReason};
pub use http::ask_health;
pub use jobplane_protocol::{ExecutionId, JobId, LeasedJob, Stream, TenantId};
pub use logging::start_logging;
pub use otlp::TraceExport;
pub use settings::{LogFormat, RuntimeKind, Settings};
pub use shutdown::{Shutdown, on_signals};
pub use worker::{Worker, WorkerBuilder};

use nix::sys::prctl;

/// Runs a worker, the only thing its process does, until SIGTERM or SIGINT has been received and it
/// has drained. The process's `main` must have begun with [`warden`].
///
/// # Errors
/// [`Error::Configuration`] for a setting that cannot work; [`Error::Refused`] or [`Error::Gateway`]
/// if the controller refuses the very first dequeue; [`Error::Fault`] if a part of the worker fails.
/// Once the first dequeue has been answered, nothing else but a shutdown ends the worker.
pub async fn run(settings: Settings) -> Result<(), Error> {
    // Jobs run as the same user: without this they could read the token in /proc/PID/environ.
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "jobs may be able to read this process's environment");
    }
    // What is left of a job whose warden was killed comes to this process, which ends it.
    if let Err(error) = prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "a job that kills its warden may leave processes behind");
    }
    let (options, runtime) = (settings.options()?, settings.runtime()?);
    let traces = TraceExport::start()?;
    let ended = agent::run(&options, runtime, on_signals()?).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    ended
}
