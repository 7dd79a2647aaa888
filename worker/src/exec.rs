//! The exec runtime: a job is a process under a warden, with its own group, directory and environment.

mod children;
mod ending;
pub(crate) mod environment;
mod group;
mod handover;
mod launch;
mod limits;
mod process;
mod remove;
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
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use user::JobUser;
use warden::Bounds;
use wardens::Wardens;

/// Runs jobs as processes, each under a warden.
pub(crate) struct Exec {
    kill_grace: Duration,
    bounds: Bounds,
    wardens: Arc<Wardens>,
}

impl Exec {
    /// A runtime whose jobs see `env_allow` of the worker's variables beside the usual ones, and have
    /// `kill_grace` between SIGTERM and SIGKILL.
    ///
    /// # Errors
    /// [`Error::Configuration`] if jobs cannot be run as `jobs` says, or could read the file with the worker's token.
    pub(crate) fn new(
        env_allow: &[String],
        kill_grace: Duration,
        jobs: &JobSettings,
        token_file: Option<&Path>,
    ) -> Result<Self, Error> {
        let place = std::env::temp_dir();
        let user = jobs.job_user.as_deref().map(JobUser::find).transpose()?;
        if let Some(user) = &user {
            user.must_enter(&place)?;
            token_file.map_or(Ok(()), |file| user.must_not_read(file))?;
        }
        if let Err(error) = children::children() {
            tracing::warn!(%error, "what leaves a job's process group may outlive it: the kernel does not list children");
        }
        let bounds = Bounds { limits: jobs.clone(), user, groups: group::place(jobs)? };
        let wardens = Wardens::new(environment::inherited(env_allow), place, bounds.groups.clone());
        Ok(Self { kill_grace, bounds, wardens })
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
            match Process::start(&self.wardens, leased, &self.bounds).await {
                Ok(process) => {
                    log.begin();
                    self.supervise(process, leased, log, stop).await
                }
                // Nothing is left where no warden was.
                Err(error) => Ending::unstarted(format!("the worker could not start a warden: {error}")),
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
