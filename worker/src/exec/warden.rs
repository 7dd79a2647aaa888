//! The warden: the process between the worker and one job, which nothing of that job outlives.

use super::children::{children, kill_child, reap};
use super::environment;
use super::group::{self, Group};
use super::handover;
use super::launch;
use super::limits::{JobSettings, no_core};
use super::user::JobUser;
use super::workspace::Workspace;
use crate::runtime::Ending;
use jobplane_protocol::{Json, LeasedExecution};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, fchown, setsid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno as RustixErrno;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, exit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// To see who has ended without waiting for them.
const LOOK: WaitPidFlag = WaitPidFlag::WEXITED.union(WaitPidFlag::WNOHANG).union(WaitPidFlag::WNOWAIT);

/// Between two looks at what a job has orphaned and has ended since.
const REAP_INTERVAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Between two looks at a job that does not say when it ends.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// What a warden is called, and how it knows that it is one.
pub(super) const NAME: &str = "jobplane-warden";

/// What the worker tells the warden of each attempt. A byte that comes later asks for SIGTERM to the job; the end of
/// the bytes, for the end of everything.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order<Place = PathBuf, Leased = LeasedExecution, Bound = Bounds> {
    /// The same for all attempts that one warden guards: made, and removed, by it.
    pub(super) directory: Place,
    pub(super) leased: Leased,
    pub(super) bounds: Bound,
}

/// As whom a job runs, and within which limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bounds {
    pub(super) limits: JobSettings,
    /// `None` is the worker's own.
    pub(super) user: Option<JobUser>,
    /// Where each job has a control group of its own, named as its warden's directory; `None` if none has any.
    pub(super) groups: Option<PathBuf>,
}

impl Bounds {
    /// Whether a job runs as its warden does.
    pub(super) fn are_none(&self) -> bool {
        self.user.is_none() && self.limits == JobSettings::default()
    }
}

/// What the warden says when nothing of the attempt is left.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) report: Report,
    /// Whether it guards another, if it is told to.
    pub(super) stays: bool,
}

/// How an attempt ended, as its warden saw it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// There never was a process.
    NotStarted(Ending),
    /// The process has ended with this wait status, and left this for its result.
    Ended {
        /// As wait(2) tells it.
        status: i32,
        /// Nothing if it did not exit with 0.
        result: Result<Option<Json>, String>,
        /// Whether the kernel has killed some of the job for want of memory.
        out_of_memory: bool,
    },
}

/// The first thing that the `main` of a program with a worker in it calls. In a process that a worker
/// has started as a warden, or a warden to become a job, it is that and does not return.
pub fn warden() {
    let mut arguments = std::env::args_os();
    let Some(name) = arguments.next() else { return };
    let done = match name.to_str() {
        Some(NAME) => guard(),
        Some(launch::NAME) => launch::launch(arguments),
        _ => return,
    };
    if let Err(error) = &done {
        eprintln!("{}: {error}", name.display());
    }
    exit(i32::from(done.is_err()));
}

/// Runs one attempt after the other, for as long as the worker has some. Every process that comes of one has this as its
/// nearest adopting ancestor, so that whoever leaves the job's group, session or parent becomes a child here. The
/// worker's end is the end of the standard input, which no job holds.
pub(super) fn guard() -> io::Result<()> {
    prctl::set_name(c"jobplane-warden")?;
    prctl::set_child_subreaper(true)?;
    // A session of its own: a Ctrl-C on the worker's terminal is for the worker, and no job may type on that terminal.
    setsid()?;
    // No job gains by a program that is set-user-ID what its user does not have.
    prctl::set_no_new_privs()?;
    no_core()?;
    // Nor may a job of the same user read or change this process.
    prctl::set_dumpable(false)?;
    let worker = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let _caught = signals_are_for_the_worker()?;
    let mut workspace = None;
    while let Some((order, pipes)) = handover::receive(&worker)? {
        let order: Order = serde_json::from_slice(&order)?;
        let report = attempt(&order, pipes, &mut workspace, &worker)?;
        let cleared = workspace.as_mut().is_none_or(|workspace| workspace.clear().is_ok());
        // The next attempt's group would be where this one's still is.
        let group = group::path(order.bounds.groups.as_deref(), &order.directory);
        let stays = cleared && group.is_none_or(|group| !group.exists());
        if !stays {
            workspace = None;
        }
        handover::answer(&worker, &serde_json::to_vec(&Answer { report, stays })?)?;
        if !stays {
            break;
        }
    }
    Ok(())
}

/// A signal to all processes of a service is the worker's to act on. It is caught here, not ignored, which the jobs
/// would inherit.
fn signals_are_for_the_worker() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    drop(entered);
    Ok(runtime)
}

