//! The exec runtime: a job's command as a process group of its own, in a directory of its own.

mod logs;
mod process;

use crate::{Client, Settings};
use jobplane_protocol::{Json, LeaseId, LeasedExecution, Outcome, limits};
use logs::Logs;
use process::Exit;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// Variables of the worker that every job sees.
const ALLOWED: [&str; 4] = ["PATH", "LANG", "TZ", "HOME"];

/// Why a job is to stop, the heavier reason last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// It is not.
    Not,
    /// The worker shuts down: the attempt is given back unspent.
    Release,
    /// Somebody asked.
    Cancel,
    /// The lease is gone: nothing is reported.
    Lost,
}

/// How an attempt ended.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) error: Option<String>,
    pub(crate) result: Option<Json>,
    pub(crate) retryable: bool,
}

impl Ended {
    pub(crate) fn of(outcome: Outcome) -> Self {
        Self { outcome, exit_code: None, error: None, result: None, retryable: true }
    }

    fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::of(Outcome::Failed) }
    }

    /// Trying again would fail the same way.
    fn hopeless(error: impl Into<String>) -> Self {
        Self { retryable: false, ..Self::failed(error) }
    }
}

/// Runs jobs as processes.
pub(crate) struct Exec {
    client: Client,
    env: Vec<(String, String)>,
    kill_grace: Duration,
}

impl Exec {
    pub(crate) fn new(settings: &Settings, client: Client) -> Self {
        let allowed = |name: &String| {
            ALLOWED.contains(&name.as_str()) || name.starts_with("LC_") || settings.env_allow.contains(name)
        };
        let readable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let env = std::env::vars_os().filter_map(readable).filter(|(name, _)| allowed(name)).collect();
        Self { client, env, kill_grace: settings.kill_grace() }
    }

    /// Runs one attempt to its end; `None` if its lease was lost on the way.
    pub(crate) async fn run(
        &self,
        execution: LeasedExecution,
        lease: LeaseId,
        stop: watch::Receiver<Stop>,
    ) -> Option<Ended> {
        let directory = match tempfile::Builder::new().prefix("jobplane-").tempdir() {
            Ok(directory) => directory,
            Err(error) => return Some(Ended::failed(format!("no directory to work in: {error}"))),
        };
        let ended = self.run_in(directory.path(), &execution, lease, stop).await;
        if let Err(error) = directory.close() {
            tracing::warn!(id = %execution.execution_id, %error, "the job's directory could not be removed");
        }
        ended
    }

    async fn run_in(
        &self,
        directory: &Path,
        execution: &LeasedExecution,
        lease: LeaseId,
        stop: watch::Receiver<Stop>,
    ) -> Option<Ended> {
        let mut command = match self.command(directory, execution).await {
            Ok(command) => command,
            Err(ended) => return Some(ended),
        };
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Some(Ended::hopeless(format!("cannot start the command: {error}"))),
        };
        let mut logs = Logs::new(self.client.clone(), execution.execution_id, lease);
        let timeout = Duration::from_secs(u64::try_from(execution.timeout_seconds).unwrap_or_default());
        let exit = process::supervise(child, timeout, self.kill_grace, stop, &mut logs).await;
        let tail = logs.finish().await;
        match exit {
            Exit::Stopped(Stop::Lost) => None,
            Exit::Stopped(Stop::Cancel) => Some(Ended::of(Outcome::Cancelled)),
            Exit::Stopped(_) => Some(Ended::of(Outcome::Released)),
            Exit::TimedOut => Some(Ended {
                error: Some(format!("ran longer than {} s", timeout.as_secs())),
                ..Ended::of(Outcome::TimedOut)
            }),
            Exit::Failed(error) => Some(Ended::failed(format!("the job could not be waited for: {error}"))),
            Exit::Signalled(name) => Some(Ended::failed(format!("killed by {name}{tail}"))),
            Exit::Code(0) => Some(Ended { exit_code: Some(0), ..result(directory).await }),
            Exit::Code(code) => {
                Some(Ended { exit_code: Some(code), ..Ended::failed(format!("exit code {code}{tail}")) })
            }
        }
    }

    /// The command with all that a job sees.
    async fn command(
        &self,
        directory: &Path,
        execution: &LeasedExecution,
    ) -> Result<tokio::process::Command, Ended> {
        let words = execution.job.command.as_deref().unwrap_or_default();
        let Some((program, arguments)) = words.split_first() else {
            return Err(Ended::hopeless("the job has no command, and this worker runs commands only"));
        };
        let [work, output, input] = ["work", "output", "input.json"].map(|name| directory.join(name));
        let text = execution.input.as_ref().map_or("null", |json| json.get());
        let prepared = async {
            tokio::fs::create_dir(&work).await?;
            tokio::fs::create_dir(&output).await?;
            tokio::fs::write(&input, text).await
        };
        prepared
            .await
            .map_err(|error| Ended::failed(format!("the job's directory cannot be filled: {error}")))?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .current_dir(&work)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(&execution.job.env)
            .env("TMPDIR", &work)
            .env("JOBPLANE_EXECUTION_ID", execution.execution_id.to_string())
            .env("JOBPLANE_ATTEMPT", execution.attempt.to_string())
            .env("JOBPLANE_JOB_ID", execution.job.id.to_string())
            .env("JOBPLANE_TENANT_ID", execution.tenant_id.to_string())
            .env("JOBPLANE_INPUT", &input)
            .env("JOBPLANE_OUTPUT_DIR", &output)
            .envs(execution.traceparent.as_ref().map(|parent| ("TRACEPARENT", parent)))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }
}

/// What a job that ended well made.
async fn result(directory: &Path) -> Ended {
    let file = directory.join("output/result.json");
    let size = match tokio::fs::metadata(&file).await {
        Ok(meta) => usize::try_from(meta.len()).unwrap_or(usize::MAX),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ended::of(Outcome::Succeeded),
        Err(error) => return Ended::hopeless(format!("result.json cannot be read: {error}")),
    };
    if size > limits::MAX_RESULT_BYTES {
        return Ended::hopeless(format!(
            "result.json has {size} bytes, at most {} are accepted",
            limits::MAX_RESULT_BYTES
        ));
    }
    let text = match tokio::fs::read_to_string(&file).await {
        Ok(text) => text,
        Err(error) => return Ended::hopeless(format!("result.json cannot be read: {error}")),
    };
    match serde_json::from_str::<Json>(text.trim()) {
        Ok(json) => Ended { result: Some(json), ..Ended::of(Outcome::Succeeded) },
        Err(error) => Ended::hopeless(format!("result.json is not JSON: {error}")),
    }
}
