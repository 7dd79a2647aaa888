//! The children of this process: those it made, and those it adopted as their parents ended.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::{fs, io};

/// Every child that has not been waited for, zombies too. Only this process can wait for them, so
/// until it does none of these numbers can become another's.
pub(super) fn children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let list = match fs::read_to_string(thread?.path().join("children")) {
            Ok(list) => list,
            // That thread has just ended, and its children are another's by now.
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => continue,
            Err(error) => return Err(error),
        };
        children.extend(list.split_whitespace().filter_map(|id| id.parse().ok()).map(Pid::from_raw));
    }
    Ok(children)
}

/// Sends SIGKILL to a child that has not been waited for.
pub(super) fn kill_child(child: Pid) {
    if let Err(error) = kill(child, Signal::SIGKILL) {
        tracing::warn!(%error, %child, "a process could not be killed");
    }
}

/// Waits for a child; with `WNOHANG` only if it has ended.
pub(super) fn reap(child: Pid, how: WaitPidFlag) {
    if let Err(error) = waitpid(child, Some(how)) {
        tracing::trace!(%error, %child, "it ended by a signal that has no name");
    }
}
