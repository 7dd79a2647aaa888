//! The worker's calls: dequeue, heartbeat, result, logs. Each is safe to repeat and fenced by its lease.

use crate::schema::{Name, Text};
use crate::{
    Check, Checks, ErrorCode, ExecutionId, JobId, Json, LeaseId, Priority, Status, TenantId, limits, object,
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `POST /internal/executions/dequeue`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DequeueRequest {
    /// A fresh UUID of the worker's choice. Once it took something, the same one again answers the executions that
    /// it still holds, and nothing new; a call that found nothing may take something when it is repeated.
    pub lease_id: LeaseId,
    /// The worker's own name, for people; at most 200 bytes.
    #[schemars(with = "Name")]
    pub worker_id: String,
    /// How many executions at most, 1 to 1,000.
    #[schemars(range(min = 1, max = limits::MAX_DEQUEUE))]
    pub limit: u32,
    /// The queues to take from, in this order. Absent: those of the token's scope, or `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Name>>", length(min = 1, max = limits::MAX_QUEUES), extend("uniqueItems" = true))]
    pub queues: Option<Vec<String>>,
    /// Only these tenants' executions. Absent: those of the token's scope, or everyone's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::MAX_TENANTS), extend("uniqueItems" = true))]
    pub tenant_ids: Option<Vec<TenantId>>,
    /// How long the controller may hold an empty answer, in milliseconds, 0 to 20,000. A controller
    /// that cannot hold answers at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::MAX_WAIT_MS))]
    pub wait_ms: Option<u32>,
}

impl Check for DequeueRequest {
    fn check(&self, checks: &mut Checks) {
        checks.name("worker_id", &self.worker_id);
        checks.range("limit", self.limit, 1..=limits::MAX_DEQUEUE);
        if let Some(queues) = &self.queues {
            checks.queues("queues", queues);
        }
        if let Some(tenants) = &self.tenant_ids {
            checks.tenants("tenant_ids", tenants);
        }
        if let Some(wait_ms) = self.wait_ms {
            checks.range("wait_ms", wait_ms, 0..=limits::MAX_WAIT_MS);
        }
    }
}

/// What a dequeue hands out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DequeueResponse {
    /// The lease all of these are held under.
    pub lease_id: LeaseId,
    /// When the lease ends unless a heartbeat renews it.
    pub lease_expires_at: Timestamp,
    /// How often to send heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u32,
    /// How long to wait before asking again if there is nothing better to do, in milliseconds.
    pub poll_after_ms: u32,
    /// The executions that the lease holds, in the order they are to be started.
    pub executions: Vec<LeasedExecution>,
}

/// One execution in a worker's hands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LeasedExecution {
    /// The execution.
    pub execution_id: ExecutionId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The number of this attempt, from 1, never reused: downstream systems can fence on it.
    pub attempt: i32,
    /// Tries already spent before this attempt; a released attempt is not spent.
    pub tries: i32,
    /// Tries the job allows.
    pub max_attempts: i32,
    /// How long this attempt may take, in seconds.
    pub timeout_seconds: i32,
    /// The queue it came from.
    pub queue: String,
    /// Its priority.
    pub priority: Priority,
    /// What to run.
    pub job: LeasedJob,
    /// The input that was given with the run, or null.
    pub input: Option<Json>,
    /// The W3C trace context that the run was asked under.
    pub traceparent: Option<String>,
}

/// The part of a job that a worker needs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LeasedJob {
    /// The job's id.
    pub id: JobId,
    /// The job's name.
    pub name: String,
    /// The image to run it in.
    pub image: Option<String>,
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// The job's variables, overlaid with the run's.
    pub env: BTreeMap<String, String>,
}

/// `PUT /internal/executions/{id}/heartbeat`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// The lease it acts under.
    pub lease_id: LeaseId,
    /// How far the job is: any JSON up to 4 KB; absent leaves the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Json>,
}

impl Check for HeartbeatRequest {
    fn check(&self, checks: &mut Checks) {
        if let Some(progress) = &self.progress {
            checks.json("progress", progress, limits::MAX_PROGRESS_BYTES, ErrorCode::InvalidRequest);
        }
    }
}

/// The answer to one heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatResponse {
    /// When the lease ends now.
    pub lease_expires_at: Timestamp,
    /// Whether somebody asked to cancel: stop the job and report `cancelled`.
    pub cancel_requested: bool,
}

/// One item of `POST /internal/executions/heartbeats`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatItem {
    /// The execution.
    pub execution_id: ExecutionId,
    /// The lease it acts under.
    pub lease_id: LeaseId,
    /// How far the job is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Json>,
}

/// `POST /internal/executions/heartbeats`: 1 to 1,000 items.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatsRequest {
    /// The leases to renew.
    #[schemars(length(min = 1, max = limits::MAX_BATCH))]
    pub leases: Vec<HeartbeatItem>,
}

/// The answer to a batch of heartbeats.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatsResponse {
    /// When the leases that are held end now.
    pub lease_expires_at: Timestamp,
    /// One for each item, in the same order.
    pub results: Vec<HeartbeatResult>,
}

