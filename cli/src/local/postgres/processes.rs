//! The server's process as seen from outside: what its pid file says, and ending one that was left over.

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a left-over server may take to stop before it is told more firmly.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether something has happened.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// Whether the server that runs as `pid` takes connections.
pub(super) fn is_ready(data: &Path, pid: Pid) -> bool {
    // The first line of the file is the process, the eighth its state.
    std::fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| {
        let mut lines = text.lines();
        let ours = lines.next().is_some_and(|line| line.trim() == pid.to_string());
        ours && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    })
}

/// Ends the server that runs on the data although whoever started it is gone, and removes the pid file of one that
/// crashed. Only for who holds the lock on the folder.
pub(super) fn end_left_over(data: &Path) -> anyhow::Result<()> {
    let file = data.join("postmaster.pid");
    let Ok(text) = std::fs::read_to_string(&file) else { return Ok(()) };
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).map(Pid::from_raw);
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
        let Some(pid) = pid.filter(|pid| serves(*pid, data)) else { break };
        tracing::info!(%pid, %signal, "stopping the PostgreSQL that an earlier run left behind");
        match kill(pid, signal) {
            Err(error) if error != Errno::ESRCH => {
                bail!(
                    "PostgreSQL (process {pid}) still runs on {}, and cannot be stopped: {error}",
                    data.display()
                )
            }
            _ => {}
        }
        let told = Instant::now();
        while serves(pid, data) && told.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
    }
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Whether a process is the server of this data, and not another that got the same number since.
fn serves(pid: Pid, data: &Path) -> bool {
    if pid.as_raw() <= 1 || kill(pid, None) == Err(Errno::ESRCH) {
        return false;
    }
    if cfg!(target_os = "linux") {
        // A server works in its data directory. Of a zombie nothing can be read.
        return std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == data);
    }
    let named = std::process::Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).output();
    named.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
}
