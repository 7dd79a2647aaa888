//! Executions: asking for them, looking at them, cancelling them, and the dead letters.

use crate::schema::Env;
use crate::{
    Check, Checks, ErrorCode, ExecutionId, JobId, Json, Page, Priority, Stream, TenantId, limits, object,
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where an execution is. Derived from where its row is; there is no column that could drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Waits for a worker; no try has been spent.
    Pending,
    /// Waits for the time it was asked for.
    Scheduled,
    /// A worker holds it.
    Running,
    /// A try was spent, and it will be tried again.
    Retrying,
    /// Ended well.
    Succeeded,
    /// Ended badly: a dead letter.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

impl Status {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Scheduled => "SCHEDULED",
            Self::Running => "RUNNING",
            Self::Retrying => "RETRYING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use Status::{Cancelled, Failed, Pending, Retrying, Running, Scheduled, Succeeded};
        [Pending, Scheduled, Running, Retrying, Succeeded, Failed, Cancelled]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a status"))
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an attempt ended, in its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It did what it should.
    Succeeded,
    /// It did not.
    Failed,
    /// It ran past its time limit.
    TimedOut,
    /// It was stopped, or never started, because a cancel was asked.
    Cancelled,
    /// Its worker gave it back unspent.
    Released,
    /// Its worker was not heard from for a whole lease; the controller ended it.
    Expired,
    /// Its worker went on past timeout and grace; the controller ended it.
    DeadlineExceeded,
}

/// `POST /jobs/{id}/run`, and one item of `POST /jobs/{id}/runs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunRequest {
    /// Any JSON up to 256 KB, given to the job as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// Not before this time; at once when absent or past. At most 366 days ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Timestamp>,
    /// Instead of the job's priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Variables over the job's, for this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Env>")]
    pub env: Option<BTreeMap<String, String>>,
}

impl RunRequest {
    fn check_at(&self, checks: &mut Checks, at: &str) {
        if let Some(input) = &self.input {
            checks.json(&format!("{at}input"), input, limits::MAX_INPUT_BYTES, ErrorCode::InputTooLarge);
        }
        if let Some(env) = &self.env {
            checks.env(&format!("{at}env"), env);
        }
    }
}

impl Check for RunRequest {
    fn check(&self, checks: &mut Checks) {
        self.check_at(checks, "");
    }
}

/// The execution that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunResponse {
    /// Its id.
    pub execution_id: ExecutionId,
    /// `PENDING` or `SCHEDULED`.
    pub status: Status,
}

/// `POST /jobs/{id}/runs`: 1 to 1,000 executions, all or none.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunsRequest {
    /// What to run.
    #[serde(deserialize_with = "object::list")]
    #[schemars(length(min = 1, max = limits::MAX_BATCH))]
    pub runs: Vec<RunRequest>,
}

impl Check for RunsRequest {
    fn check(&self, checks: &mut Checks) {
        checks.items("runs", self.runs.len(), limits::MAX_BATCH);
        for (index, run) in self.runs.iter().enumerate() {
            run.check_at(checks, &format!("runs[{index}]."));
        }
    }
}

/// The executions that were asked for, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunsResponse {
    /// Their ids.
    pub execution_ids: Vec<ExecutionId>,
}