/// The answer to one item of a batch of heartbeats.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatResult {
    /// The execution; null when the item did not name one.
    pub execution_id: Option<ExecutionId>,
    /// Whether the lease is still held.
    pub state: LeaseState,
    /// Why an item was not taken as sent. The lease that it names is renewed all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
}

/// What a heartbeat found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Renewed; go on.
    Held,
    /// Renewed, but somebody asked to cancel: stop the job and report `cancelled`.
    CancelRequested,
    /// Gone: stop the job and report nothing.
    Lost,
}

/// How an attempt ended, as its worker saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it should.
    Succeeded,
    /// It did not; tried again unless `retryable` is false.
    Failed,
    /// It ran past its time limit; tried again like a failure.
    TimedOut,
    /// It was stopped because a cancel was asked.
    Cancelled,
    /// The worker gives it back unspent, such as on shutdown: another starts it at once.
    Released,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Succeeded, Self::Failed, Self::TimedOut, Self::Cancelled, Self::Released];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
        }
    }
}

/// `PUT /internal/executions/{id}/result`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultRequest {
    /// The lease it acts under.
    pub lease_id: LeaseId,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The exit code of the job's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What went wrong, for people; at most 16 KB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>", length(max = limits::MAX_ERROR_BYTES))]
    pub error: Option<String>,
    /// What the job made: any JSON up to 1 MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// Whether trying again can help; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The wait before the next try, in seconds, instead of the job's backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::MAX_BACKOFF_SECONDS))]
    pub retry_after_seconds: Option<i32>,
}

impl Check for ResultRequest {
    fn check(&self, checks: &mut Checks) {
        if let Some(error) = &self.error {
            checks.text("error", error, limits::MAX_ERROR_BYTES);
        }
        if let Some(result) = &self.result {
            checks.json("result", result, limits::MAX_RESULT_BYTES, ErrorCode::ResultTooLarge);
        }
        if let Some(seconds) = self.retry_after_seconds {
            checks.range("retry_after_seconds", seconds, 0..=limits::MAX_BACKOFF_SECONDS);
        }
    }
}

/// What was decided about an execution when its result was taken; the same when asked again.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ResultResponse {
    /// The state that the result led to.
    pub status: Status,
    /// The attempt that the result was for.
    pub attempt: i32,
    /// When it is tried next, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
}

/// One item of `POST /internal/executions/results`: a result and the execution it is for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultItem {
    /// The execution.
    pub execution_id: ExecutionId,
    /// The lease it acts under.
    pub lease_id: LeaseId,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The exit code of the job's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>", length(max = limits::MAX_ERROR_BYTES))]
    pub error: Option<String>,
    /// What the job made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// Whether trying again can help; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The wait before the next try, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::MAX_BACKOFF_SECONDS))]
    pub retry_after_seconds: Option<i32>,
}

impl ResultItem {
    /// The execution and the result apart.
    pub fn split(self) -> (ExecutionId, ResultRequest) {
        let Self {
            execution_id,
            lease_id,
            outcome,
            exit_code,
            error,
            result,
            retryable,
            retry_after_seconds,
        } = self;
        (
            execution_id,
            ResultRequest { lease_id, outcome, exit_code, error, result, retryable, retry_after_seconds },
        )
    }
}

/// `POST /internal/executions/results`: 1 to 1,000 items.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultsRequest {
    /// The results.
    #[schemars(length(min = 1, max = limits::MAX_BATCH))]
    pub results: Vec<ResultItem>,
}

/// The answer to a batch of results.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ResultsResponse {
    /// One for each item, in the same order.
    pub results: Vec<ResultAnswer>,
}

/// The answer to one item of a batch of results: `status`, or `error_code`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ResultAnswer {
    /// The execution; null when the item did not name one.
    pub execution_id: Option<ExecutionId>,
    /// The state that the result led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// When it is tried next, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Why the item was refused: `lease_lost`, `execution_not_found`, or as for a single result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
    /// What is wrong with a refused item, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Which of a job's two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a job wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// When the worker read it, by the worker's clock: for people, nothing is decided by it.
    pub at: Timestamp,
    /// Where it was written.
    pub stream: Stream,
    /// The line without its end. May hold any character, U+0000 included.
    pub text: String,
}

/// `POST /internal/executions/{id}/logs`: consecutive lines of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsRequest {
    /// The lease it acts under.
    pub lease_id: LeaseId,
    /// The number of the first line, from 0 in each attempt.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub first_seq: i64,
    /// The lines: 1 to 10,000 of them, together at most 256 KB.
    #[serde(deserialize_with = "object::list")]
    #[schemars(length(min = 1, max = limits::MAX_LOG_CHUNK_LINES))]
    pub lines: Vec<LogLine>,
}

impl Check for LogsRequest {
    fn check(&self, checks: &mut Checks) {
        checks.range("first_seq", self.first_seq, 0..=i64::from(i32::MAX));
        checks.items("lines", self.lines.len(), limits::MAX_LOG_CHUNK_LINES);
    }
}

/// Up to where lines are taken.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogsResponse {
    /// The number that the next line is to have.
    pub next_seq: i64,
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn an_outcome_is_called_the_same_everywhere() {
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
