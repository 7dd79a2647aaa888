//! What a job may use of its machine: the settings, and the limits of processes (setrlimit(2)) that keep most of them.

use crate::container::nano_cpus;
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

    /// Memory of an exec job, in MiB, 32 or more: of all its processes where the worker can make control groups (cgroup v2),
    /// else for the data of each of them
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

    /// Processes and threads of an exec job; needs control groups (cgroup v2)
    #[arg(long, env = "JOBPLANE_JOB_PROCESSES", value_parser = clap::value_parser!(u64).range(1..=1 << 22))]
    pub job_processes: Option<u64>,

    /// Processors that an exec job may use at once, such as 0.5; needs control groups (cgroup v2)
    #[arg(long, env = "JOBPLANE_JOB_CPUS", value_parser = nano_cpus)]
    pub job_cpus: Option<i64>,

    /// The largest file that an exec job may write, in MiB
    #[arg(long, env = "JOBPLANE_JOB_FILE_MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub job_file_mib: Option<u64>,
}

impl JobSettings {
    /// Whether a limit is set that only a control group can keep.
    pub(super) fn need_group(&self) -> bool {
        self.job_processes.is_some() || self.job_cpus.is_some()
    }

    /// The limit of memory, in bytes.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        self.job_memory_mib.map(|most| most * MIB)
    }

    /// Sets the limits for this process and all that come of it, but for the one of its user and those that a control
    /// group keeps, if it is in one. They can be lowered, never raised again.
    pub(super) fn apply(&self, in_group: bool) -> io::Result<()> {
        let data = self.memory_bytes().filter(|_| !in_group);
        for (resource, limit, grace) in [
            // Not the address space: Go, Java and JavaScript reserve far more of that than they use.
            (Resource::RLIMIT_DATA, data, 0),
            (Resource::RLIMIT_NOFILE, self.job_open_files, 0),
            (Resource::RLIMIT_FSIZE, self.job_file_mib.map(|most| most * MIB), 0),
            (Resource::RLIMIT_CPU, self.job_cpu_seconds, CPU_GRACE_SECONDS),
        ] {
            if let Some(limit) = limit {
                lower(resource, limit, limit + grace)?;
            }
        }
        Ok(())
    }

    /// Sets how many processes the user of this process may have for it to make another.
    pub(super) fn apply_to_user(&self) -> io::Result<()> {
        self.job_user_processes.map_or(Ok(()), |most| lower(Resource::RLIMIT_NPROC, most, most))
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

/// Says that neither this process nor what comes of it leaves its memory in a file.
pub(super) fn no_core() -> io::Result<()> {
    lower(Resource::RLIMIT_CORE, 0, 0)
}

fn lower(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let set: Result<(), Errno> = getrlimit(resource).and_then(|now| {
        let (soft, hard) = lowered(now, (soft, hard));
        setrlimit(resource, soft, hard)
    });
    set.map_err(|error| io::Error::other(format!("{resource:?}: {error}")))
}

/// A soft and a hard limit, neither over what it is now.
fn lowered(now: (u64, u64), to: (u64, u64)) -> (u64, u64) {
    (now.0.min(to.0), now.1.min(to.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_ever_raised() {
        assert_eq!(lowered((1024, 4096), (40, 40)), (40, 40));
        assert_eq!(lowered((1024, 4096), (2048, 2048)), (1024, 2048));
        assert_eq!(lowered((1024, 4096), (1 << 20, 1 << 20)), (1024, 4096));
    }
}
