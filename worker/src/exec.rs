//! The exec runtime: a job is a process under a warden, with its own group, directory and environment.

mod children;
mod ending;
pub(crate) mod environment;
mod limits;
mod process;
mod user;
mod warden;
mod wardens;
mod workspace;

pub use limits::JobSettings;
pub use warden::warden;

use crate::Error;
use crate::agent::{Progress, StopReceiver};
use crate::logs::LogWriter;
use crate::output;
use crate::runtime::{Ending, Runtime, time_limit};
use jobplane_protocol::LeasedExecution;
use process::Process;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::oneshot;
use user::JobUser;
use warden::{Bounds, Order};
use wardens::Wardens;

/// Runs jobs as processes, each under a warden.
pub(crate) struct Exec {
    /// What every job inherits.
    variables: Vec<(OsString, OsString)>,
    kill_grace: Duration,
    bounds: Bounds,
    wardens: Wardens,
}

impl Exec {
    /// A runtime whose jobs see `env_allow` of the worker's variables beside the usual ones, and have
    /// `kill_grace` between SIGTERM and SIGKILL.
    ///
    /// # Errors
    /// [`Error::Configuration`] if jobs cannot be run as `jobs` says.
    pub(crate) fn new(env_allow: &[String], kill_grace: Duration, jobs: &JobSettings) -> Result<Self, Error> {
        let user = jobs.job_user.as_deref().map(JobUser::find).transpose()?;
        if let Err(error) = children::children() {
            tracing::warn!(%error, "what leaves a job's process group may outlive it: the kernel does not list children");
        }
        let bounds = Bounds { limits: jobs.clone(), user };
        let variables = environment::inherited(env_allow);
        Ok(Self { variables, kill_grace, bounds, wardens: Wardens::default() })
    }

    async fn supervise(
        &self,
        mut process: Process,
        leased: &LeasedExecution,
        log: &mut LogWriter,
        stop: StopReceiver,
    ) -> Ending {
        let limit = time_limit(leased);
        let pipes = process.take_pipes();
        let (all_is_gone, gone) = oneshot::channel();
        let supervised = async {
            let ended = process.wait(&self.wardens, limit, self.kill_grace, stop).await;
            drop(all_is_gone);
            ended
        };
        let (ended, last_errors) = tokio::join!(supervised, output::pump(pipes, gone, log));
        Ending::of(ended, limit, &self.bounds.limits, &last_errors)
    }
}

impl Runtime for Exec {
    fn run<'a>(
        &'a self,
        leased: &'a LeasedExecution,
        log: &'a mut LogWriter,
        _: Progress,
        stop: StopReceiver,
    ) -> Pin<Box<dyn Future<Output = Ending> + Send + 'a>> {
        Box::pin(async move {
            // No attempt is ever numbered as another, so the name is free.
            let name = format!("jobplane-{}-{}", leased.execution_id, leased.attempt);
            let order = Order {
                directory: std::env::temp_dir().join(name),
                leased: leased.clone(),
                bounds: self.bounds.clone(),
            };
            match Process::start(&self.wardens, &self.variables, &order).await {
                Ok(process) => {
                    log.begin();
                    let ending = self.supervise(process, leased, log, stop).await;
                    remove(&order.directory).await;
                    ending
                }
                // Nothing is left where no warden was.
                Err(error) => Ending::unstarted(format!("the worker could not start a warden: {error}")),
            }
        })
    }
}

/// Removes what a warden has left: nothing, unless it was killed or could not.
async fn remove(directory: &Path) {
    // The usual case takes no thread, of which there may be none to have.
    if std::fs::symlink_metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return;
    }
    let path = directory.to_owned();
    let removed = tokio::task::spawn_blocking(move || workspace::remove_all(&path)).await;
    if let Err(error) = removed.map_err(io::Error::other).flatten() {
        tracing::warn!(%error, path = %directory.display(), "an attempt's directory could not be removed");
    }
}

#[cfg(test)]
pub(crate) mod tests;