/// The query of `GET /executions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecutionQuery {
    /// Only those in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Only those of this job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Only those of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only those asked for at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<Timestamp>,
    /// Only those asked for before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Timestamp>,
    /// Items per page, 1 to 1,000; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_PAGE))]
    pub limit: Option<u32>,
    /// Where the previous page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// An execution in a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExecutionSummary {
    /// Its id.
    pub id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// Its job's name.
    pub job_name: String,
    /// Where it is.
    pub status: Status,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: Priority,
    /// The number of its latest attempt; 0 before the first.
    pub attempt: i32,
    /// When it may start, if it was scheduled.
    pub scheduled_at: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its latest attempt started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// An execution, whole.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// Its job's name.
    pub job_name: String,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Where it is.
    pub status: Status,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: Priority,
    /// The number of its latest attempt; 0 before the first. Only grows.
    pub attempt: i32,
    /// Tries spent; a released attempt is not spent.
    pub tries: i32,
    /// Tries its job allows.
    pub max_attempts: i32,
    /// What it was given.
    pub input: Option<Json>,
    /// What it made.
    pub result: Option<Json>,
    /// The exit code of its last attempt.
    pub exit_code: Option<i32>,
    /// What went wrong in its last attempt.
    pub error: Option<String>,
    /// What its worker last said about how far it is.
    pub progress: Option<Json>,
    /// When it may start, if it was scheduled; the next try's time while it backs off.
    pub scheduled_at: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its latest attempt started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Whether somebody asked to cancel it.
    pub cancel_requested: bool,
    /// The dead letter that it is the retry of.
    pub retried_from: Option<ExecutionId>,
    /// Its attempts, oldest first, the running one included. Of very many, or with very long errors, only the latest.
    pub attempts: Vec<Attempt>,
}

/// One try of an execution.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Its number, from 1; 0 stands for a cancel before any worker held it.
    pub attempt: i32,
    /// How it ended; null while it runs.
    pub outcome: Option<AttemptOutcome>,
    /// Who ran it.
    pub worker_id: Option<String>,
    /// When it was leased.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The exit code of the job's process.
    pub exit_code: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
}

/// A page of executions.
pub type ExecutionPage = Page<ExecutionSummary>;

/// The answer to a cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelResponse {
    /// `CANCELLED` if it waited; `RUNNING` if its worker is told at the next heartbeat.
    pub status: Status,
}

/// The query of `GET /executions/{id}/logs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Where the previous answer ended: its `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Lines at most, 1 to 1,000; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_PAGE))]
    pub limit: Option<u32>,
}

/// Lines of an execution's logs, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<StoredLogLine>,
    /// Goes into `?after=` for what follows. Opaque.
    pub next: String,
    /// Whether the execution has ended and these were its last lines, so there is nothing to wait for.
    pub finished: bool,
}

/// One line of an execution's logs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StoredLogLine {
    /// The attempt that wrote it.
    pub attempt: i32,
    /// Its number in the attempt, from 0.
    pub seq: i64,
    /// When its worker read it.
    pub at: Timestamp,
    /// Where it was written.
    pub stream: Stream,
    /// The line without its end.
    pub text: String,
}

/// An execution that ended badly and waits for somebody to decide.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The execution.
    pub execution_id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// Its job's name.
    pub job_name: String,
    /// How many attempts it had.
    pub attempts: i32,
    /// Why it was given up, such as "lease expired on attempt 5 of 5".
    pub reason: String,
    /// When it was given up.
    pub failed_at: Timestamp,
}

/// A page of dead letters.
pub type DeadLetterPage = Page<DeadLetter>;

/// The answer to retrying one dead letter: a new execution; asked twice, the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RetryResponse {
    /// The new execution.
    pub execution_id: ExecutionId,
    /// The dead letter it came from.
    pub retried_from: ExecutionId,
}

/// `POST /executions/dlq/retry`: retries many, oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryDeadLetters {
    /// Only those of this job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Only those given up before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<Timestamp>,
    /// At most so many in this call, 1 to 1,000; 1,000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_PAGE))]
    pub limit: Option<u32>,
}

impl Check for RetryDeadLetters {
    fn check(&self, checks: &mut Checks) {
        if let Some(limit) = self.limit {
            checks.range("limit", limit, 1..=limits::MAX_PAGE);
        }
    }
}

/// The answer to retrying many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RetriedResponse {
    /// How many were retried. Zero means that none is left that may be: what remains is of deleted jobs, or in the
    /// hands of another call.
    pub retried: u32,
}
