//! The guard of a child process: ends the child when this process is gone, however it went.

use anyhow::Context;
use nix::sys::signal::Signal;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input, which comes when the process that held the other end is gone.
const SCRIPT: &str = r#"cat >/dev/null; exec kill -s "$1" "$2""#;

/// A small shell that holds a pipe from this process. Should this process end without dropping the guard, by
/// SIGKILL for instance, the shell reads the end of the pipe and signals the child. Dropping it calls it off.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Guards the process `pid`, which gets `signal`. Its own process group, so that a Ctrl-C on the terminal
    /// does not end the guard before the guarded.
    pub(crate) fn of(pid: u32, signal: Signal) -> anyhow::Result<Self> {
        let name = signal.as_str().trim_start_matches("SIG");
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "jobplane-guard", name, &pid.to_string()])
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run /bin/sh")?;
        Ok(Self { shell })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The whole group: the shell and its `cat`. Killed before the pipe closes, so that nothing is signalled.
        let group = i32::try_from(self.shell.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(group) = group
            && let Err(error) = nix::sys::signal::killpg(group, Signal::SIGKILL)
        {
            tracing::debug!(%error, "the guard was gone already");
        }
        if let Err(error) = self.shell.wait() {
            tracing::debug!(%error, "the guard could not be waited for");
        }
    }
}
