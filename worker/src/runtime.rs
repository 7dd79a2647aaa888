//! What every runtime does: it runs an attempt to its end, whatever that is, and says how it ended.

use crate::Error;
use crate::agent::{Progress, Stop, StopReceiver};
use crate::logs::LogWriter;
use jobplane_protocol::{
    ExecutionId, JobId, Json, LeaseId, LeasedExecution, LeasedJob, Outcome, Priority, TenantId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

/// A way to run jobs.
pub(crate) trait Runtime: Send + Sync {
    /// Runs one attempt to its end: its own, that of its time, or the one that `stop` asks for. Nothing of it is
    /// left afterwards. What goes into `progress` is told with the next heartbeat.
    fn run<'a>(
        &'a self,
        leased: &'a LeasedExecution,
        log: &'a mut LogWriter,
        progress: Progress,
        stop: StopReceiver,
    ) -> Pin<Box<dyn Future<Output = Ending> + Send + 'a>>;

    /// Sees whether it can work at all, and leaves everything as it is.
    fn check(&self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }

    /// Makes ready before the first dequeue: what cannot work at all is said at once.
    fn begin(&self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
}

/// The variables that tell a job which attempt it is. They come last, so that no job can claim to be another.
pub(crate) fn identity(leased: &LeasedExecution) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("JOBPLANE_EXECUTION_ID", leased.execution_id.to_string()),
        ("JOBPLANE_ATTEMPT", leased.attempt.to_string()),
        ("JOBPLANE_JOB_ID", leased.job.id.to_string()),
        ("JOBPLANE_TENANT_ID", leased.tenant_id.to_string()),
    ];
    variables.extend(leased.traceparent.clone().map(|context| ("TRACEPARENT", context)));
    variables
}

/// A job of nobody's, to see what becomes of one.
pub(crate) fn trial(command: &[&str]) -> LeasedExecution {
    let id = || LeaseId::random().0;
    LeasedExecution {
        execution_id: ExecutionId(id()),
        tenant_id: TenantId(id()),
        attempt: 1,
        tries: 0,
        max_attempts: 1,
        timeout_seconds: 10,
        queue: "default".to_owned(),
        priority: Priority::default(),
        job: LeasedJob {
            id: JobId(id()),
            name: "trial".to_owned(),
            image: None,
            command: Some(command.iter().map(|&part| part.to_owned()).collect()),
            env: BTreeMap::new(),
        },
        input: None,
        traceparent: None,
    }
}

/// How long an attempt may run.
pub(crate) fn time_limit(leased: &LeasedExecution) -> Duration {
    Duration::from_secs(leased.timeout_seconds.max(0).unsigned_abs().into())
}

/// What is reported of an attempt.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) error: Option<String>,
    pub(crate) result: Option<Json>,
    pub(crate) retryable: Option<bool>,
    /// The wait before the next try instead of the job's backoff.
    pub(crate) retry_after_seconds: Option<i32>,
    /// Whether it never began for what this machine lacks, such as processes or room on its disk: the next would do
    /// no better at once.
    pub(crate) unstarted: bool,
}

impl Ending {
    pub(crate) fn plain(outcome: Outcome) -> Self {
        Self {
            outcome,
            exit_code: None,
            error: None,
            result: None,
            retryable: None,
            retry_after_seconds: None,
            unstarted: false,
        }
    }

    /// Given back unspent.
    pub(crate) fn released() -> Self {
        Self::plain(Outcome::Released)
    }

    /// Given back because of what this machine lacks: the job has no part in it.
    pub(crate) fn unstarted(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), unstarted: true, ..Self::released() }
    }

    /// Failed; another try may do better.
    pub(crate) fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::plain(Outcome::Failed) }
    }

    /// Stopped at the end of its time.
    pub(crate) fn timed_out(limit: Duration, last_errors: &str) -> Self {
        let error = with_last_errors(&format!("timed out after {} s", limit.as_secs()), last_errors);
        Self { error: Some(error), ..Self::plain(Outcome::TimedOut) }
    }

    /// Stopped for this reason.
    pub(crate) fn stopped(why: Stop) -> Self {
        match why {
            Stop::Cancel => Self::plain(Outcome::Cancelled),
            // A lost lease is not reported at all.
            Stop::Release | Stop::Lost => Self::released(),
        }
    }

    /// Ended by itself, with this code.
    pub(crate) fn exited(code: i32, result: Result<Option<Json>, String>, last_errors: &str) -> Self {
        let exit_code = Some(code);
        match (code, result) {
            (0, Ok(result)) => Self { exit_code, result, ..Self::plain(Outcome::Succeeded) },
            (0, Err(error)) => Self { exit_code, ..Self::impossible(error) },
            _ => {
                let error = with_last_errors(&format!("exit code {code}"), last_errors);
                Self { exit_code, ..Self::failed(error) }
            }
        }
    }

    /// Failed, and every other try would.
    pub(crate) fn impossible(error: impl Into<String>) -> Self {
        Self { retryable: Some(false), ..Self::failed(error) }
    }
}

/// A text, and behind it what the job said last on standard error.
pub(crate) fn with_last_errors(what: &str, last_errors: &str) -> String {
    if last_errors.is_empty() { what.to_owned() } else { format!("{what}: {last_errors}") }
}
