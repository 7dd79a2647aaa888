//! The wardens that run, and the end of what one leaves behind that was killed itself.

use super::children::{children, kill_child, reap};
use nix::sys::prctl;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long processes that were killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what is left.
const PAUSE: Duration = Duration::from_millis(5);

/// Every child of this worker that is a warden. What else is a child of it came here by the death of
/// its warden, so its attempt is over.
#[derive(Debug, Default)]
pub(super) struct Wardens {
    running: Mutex<Vec<Pid>>,
}

impl Wardens {
    /// Starts a warden. No stranger is looked for meanwhile, so that it is not taken for one.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut running = self.running();
        let child = command.spawn()?;
        running.extend(pid(&child));
        Ok(child)
    }

    /// Waits until a warden has ended; kills it if it takes too long, as one that a job has stopped.
    pub(super) async fn reap(&self, mut child: Child) {
        let pid = pid(&child);
        if timeout(PATIENCE, child.wait()).await.is_err() {
            tracing::warn!(?pid, "a warden does not end and is killed");
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, ?pid, "it could not be killed");
            }
        }
        let mut running = self.running();
        if let Some(at) = running.iter().position(|&warden| Some(warden) == pid) {
            running.swap_remove(at);
        }
    }

    /// Kills every child that is no warden until there is none. Only where this process is known to have
    /// no other children: where it has asked to adopt them.
    pub(super) async fn end_strays(&self) {
        if prctl::get_child_subreaper() != Ok(true) {
            return;
        }
        let ending = async {
            while self.strikes() {
                sleep(PAUSE).await;
            }
        };
        if timeout(PATIENCE, ending).await.is_err() {
            tracing::error!("processes of a job whose warden was killed cannot be ended");
        }
    }

    /// Kills every stray that there is now; false if there is none.
    fn strikes(&self) -> bool {
        let running = self.running();
        let strays: Vec<_> =
            children().unwrap_or_default().into_iter().filter(|child| !running.contains(child)).collect();
        for &stray in &strays {
            kill_child(stray);
            reap(stray, WaitPidFlag::WNOHANG);
        }
        !strays.is_empty()
    }

    fn running(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
}
