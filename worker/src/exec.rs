//! The exec runtime: a job is a process beside the worker, with its own group, directory and environment.

mod ending;
mod environment;
mod output;
mod process;
mod warden;
mod workspace;

pub(crate) use ending::Ending;

use crate::agent::StopReceiver;
use crate::logs::LogWriter;
use environment::Environment;
use jobplane_protocol::LeasedExecution;
use process::Process;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use warden::Warden;
use workspace::Workspace;

/// Runs jobs as processes.
pub(crate) struct Exec {
    environment: Environment,
    kill_grace: Duration,
    warden: Arc<Warden>,
}

impl Exec {
    /// A runtime whose jobs see `env_allow` of the worker's variables beside the usual ones, and have
    /// `kill_grace` between SIGTERM and SIGKILL.
    pub(crate) fn new(env_allow: &[String], kill_grace: Duration) -> Self {
        let environment = Environment::inherited(env_allow);
        Self { environment, kill_grace, warden: Arc::new(Warden::start()) }
    }

    /// Runs one job to its end, whatever that is. Nothing of it is left afterwards: neither a process
    /// of its group nor its directory.
    pub(crate) async fn run(
        &self,
        leased: &LeasedExecution,
        log: &mut LogWriter,
        stop: StopReceiver,
    ) -> Ending {
        let Some((program, arguments)) = leased.job.command.as_deref().and_then(<[_]>::split_first) else {
            return Ending::impossible("the job has no command, and this worker runs nothing else");
        };
        let input = leased.input.as_ref().map_or("null", |input| input.get());
        let workspace = match Workspace::create(input).await {
            Ok(workspace) => workspace,
            Err(error) => return Ending::failed(format!("the worker could not make a directory: {error}")),
        };
        let mut command = self.environment.command(program, leased, &workspace);
        command.args(arguments);
        let ending = match Process::spawn(command, self.warden.clone()) {
            Ok(process) => self.supervise(process, leased, &workspace, log, stop).await,
            Err(error) => Ending::not_started(program, &error),
        };
        workspace.remove().await;
        ending
    }

    async fn supervise(
        &self,
        mut process: Process,
        leased: &LeasedExecution,
        workspace: &Workspace,
        log: &mut LogWriter,
        stop: StopReceiver,
    ) -> Ending {
        let limit = Duration::from_secs(leased.timeout_seconds.max(0).unsigned_abs().into());
        let pipes = process.take_pipes();
        let (group_is_gone, gone) = oneshot::channel();
        let supervised = async {
            let ended = process.wait(limit, self.kill_grace, stop).await;
            drop(group_is_gone);
            ended
        };
        let (ended, last_errors) = tokio::join!(supervised, output::pump(pipes, gone, log));
        match ended {
            Ok(ended) => Ending::of(ended, limit, &last_errors, workspace).await,
            Err(error) => Ending::failed(format!("the worker could not wait for the job: {error}")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
