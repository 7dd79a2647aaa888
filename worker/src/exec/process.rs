//! One job as the worker sees it: a warden that was told to run it, asked to end it, and answers how it ended.

#[cfg(not(test))]
use super::warden::NAME;
use super::warden::{Order, Report};
use super::wardens::Wardens;
use crate::agent::{Stop, StopReceiver, stopped};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
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

/// A job's warden. Dropping it ends the job and all that came of it, as the worker's own death does.
pub(super) struct Process {
    warden: Child,
    orders: OwnedWriteHalf,
    reports: OwnedReadHalf,
}

impl Process {
    /// Starts a warden with these variables and tells it what to run.
    pub(super) async fn start(
        wardens: &Wardens,
        variables: &[(OsString, OsString)],
        order: &Order,
    ) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = program();
        command
            .arg(order.leased.execution_id.to_string())
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let warden = wardens.spawn(&mut command)?;
        // The warden's end must be the end of what it reports.
        drop(command);
        let (reports, mut orders) = UnixStream::from_std(ours)?.into_split();
        let order = serde_json::to_vec(order)?;
        let told = async {
            orders.write_u32(u32::try_from(order.len()).map_err(io::Error::other)?).await?;
            orders.write_all(&order).await
        };
        if let Err(error) = told.await {
            tracing::warn!(%error, "a warden did not hear what to run");
        }
        Ok(Self { warden, orders, reports })
    }

    /// The job's output, once.
    pub(super) fn take_pipes(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.warden.stdout.take(), self.warden.stderr.take())
    }

    /// Waits for the end of the job, and brings it about after `limit` or for a reason to stop: SIGTERM
    /// to its group, SIGKILL to everything after `grace`; at once for a lost lease, since another worker
    /// may run the same by now. Whatever the job has left when its own process is gone is killed.
    pub(super) async fn wait(
        self,
        wardens: &Wardens,
        limit: Duration,
        grace: Duration,
        mut stop: StopReceiver,
    ) -> Ended {
        let Self { warden, mut orders, reports } = self;
        let mut report = pin!(report(reports));
        let (why, mut answer) = tokio::select! {
            biased;
            answer = &mut report => (None, Some(answer)),
            why = stopped(&mut stop) => (Some(Ended::Stopped(why)), None),
            () = sleep(limit) => (Some(Ended::TimedOut), None),
        };
        if matches!(why, Some(Ended::TimedOut | Ended::Stopped(Stop::Cancel | Stop::Release)))
            && orders.write_u8(0).await.is_ok()
        {
            answer = timeout(grace, &mut report).await.ok();
        }
        drop(orders);
        if answer.is_none() {
            answer = timeout(KILL_TIMEOUT, report).await.ok();
        }
        wardens.reap(warden).await;
        let report = answer.flatten();
        if report.is_none() {
            tracing::warn!("a warden was killed: its job is ended without it");
            wardens.end_strays().await;
        }
        why.unwrap_or(Ended::Itself(report))
    }
}

/// What the warden says before it ends, if it is not killed before that.
async fn report(mut reports: OwnedReadHalf) -> Option<Report> {
    let mut report = Vec::new();
    let read = reports.read_to_end(&mut report).await;
    read.and_then(|_| Ok(serde_json::from_slice(&report)?))
        .inspect_err(|error| tracing::debug!(%error, "no report of a warden"))
        .ok()
}

/// This program, under the name by which it knows what it is to be; whatever lies at its path by now.
#[cfg(not(test))]
fn program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME);
    command
}

/// The test that is one. The shell keeps what a test prints out of the job's output.
#[cfg(test)]
fn program() -> Command {
    const TEST: &str = "exec::tests::this_is_the_warden_of_the_other_tests";
    let mut command = Command::new("sh");
    let script = format!(r#"exec "$0" --ignored --exact {TEST} --nocapture 3>&1 >/dev/null"#);
    command.arg("-c").arg(script).arg(std::env::current_exe().expect("it runs"));
    command
}
