//! How a process came to its end, in the words of its result.

use super::limits::JobSettings;
use super::process::Ended;
use super::warden::Report;
use crate::runtime::{Ending, with_last_errors};
use jobplane_protocol::Json;
use nix::libc;
use nix::sys::signal::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

impl Ending {
    /// The process could not be made: for most causes no other try would do better, and where the machine lacks
    /// processes, files or memory, it has cost the job nothing.
    pub(super) fn not_started(program: &str, error: &io::Error) -> Self {
        use io::ErrorKind::{ArgumentListTooLong, InvalidInput, NotFound, PermissionDenied};
        match error.kind() {
            NotFound => Self::impossible(format!("program not found: {program}")),
            PermissionDenied => Self::impossible(format!("not allowed to run {program}: {error}")),
            ArgumentListTooLong | InvalidInput => Self::impossible(format!("cannot run {program}: {error}")),
            _ => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
                    Self::unstarted(format!("the worker could not start {program}: {error}"))
                }
                Some(libc::ENOEXEC) => Self::impossible(format!("cannot run {program}: {error}")),
                _ => Self::failed(format!("the worker could not start {program}: {error}")),
            },
        }
    }

    /// What the end of the process means.
    pub(super) fn of(ended: Ended, limit: Duration, limits: &JobSettings, last_errors: &str) -> Self {
        match ended {
            Ended::Itself(Some(Report::NotStarted(ending))) => ending,
            Ended::Itself(Some(Report::Ended { status, result, out_of_memory })) => {
                let status = ExitStatus::from_raw(status);
                let killed = limits.job_memory_mib.filter(|_| out_of_memory && !status.success());
                if let Some(most) = killed {
                    let what = format!("killed for want of memory: limit {most} MiB");
                    return Self::failed(with_last_errors(&what, last_errors));
                }
                Self::ended(status, result, limits, last_errors)
            }
            Ended::Itself(None) => Self::failed(with_last_errors("the job's warden was killed", last_errors)),
            Ended::TimedOut => Self::timed_out(limit, last_errors),
            Ended::Stopped(why) => Self::stopped(why),
        }
    }

    fn ended(
        status: ExitStatus,
        result: Result<Option<Json>, String>,
        limits: &JobSettings,
        last_errors: &str,
    ) -> Self {
        match status.code() {
            Some(code) => Self::exited(code, result, last_errors),
            None => Self::failed(with_last_errors(
                &format!("killed by {}", signal_name(status, limits)),
                last_errors,
            )),
        }
    }
}

/// The signal's name, and the limit that it tells of.
fn signal_name(status: ExitStatus, limits: &JobSettings) -> String {
    let number = status.signal().unwrap_or_default();
    let Ok(signal) = Signal::try_from(number) else { return format!("signal {number}") };
    let limit = limits.behind(signal).map(|limit| format!(": {limit}")).unwrap_or_default();
    format!("{signal}{limit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use jobplane_protocol::Outcome;

    #[test]
    fn a_machine_without_processes_files_or_memory_costs_a_job_no_try() {
        for number in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE] {
            let ending = Ending::not_started("true", &io::Error::from_raw_os_error(number));
            assert!(ending.outcome == Outcome::Released && ending.unstarted);
        }
        let ending = Ending::not_started("true", &io::Error::from_raw_os_error(libc::ENOEXEC));
        assert_eq!(
            (ending.outcome, ending.retryable, ending.unstarted),
            (Outcome::Failed, Some(false), false)
        );
    }
}
