//! The warden: the process between the worker and one job, which nothing of that job outlives.

use super::children::{children, kill_child, reap};
use super::environment;
use super::limits::JobSettings;
use super::user::JobUser;
use super::workspace::Workspace;
use crate::runtime::Ending;
use jobplane_protocol::{Json, LeasedExecution};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, fchown, setsid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, exit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// What a warden is called, and how it knows that it is one.
pub(super) const NAME: &str = "jobplane-warden";

/// What the worker tells the warden first, its length before it. Each byte that comes later asks for
/// SIGTERM to the job; the end of the bytes, for the end of everything.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Made, and removed, by the warden.
    pub(super) directory: PathBuf,
    pub(super) leased: LeasedExecution,
    pub(super) bounds: Bounds,
}

/// As whom a job runs, and within which limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bounds {
    pub(super) limits: JobSettings,
    /// `None` is the worker's own.
    pub(super) user: Option<JobUser>,
}

/// What the warden says when nothing of the attempt is left.
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
    },
}

/// The first thing that the `main` of a program with a worker in it calls. In a process that a worker
/// has started as a warden, it is one and does not return.
pub fn warden() {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        exit(match guard() {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{NAME}: {error}");
                1
            }
        });
    }
}

/// Runs one attempt. Every process that comes of it has this one as its nearest adopting ancestor, so
/// that whoever leaves the job's group, session or parent becomes a child here. The worker's end is
/// the end of the standard input, which no job holds.
pub(super) fn guard() -> io::Result<()> {
    prctl::set_name(c"jobplane-warden")?;
    prctl::set_child_subreaper(true)?;
    // A session of its own: a Ctrl-C on the worker's terminal is for the worker, and no job may type on that terminal.
    setsid()?;
    // No job gains by a program that is set-user-ID what its user does not have.
    prctl::set_no_new_privs()?;
    // Nor may a job of the same user read or change this process.
    prctl::set_dumpable(false)?;
    let worker = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    worker.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (mut orders, mut reports) = UnixStream::from_std(worker)?.into_split();
        // A signal to all processes of a service is the worker's to act on.
        let for_the_job = SignalKind::from_raw(Signal::SIGXCPU as i32);
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), for_the_job] {
            drop(signal(kind)?);
        }
        let mut order = vec![0; usize::try_from(orders.read_u32().await?).map_err(io::Error::other)?];
        orders.read_exact(&mut order).await?;
        let report = attempt(&serde_json::from_slice(&order)?, orders).await?;
        reports.write_all(&serde_json::to_vec(&report)?).await
    })
}

async fn attempt(order: &Order, orders: OwnedReadHalf) -> io::Result<Report> {
    let Order { directory, leased, bounds: Bounds { limits, user } } = order;
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
    let workspace = match Workspace::create(directory, input, user.as_ref()) {
        Ok(workspace) => workspace,
        Err(error) => {
            return not_started(Ending::unstarted(format!("the worker could not make a directory: {error}")));
        }
    };
    let ended = signal(SignalKind::child())?;
    if let Err(error) = limits.apply() {
        return not_started(Ending::unstarted(format!(
            "the worker could not set its limits for jobs: {error}"
        )));
    }
    let mut command = environment::command(program, leased, &workspace);
    if let Some(user) = user {
        // Without this the job could not open its own /dev/stdout.
        fchown(io::stdout(), user.uid(), user.gid())?;
        fchown(io::stderr(), user.uid(), user.gid())?;
        // Groups that the worker is in besides are left behind as well.
        environment::belongs_to(&mut command, user).uid(user.uid).gid(user.gid);
    }
    let job = match command.args(arguments).process_group(0).spawn() {
        Ok(job) => job,
        Err(error) => return not_started(Ending::not_started(program, &error)),
    };
    // The job alone holds its pipes, so that they end with it.
    let null = File::options().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    let status = job_end(job, ended, orders).await?;
    let result = if status.success() { workspace.result() } else { Ok(None) };
    Ok(Report::Ended { status: status.into_raw(), result })
}

/// Waits for the end of the job, or of the worker's patience with it, and sees to it that nothing is
/// left of either.
async fn job_end(job: Child, mut ended: Signals, mut orders: OwnedReadHalf) -> io::Result<ExitStatus> {
    let leader = Pid::from_raw(i32::try_from(job.id()).map_err(io::Error::other)?);
    let mut bytes = [0; 16];
    while is_running(leader) {
        // What the job leaves behind ends here, as it would with init.
        let adopted = children().unwrap_or_default().into_iter().filter(|&child| child != leader);
        adopted.for_each(|child| reap(child, WaitPidFlag::WNOHANG));
        tokio::select! {
            _ = ended.recv() => {}
            count = orders.read(&mut bytes) => match count {
                Ok(1..) => signal_group(leader, Signal::SIGTERM),
                Ok(0) | Err(_) => break,
            },
        }
    }
    end_all(job, leader)
}

/// Whether the job's own process has not ended; it is not waited for, so that its number stays its own.
fn is_running(leader: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(leader), look) == Ok(WaitStatus::StillAlive)
}

/// Kills what is there until nothing is. The group goes in one stroke, so that it cannot outrun this by
/// forking; of what has left it, each round kills the children, whose own children are the next round's.
fn end_all(mut job: Child, leader: Pid) -> io::Result<ExitStatus> {
    signal_group(leader, Signal::SIGKILL);
    kill_child(leader);
    let status = job.wait()?;
    loop {
        let left = children().unwrap_or_default();
        if left.is_empty() {
            return Ok(status);
        }
        left.iter().copied().for_each(kill_child);
        left.into_iter().for_each(|child| reap(child, WaitPidFlag::empty()));
    }
}

fn signal_group(leader: Pid, signal: Signal) {
    match killpg(leader, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%error, %leader, %signal, "a job could not be signalled"),
    }
}
