//! One job's process group: started, waited for, stopped, and never left behind.

use super::warden::Warden;
use crate::agent::{Stop, StopReceiver, stopped};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// How a process came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It ran past its limit and was stopped.
    TimedOut,
    /// It was stopped for this reason.
    Stopped(Stop),
}

/// A job's process, the leader of a group of its own. Dropping it kills the group.
pub(super) struct Process {
    child: Child,
    group: Pid,
    warden: Arc<Warden>,
}

impl Process {
    /// Starts the command with pipes for its output.
    pub(super) fn spawn(mut command: Command, warden: Arc<Warden>) -> io::Result<Self> {
        let child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Pid::from_raw(id.ok_or_else(|| io::Error::other("the process has no id"))?);
        warden.guard(group);
        Ok(Self { child, group, warden })
    }

    /// Its output, once.
    pub(super) fn take_pipes(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for the end of the process, and brings it about after `limit` or for a reason to stop:
    /// SIGTERM to the group, SIGKILL after `grace`; at once for a lost lease, since another worker may
    /// run the same by now. Whatever the group has left when its leader is gone is killed.
    pub(super) async fn wait(
        &mut self,
        limit: Duration,
        grace: Duration,
        mut stop: StopReceiver,
    ) -> io::Result<Ended> {
        let ended = tokio::select! {
            biased;
            status = self.child.wait() => Ended::Exited(status?),
            why = stopped(&mut stop) => Ended::Stopped(why),
            () = sleep(limit) => Ended::TimedOut,
        };
        if matches!(ended, Ended::TimedOut | Ended::Stopped(Stop::Cancel | Stop::Release)) {
            self.signal(Signal::SIGTERM);
            if let Ok(status) = timeout(grace, self.child.wait()).await {
                status?;
            }
        }
        // The group's number cannot belong to anyone else while a process of it is left.
        self.signal(Signal::SIGKILL);
        self.child.wait().await?;
        Ok(ended)
    }

    fn signal(&self, signal: Signal) {
        match killpg(self.group, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                tracing::warn!(%error, group = %self.group, %signal, "a job could not be signalled");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After a whole wait there is nobody left, and the number may be another's.
        if self.child.id().is_some() {
            self.signal(Signal::SIGKILL);
        }
        self.warden.forget(self.group);
    }
}
