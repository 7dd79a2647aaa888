//! What a job may use of its machine: the settings, and the limits of processes (setrlimit(2)) that keep them.

use clap::Args;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::io;

const MIB: u64 = 1024 * 1024;
/// How much longer a process may run that does not end at its limit of CPU time.
const CPU_GRACE_SECONDS: u64 = 10;

/// Settings of the exec runtime: as whom jobs run, and what they may use. No limit where none is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct JobSettings {
    /// The user that exec jobs run as, a name or UID[:GID]; the worker must be root [default: its own user]
    #[arg(long, env = "JOBPLANE_JOB_USER")]
    pub job_user: Option<String>,

    /// Memory that each process of an exec job may have for its data, in MiB, 32 or more
    #[arg(long, env = "JOBPLANE_JOB_MEMORY_MIB", value_parser = clap::value_parser!(u64).range(32..=1 << 32))]
    pub job_memory_mib: Option<u64>,

    /// CPU time that each process of an exec job may use, in seconds
    #[arg(long, env = "JOBPLANE_JOB_CPU_SECONDS", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub job_cpu_seconds: Option<u64>,

    /// Files that each process of an exec job may have open, 32 or more
    #[arg(long, env = "JOBPLANE_JOB_OPEN_FILES", value_parser = clap::value_parser!(u64).range(32..))]
    pub job_open_files: Option<u64>,

    /// Processes and threads that the user of exec jobs may have, counted over the whole machine; not kept for root
    #[arg(long, env = "JOBPLANE_JOB_USER_PROCESSES", value_parser = clap::value_parser!(u64).range(1..))]
    pub job_user_processes: Option<u64>,

    /// The largest file that an exec job may write, in MiB
    #[arg(long, env = "JOBPLANE_JOB_FILE_MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub job_file_mib: Option<u64>,
}

impl JobSettings {
    /// Sets the limits for this process and all that come of it. They can be lowered, never raised again.
    pub(super) fn apply(&self) -> io::Result<()> {
        for (resource, limit, grace) in [
            (Resource::RLIMIT_CORE, Some(0), 0),
            // Not the address space: Go, Java and JavaScript reserve far more of that than they use.
            (Resource::RLIMIT_DATA, self.job_memory_mib.map(|most| most * MIB), 0),
            (Resource::RLIMIT_NOFILE, self.job_open_files, 0),
            (Resource::RLIMIT_NPROC, self.job_user_processes, 0),
            (Resource::RLIMIT_FSIZE, self.job_file_mib.map(|most| most * MIB), 0),
            (Resource::RLIMIT_CPU, self.job_cpu_seconds, CPU_GRACE_SECONDS),
        ] {
            if let Some(limit) = limit {
                lower(resource, limit, limit + grace)?;
            }
        }
        Ok(())
    }

    /// Which of the limits a signal tells of.
    pub(super) fn behind(&self, signal: Signal) -> Option<String> {
        match signal {
            Signal::SIGXCPU => self.job_cpu_seconds.map(|most| format!("CPU time, limit {most} s")),
            Signal::SIGXFSZ => self.job_file_mib.map(|most| format!("file size, limit {most} MiB")),
            _ => None,
        }
    }
}

/// Lowers a limit, never over what this process has itself.
fn lower(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let (_, most) = getrlimit(resource)?;
    let set: Result<(), Errno> = setrlimit(resource, soft.min(most), hard.min(most));
    set.map_err(|error| io::Error::other(format!("{resource:?}: {error}")))
}
