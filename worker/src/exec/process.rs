//! One job as the worker sees it: a warden that was told to run it, asked to end it, and answers how it ended.

use super::handover;
#[cfg(not(test))]
use super::warden::NAME;
use super::warden::{Answer, Bounds, Order, Report};
use super::wardens::{Warden, Wardens};
use crate::agent::{Stop, StopReceiver, stopped, within_grace};
use jobplane_protocol::LeasedExecution;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// How long a warden may take to kill everything before it is killed itself.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a process came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself; nothing is known if its warden was killed.
    Itself(Option<Report>),
    /// It ran past its limit and was stopped.
    TimedOut,
    /// It was stopped for this reason.
    Stopped(Stop),
}

/// A job under its warden. Dropping it ends the job and all that came of it.
pub(super) struct Process {
    warden: Warden,
    output: Option<PipeReader>,
    errors: Option<PipeReader>,
}

impl Process {
    /// Tells a warden what to run.
    pub(super) async fn start(
        wardens: &Wardens,
        leased: &LeasedExecution,
        bounds: &Bounds,
    ) -> io::Result<Self> {
        let (output, to_output) = io::pipe()?;
        let (errors, to_errors) = io::pipe()?;
        let pipes = [to_output, to_errors];
        loop {
            let mut warden = wardens.take()?;
            let order = serde_json::to_vec(&Order { directory: &warden.directory, leased, bounds })?;
            let Err(error) = handover::send(&mut warden.orders, &order, &pipes).await else {
                return Ok(Self { warden, output: Some(output), errors: Some(errors) });
            };
            // It has been killed while it waited, and nothing was started.
            tracing::warn!(%error, "a warden did not hear what to run");
            wardens.end(warden, false).await;
        }
    }

    /// The job's output, once.
    pub(super) fn take_pipes(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        let output = self.output.take().map(OwnedFd::from).map(process::ChildStdout::from);
        let errors = self.errors.take().map(OwnedFd::from).map(process::ChildStderr::from);
        (
            output.and_then(|pipe| ChildStdout::from_std(pipe).ok()),
            errors.and_then(|pipe| ChildStderr::from_std(pipe).ok()),
        )
    }

    /// Waits for the end of the job, and brings it about after `limit` or for a reason to stop: SIGTERM
    /// to its group, SIGKILL to everything after `grace`; at once for a lost lease, since another worker
    /// may run the same by now. Whatever the job has left when its own process is gone is killed. A warden
    /// whose job ended by itself waits for another.
    pub(super) async fn wait(
        self,
        wardens: &Arc<Wardens>,
        limit: Duration,
        grace: Duration,
        mut stop: StopReceiver,
    ) -> Ended {
        let Self { mut warden, .. } = self;
        let (why, answer) = {
            let mut heard = pin!(report(&mut warden.reports));
            let (why, mut answer) = tokio::select! {
                biased;
                answer = &mut heard => (None, Some(answer)),
                why = stopped(&mut stop) => (Some(Ended::Stopped(why)), None),
                () = sleep(limit) => (Some(Ended::TimedOut), None),
            };
            if matches!(why, Some(Ended::TimedOut | Ended::Stopped(Stop::Cancel | Stop::Release)))
                && warden.orders.write_u8(0).await.is_ok()
            {
                answer = within_grace(&mut heard, grace, &mut stop).await;
            }
            if answer.is_none() {
                // The end of what it is told is that of everything.
                if let Err(error) = warden.orders.shutdown().await {
                    tracing::debug!(%error, "a warden is gone already");
                }
                answer = timeout(KILL_TIMEOUT, heard).await.ok();
            }
            (why, answer.flatten())
        };
        match &answer {
            // Nothing else was said to it, so that it has nothing left to hear.
            Some(answer) if why.is_none() && answer.stays => wardens.put_back(warden),
            _ => wardens.end(warden, answer.is_none()).await,
        }
        why.unwrap_or(Ended::Itself(answer.map(|answer| answer.report)))
    }
}

/// What the warden says of the job, if it is not killed before that.
async fn report(reports: &mut OwnedReadHalf) -> Option<Answer> {
    let answer = handover::answered(reports).await;
    answer
        .and_then(|answer| Ok(serde_json::from_slice(&answer)?))
        .inspect_err(|error| tracing::debug!(%error, "no report of a warden"))
        .ok()
}

/// This program, under the name by which it knows what it is to be; whatever lies at its path by now.
#[cfg(not(test))]
pub(super) fn program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME);
    command
}

/// The test that is one.
#[cfg(test)]
pub(super) fn program() -> Command {
    const TEST: &str = "exec::tests::this_is_the_warden_of_the_other_tests";
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.args(["--ignored", "--exact", TEST, "--nocapture"]);
    command
}
