//! The warden: a small process that outlives the worker just long enough to end its jobs.

use nix::unistd::Pid;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Keeps the list of groups that it is told, and kills them when its input ends, which it does when
/// the worker is gone, however it went.
const SCRIPT: &str = r#"
groups=' '
while read -r change group; do
  case $change in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"#;

/// A shell that holds a pipe from the worker. A worker that dies by SIGKILL can end nothing itself;
/// a parent-death signal would reach the leader of a group only, depend on the thread that spawned
/// it, and need unsafe code. Without `/bin/sh`, as in an image that holds little but the worker, the
/// worker is the first process there, and the kernel ends the others with it.
pub(super) struct Warden {
    shell: Mutex<Option<(Child, ChildStdin)>>,
}

impl Warden {
    /// Starts the shell; without one, jobs may outlive a worker that is killed, and the log says so.
    pub(super) fn start() -> Self {
        let shell = spawn().inspect_err(|error| {
            tracing::warn!(%error, "no /bin/sh: jobs may go on if this worker is killed");
        });
        Self { shell: Mutex::new(shell.ok()) }
    }

    /// This group is to end with the worker.
    pub(super) fn guard(&self, group: Pid) {
        self.tell('+', group);
    }

    /// This group has ended.
    pub(super) fn forget(&self, group: Pid) {
        self.tell('-', group);
    }

    fn tell(&self, change: char, group: Pid) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, input)) = shell.as_mut() else { return };
        // One write, so that a worker killed in the middle leaves no half of a line.
        if let Err(error) = input.write_all(format!("{change} {group}\n").as_bytes()) {
            tracing::warn!(%error, "the warden is gone: jobs may go on if this worker is killed");
            *shell = None;
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        let shell = self.shell.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((mut child, input)) = shell.take() {
            drop(input);
            if let Err(error) = child.wait() {
                tracing::debug!(%error, "the warden could not be waited for");
            }
        }
    }
}

fn spawn() -> io::Result<(Child, ChildStdin)> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "jobplane-warden"])
        .env_clear()
        .current_dir("/")
        // A group of its own: what stops the worker's group must not stop the warden first.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, killpg};
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn groups_end_with_the_worker_but_not_those_that_ended_before() {
        let warden = Warden::start();
        let mut groups = [0, 1, 2].map(|_| {
            let sleeper = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
            let group = Pid::from_raw(i32::try_from(sleeper.id()).unwrap());
            warden.guard(group);
            (sleeper, group)
        });
        warden.forget(groups[1].1);
        // All that the shell sees of a worker that is killed is the end of its input.
        drop(warden);
        for killed in [0, 2] {
            assert_eq!(groups[killed].0.wait().unwrap().signal(), Some(9));
        }
        assert_eq!(groups[1].0.try_wait().unwrap(), None);
        killpg(groups[1].1, Signal::SIGKILL).unwrap();
        groups[1].0.wait().unwrap();
    }
}
