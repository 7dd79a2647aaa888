//! The wardens that run, those that wait for an attempt, and the end of what one leaves behind that was killed itself.

use super::children::{children, kill_child, reap};
use super::group::{self, Group};
use super::process::program;
use super::remove::remove_all;
use nix::sys::prctl;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How long processes that were killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what is left.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a warden waits for another attempt before it is let go.
const IDLE: Duration = Duration::from_secs(10);
/// How long the worker's own end waits for those that wait.
const GOODBYE: Duration = Duration::from_secs(2);

/// A warden: its process, and both ways of the conversation with it. The end of what it is told is its own end, and
/// that of all its job has started: dropping it ends both, as the worker's own death does.
pub(super) struct Warden {
    process: Child,
    pub(super) orders: OwnedWriteHalf,
    pub(super) reports: OwnedReadHalf,
    /// Its own, which nobody could have made before it.
    pub(super) directory: PathBuf,
}

/// Every child of this worker that is a warden. What else is a child of it came here by the death of
/// its warden, so its attempt is over.
pub(super) struct Wardens {
    /// What each has, and with it every job.
    variables: Vec<(OsString, OsString)>,
    /// Where their directories are.
    place: PathBuf,
    /// Where the control groups of their jobs are, if these have any.
    groups: Option<PathBuf>,
    running: Mutex<Vec<Pid>>,
    idle: Mutex<Idle>,
}

/// Those that have nothing to guard.
#[derive(Default)]
struct Idle {
    /// Each with since when; the latest last.
    wardens: Vec<(Warden, Instant)>,
    /// Whether a task lets them go in time.
    watched: bool,
}

impl Wardens {
    /// Wardens with these variables, and with directories, and control groups of jobs, in these.
    pub(super) fn new(
        variables: Vec<(OsString, OsString)>,
        place: PathBuf,
        groups: Option<PathBuf>,
    ) -> Arc<Self> {
        Arc::new(Self { variables, place, groups, running: Mutex::default(), idle: Mutex::default() })
    }

    /// A warden that waits for an attempt, or a new one.
    pub(super) fn take(&self) -> io::Result<Warden> {
        let waiting = locked(&self.idle).wardens.pop();
        waiting.map_or_else(|| self.start(), |(warden, _)| Ok(warden))
    }

    fn start(&self) -> io::Result<Warden> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = program();
        command
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null());
        let process = self.spawn(&mut command)?;
        // The warden's end must be the end of what it reports.
        drop(command);
        let (reports, orders) = UnixStream::from_std(ours)?.into_split();
        let directory = self.place.join(format!("jobplane-{}", Uuid::new_v4()));
        Ok(Warden { process, orders, reports, directory })
    }

    /// Starts a warden. No stranger is looked for meanwhile, so that it is not taken for one.
    fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut running = locked(&self.running);
        let child = command.spawn()?;
        running.extend(pid(&child));
        Ok(child)
    }

    /// Keeps a warden that has nothing left to guard for another attempt, for a while.
    pub(super) fn put_back(self: &Arc<Self>, warden: Warden) {
        let mut idle = locked(&self.idle);
        idle.wardens.push((warden, Instant::now()));
        if !std::mem::replace(&mut idle.watched, true) {
            tokio::spawn(let_go(Arc::downgrade(self)));
        }
    }

    /// Ends a warden that has nothing to guard, or what it guards with it, and waits for that. One that does not say
    /// that nothing is left was killed, and ends nothing.
    pub(super) async fn end(&self, warden: Warden, killed: bool) {
        let Warden { process, orders, reports, directory } = warden;
        drop((orders, reports));
        self.reap(process).await;
        if killed {
            tracing::warn!("a warden was killed: its job is ended without it");
            let group = group::path(self.groups.as_deref(), &directory).map(Group::at);
            group.iter().for_each(Group::kill);
            self.end_strays().await;
            // It may take a moment.
            if let Err(fault) = tokio::task::spawn_blocking(move || drop(group)).await {
                tracing::warn!(%fault, "a control group was not removed");
            }
        }
        remove(&directory).await;
    }

    /// Waits until a warden has ended; kills it if it takes too long, as one that a job has stopped.
    async fn reap(&self, mut child: Child) {
        let pid = pid(&child);
        if timeout(PATIENCE, child.wait()).await.is_err() {
            tracing::warn!(?pid, "a warden does not end and is killed");
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, ?pid, "it could not be killed");
            }
        }
        let mut running = locked(&self.running);
        if let Some(at) = running.iter().position(|&warden| Some(warden) == pid) {
            running.swap_remove(at);
        }
    }

    /// Kills every child that is no warden until there is none. Only where this process is known to have
    /// no other children: where it has asked to adopt them.
    async fn end_strays(&self) {
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
        let running = locked(&self.running);
        let strays: Vec<_> =
            children().unwrap_or_default().into_iter().filter(|child| !running.contains(child)).collect();
        for &stray in &strays {
            kill_child(stray);
            reap(stray, WaitPidFlag::WNOHANG);
        }
        !strays.is_empty()
    }
}

/// With a worker that ends in good order ends what waits for it, before whatever ends all other processes of a container
/// when its first is gone.
impl Drop for Wardens {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut locked(&self.idle).wardens);
        let leaving: Vec<_> =
            idle.into_iter().map(|(Warden { process, directory, .. }, _)| (process, directory)).collect();
        let until = Instant::now() + GOODBYE;
        for (mut process, directory) in leaving {
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(PAUSE);
            }
            if let Err(error) = remove_all(&directory) {
                tracing::warn!(%error, path = %directory.display(), "a directory for attempts could not be removed");
            }
        }
    }
}

/// Lets wardens go that have waited for long, until none waits.
async fn let_go(wardens: Weak<Wardens>) {
    loop {
        sleep(IDLE / 2).await;
        let Some(wardens) = wardens.upgrade() else { return };
        let waited_enough: Vec<_> = {
            let mut idle = locked(&wardens.idle);
            let enough = idle.wardens.iter().take_while(|(_, since)| since.elapsed() >= IDLE).count();
            idle.watched = enough < idle.wardens.len();
            if enough == 0 && !idle.watched {
                return;
            }
            idle.wardens.drain(..enough).collect()
        };
        for (warden, _) in waited_enough {
            wardens.end(warden, false).await;
        }
    }
}

/// Removes what a warden has left: nothing, unless it was killed or could not.
async fn remove(directory: &Path) {
    // The usual case takes no thread, of which there may be none to have.
    if std::fs::symlink_metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return;
    }
    let path = directory.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_all(&path)).await;
    if let Err(error) = removed.map_err(io::Error::other).flatten() {
        tracing::warn!(%error, path = %directory.display(), "an attempt's directory could not be removed");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
}