fn attempt(
    order: &Order,
    [output, errors]: [OwnedFd; 2],
    workspace: &mut Option<Workspace>,
    worker: &UnixStream,
) -> io::Result<Report> {
    let Order { directory, leased, bounds } = order;
    let not_started = |ending| Ok(Report::NotStarted(ending));
    if let Some(image) = &leased.job.image {
        // Its command is meant for what the image holds, and for nothing outside of it.
        return not_started(Ending::impossible(format!(
            "the job wants the image {image}, and this worker runs commands without one"
        )));
    }
    let Some((program, arguments)) = leased.job.command.as_deref().and_then(<[_]>::split_first) else {
        return not_started(Ending::impossible("the job has no command, and this worker runs nothing else"));
    };
    let input = leased.input.as_ref().map_or("null", |input| input.get());
    let workspace = match prepared(workspace, directory, bounds.user.as_ref(), input) {
        Ok(workspace) => workspace,
        Err(error) => {
            return not_started(Ending::unstarted(format!("the worker could not make a directory: {error}")));
        }
    };
    let group = group::path(bounds.groups.as_deref(), directory);
    let group = match group.map(|path| Group::create(path, &bounds.limits)).transpose() {
        Ok(group) => group,
        Err(error) => {
            return not_started(Ending::unstarted(format!(
                "the worker could not make a control group: {error}"
            )));
        }
    };
    let mut command = launch::command(program, arguments, bounds, group.as_ref().map(Group::path))?;
    environment::give(&mut command, leased, workspace);
    if let Some(user) = &bounds.user {
        // Without this the job could not open its own /dev/stdout.
        fchown(&output, user.uid(), user.gid())?;
        fchown(&errors, user.uid(), user.gid())?;
        environment::belongs_to(&mut command, user);
    }
    command.stdout(output).stderr(errors).process_group(0);
    let job = match launch::start(command, program, bounds) {
        Ok(job) => job,
        Err(ending) => return not_started(ending),
    };
    let status = job_end(job, group.as_ref(), worker)?;
    let out_of_memory = group.is_some_and(|group| group.was_out_of_memory());
    let result = if status.success() { workspace.result() } else { Ok(None) };
    Ok(Report::Ended { status: status.into_raw(), result, out_of_memory })
}

/// The warden's directory, made with the first attempt, with what this one is given.
fn prepared<'a>(
    workspace: &'a mut Option<Workspace>,
    directory: &Path,
    user: Option<&JobUser>,
    input: &str,
) -> io::Result<&'a mut Workspace> {
    let workspace = match workspace {
        Some(workspace) => workspace,
        None => workspace.insert(Workspace::create(directory, user)?),
    };
    workspace.prepare(input)?;
    Ok(workspace)
}

/// Waits for the end of the job, or of the worker's patience with it, and sees to it that nothing is
/// left of either.
fn job_end(job: Child, group: Option<&Group>, mut worker: &UnixStream) -> io::Result<ExitStatus> {
    let leader = Pid::from_raw(i32::try_from(job.id()).map_err(io::Error::other)?);
    // A kernel without these has to be asked often.
    let end = rustix::process::Pid::from_raw(leader.as_raw())
        .and_then(|leader| pidfd_open(leader, PidfdFlags::empty()).ok());
    let pause = if end.is_some() { REAP_INTERVAL } else { LOOK_INTERVAL };
    let mut bytes = [0; 16];
    loop {
        let mut awaited = vec![PollFd::new(worker, PollFlags::IN)];
        awaited.extend(end.iter().map(|end| PollFd::new(end, PollFlags::IN)));
        match poll(&mut awaited, Some(&pause)) {
            Err(RustixErrno::INTR) => continue,
            polled => polled?,
        };
        if !awaited[0].revents().is_empty() {
            match worker.read(&mut bytes) {
                Ok(1..) => signal_group(leader, Signal::SIGTERM),
                Ok(0) | Err(_) => break,
            }
        }
        if !is_running(leader) {
            break;
        }
        if any_has_ended() {
            // What the job leaves behind ends here, as it would with init.
            let adopted = children().unwrap_or_default().into_iter().filter(|&child| child != leader);
            adopted.for_each(|child| reap(child, WaitPidFlag::WNOHANG));
        }
    }
    end_all(job, leader, group)
}

/// Whether the job's own process has not ended; it is not waited for, so that its number stays its own.
fn is_running(leader: Pid) -> bool {
    waitid(Id::Pid(leader), LOOK) == Ok(WaitStatus::StillAlive)
}

fn any_has_ended() -> bool {
    waitid(Id::All, LOOK) != Ok(WaitStatus::StillAlive)
}

/// Kills what is there until nothing is. The group goes in one stroke, so that it cannot outrun this by
/// forking; of what has left it, each round kills the children, whose own children are the next round's.
fn end_all(mut job: Child, leader: Pid, group: Option<&Group>) -> io::Result<ExitStatus> {
    if let Some(group) = group {
        group.kill();
    }
    signal_group(leader, Signal::SIGKILL);
    kill_child(leader);
    let status = job.wait()?;
    // The usual case is that no child is there, which needs no list.
    while waitid(Id::All, LOOK) != Err(Errno::ECHILD) {
        let left = children().unwrap_or_default();
        if left.is_empty() {
            break;
        }
        left.iter().copied().for_each(kill_child);
        left.into_iter().for_each(|child| reap(child, WaitPidFlag::empty()));
    }
    Ok(status)
}

fn signal_group(leader: Pid, signal: Signal) {
    match killpg(leader, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%error, %leader, %signal, "a job could not be signalled"),
    }
}
