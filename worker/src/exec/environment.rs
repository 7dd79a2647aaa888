//! What a job sees of the world: variables that are allowed, not all that the worker has.

use super::user::JobUser;
use super::workspace::Workspace;
use crate::runtime;
use jobplane_protocol::LeasedExecution;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::process::Command;

/// Variables of the worker that every job sees, beside `LC_*`.
const ALLOWED: [&str; 3] = ["PATH", "LANG", "TZ"];
/// What the names of the worker's own secrets begin with: allowed to no job, whatever the settings say.
const SECRET_PREFIX: &str = "JOBPLANE_WORKER_TOKEN";

/// Of the worker's variables, the usual ones and those named in `allow`: what a warden has, and with
/// it every job.
pub(super) fn inherited(allow: &[String]) -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| is_allowed(name, allow)).collect()
}

/// Gives a command the environment of this attempt: what the warden has, the directories, the job's own variables over
/// both, and last, so that no job can claim to be another, what it is.
pub(super) fn give(command: &mut Command, leased: &LeasedExecution, workspace: &Workspace) {
    command
        .env("HOME", workspace.work())
        .env("TMPDIR", workspace.temporary())
        .envs(&leased.job.env)
        .envs(runtime::identity(leased))
        .env("JOBPLANE_INPUT", workspace.input())
        .env("JOBPLANE_OUTPUT_DIR", workspace.output())
        .current_dir(workspace.work());
}

/// Takes all its variables from a command, those that it would inherit too.
pub(super) fn take(command: &mut Command) -> Vec<(OsString, OsString)> {
    let mut variables: BTreeMap<_, _> = std::env::vars_os().collect();
    variables
        .extend(command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    command.env_clear();
    variables.into_iter().collect()
}

/// Says whose process it is, unless the job's own variables do.
pub(super) fn belongs_to(command: &mut Command, user: &JobUser) {
    for name in ["USER", "LOGNAME"] {
        let said = command.get_envs().any(|(known, _)| known == name);
        if let (false, Some(user)) = (said, &user.name) {
            command.env(name, user);
        }
    }
}

/// Of the worker's variables, those named in `allow`, where both halves are text.
pub(crate) fn named(allow: &[String]) -> Vec<(String, String)> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).filter(|(name, _)| is_named(name, allow)).collect()
}

fn is_allowed(name: &OsStr, allow: &[String]) -> bool {
    let usual = |name: &str| ALLOWED.contains(&name) || name.starts_with("LC_");
    name.to_str().is_some_and(|name| usual(name) || is_named(name, allow))
}

fn is_named(name: &str, allow: &[String]) -> bool {
    allow.iter().any(|allowed| allowed == name) && !name.starts_with(SECRET_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_inherits_what_is_allowed_and_never_the_token() {
        let allow =
            ["SSL_CERT_FILE", "JOBPLANE_WORKER_TOKEN", "JOBPLANE_WORKER_TOKEN_FILE"].map(str::to_owned);
        let allowed = |name: &str| is_allowed(OsStr::new(name), &allow);
        assert!(["PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE"].into_iter().all(allowed));
        let refused =
            ["HOME", "AWS_SECRET_ACCESS_KEY", "JOBPLANE_WORKER_TOKEN", "JOBPLANE_WORKER_TOKEN_FILE"];
        assert!(!refused.into_iter().any(allowed));
    }
}
