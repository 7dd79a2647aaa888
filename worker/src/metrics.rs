//! What is counted for operators, under the names, labels and words of the table in docs/worker.md.

use crate::Error;
use jobplane_protocol::Outcome;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use reqwest::StatusCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Prometheus's own default buckets, to the ten seconds after which a request is given up.
const REQUEST_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From a warden, which takes milliseconds, to an image that is pulled.
const START_SECONDS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// From the shortest of jobs to those that take a day.
const ATTEMPT_SECONDS: [f64; 12] =
    [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0];

const BUILD_INFO: &str = "jobplane_worker_build_info";
const SLOTS: &str = "jobplane_worker_slots";
const RUNNING: &str = "jobplane_worker_attempts_running";
const ATTEMPTS: &str = "jobplane_worker_attempts_total";
const ATTEMPT: &str = "jobplane_worker_attempt_duration_seconds";
const START: &str = "jobplane_worker_start_duration_seconds";
const DEQUEUES: &str = "jobplane_worker_dequeues_total";
const TAKEN: &str = "jobplane_worker_executions_taken_total";
const HEARTBEAT_FAILURES: &str = "jobplane_worker_heartbeat_failures_total";
const LEASES_LOST: &str = "jobplane_worker_leases_lost_total";
const RESULTS: &str = "jobplane_worker_results_total";
const RESULT_RETRIES: &str = "jobplane_worker_result_retries_total";
const LINES_SHIPPED: &str = "jobplane_worker_log_lines_shipped_total";
const LINES_LOST: &str = "jobplane_worker_log_lines_lost_total";
const REQUEST: &str = "jobplane_worker_controller_request_duration_seconds";

/// The outcome of an attempt whose lease was lost.
const LOST: &str = "lost";

/// What became of a dequeue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dequeue {
    /// It brought executions.
    Work,
    /// There was nothing to do.
    Empty,
    /// It was not answered, or refused.
    Failed,
}

/// What became of a result that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Delivery {
    /// The controller has it.
    Taken,
    /// The controller will not have it.
    Refused,
    /// The lease was lost before.
    Late,
}

/// Counts from here on, for the whole process; every series that is known stands at 0. Without this nothing is
/// counted and nothing is kept.
pub(crate) fn install() -> Result<PrometheusHandle, Error> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let refuse = |error| Error::Configuration(format!("metrics cannot be kept: {error}"));
    let buckets: [(&str, &[f64]); 3] =
        [(REQUEST, &REQUEST_SECONDS), (START, &START_SECONDS), (ATTEMPT, &ATTEMPT_SECONDS)];
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in buckets {
        let name = Matcher::Full(name.to_owned());
        builder = builder.set_buckets_for_metric(name, buckets).map_err(refuse)?;
    }
    let handle = builder.install_recorder().map_err(refuse)?;
    describe();
    begin();
    *installed = Some(handle.clone());
    Ok(handle)
}

fn describe() {
    describe_gauge!(BUILD_INFO, "Always 1; the label says which build this is");
    describe_gauge!(SLOTS, "How many executions may run at once");
    describe_gauge!(RUNNING, "Attempts that run now, from their lease to their end");
    describe_counter!(
        ATTEMPTS,
        "Attempts that ended, by how; lost is one whose lease another may have by now"
    );
    describe_histogram!(ATTEMPT, "How long an attempt took, from its lease to its end");
    describe_histogram!(START, "How long it took from the lease until the job was started");
    describe_counter!(DEQUEUES, "Requests for work, by what they brought: work, empty or failed");
    describe_counter!(TAKEN, "Executions that were leased to this worker");
    describe_counter!(HEARTBEAT_FAILURES, "Batches of heartbeats that were not answered");
    describe_counter!(LEASES_LOST, "Leases that the controller gave up: the job was stopped");
    describe_counter!(
        RESULTS,
        "Results that were answered: taken, refused, or late because the lease was lost"
    );
    describe_counter!(RESULT_RETRIES, "Results that have to be sent again because they were not taken");
    describe_counter!(LINES_SHIPPED, "Lines of jobs that the controller has");
    describe_counter!(LINES_LOST, "Lines of jobs that were dropped: no room for them in time, or refused");
    describe_histogram!(REQUEST, "How long a request to the controller took; status none is no answer");
}

/// A counter that appears with its first event looks to `rate()` as if that had not been one.
fn begin() {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(RUNNING).set(0.0);
    for outcome in Outcome::ALL.map(Outcome::as_str).into_iter().chain([LOST]) {
        counter!(ATTEMPTS, "outcome" => outcome).absolute(0);
    }
    for result in [Dequeue::Work, Dequeue::Empty, Dequeue::Failed] {
        counter!(DEQUEUES, "result" => result.label()).absolute(0);
    }
    for result in [Delivery::Taken, Delivery::Refused, Delivery::Late] {
        counter!(RESULTS, "result" => result.label()).absolute(0);
    }
    for name in [TAKEN, HEARTBEAT_FAILURES, LEASES_LOST, RESULT_RETRIES, LINES_SHIPPED, LINES_LOST] {
        counter!(name).absolute(0);
    }
}

impl Dequeue {
    fn label(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Empty => "empty",
            Self::Failed => "failed",
        }
    }
}

impl Delivery {
    fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Late => "late",
        }
    }
}

pub(crate) fn slots(count: u32) {
    gauge!(SLOTS).set(count);
}

pub(crate) fn attempt_began() {
    gauge!(RUNNING).increment(1.0);
}

/// Of an attempt that began; `None` for a lease that was lost.
pub(crate) fn attempt_ended(outcome: Option<Outcome>, took: Duration) {
    gauge!(RUNNING).decrement(1.0);
    let outcome = outcome.map_or(LOST, Outcome::as_str);
    counter!(ATTEMPTS, "outcome" => outcome).increment(1);
    histogram!(ATTEMPT, "outcome" => outcome).record(took);
}

/// Of an attempt that never began.
pub(crate) fn attempt_unbegun() {
    counter!(ATTEMPTS, "outcome" => Outcome::Released.as_str()).increment(1);
}

pub(crate) fn job_started(after: Duration) {
    histogram!(START).record(after);
}

pub(crate) fn dequeued(result: Dequeue, executions: usize) {
    counter!(DEQUEUES, "result" => result.label()).increment(1);
    counter!(TAKEN).increment(whole(executions));
}

pub(crate) fn heartbeats_failed() {
    counter!(HEARTBEAT_FAILURES).increment(1);
}

pub(crate) fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

pub(crate) fn result_answered(result: Delivery) {
    counter!(RESULTS, "result" => result.label()).increment(1);
}

pub(crate) fn results_again(count: usize) {
    counter!(RESULT_RETRIES).increment(whole(count));
}

pub(crate) fn lines_shipped(count: usize) {
    counter!(LINES_SHIPPED).increment(whole(count));
}

pub(crate) fn lines_lost(count: usize) {
    counter!(LINES_LOST).increment(whole(count));
}

/// Of one request, whatever call it belongs to.
pub(crate) fn request(path: &str, status: Option<StatusCode>, took: Duration) {
    let status = status.map_or_else(|| "none".to_owned(), |status| status.as_u16().to_string());
    histogram!(REQUEST, "route" => route(path), "status" => status).record(took);
}

/// The route that a path belongs to: its ids would each make a series of their own.
fn route(path: &str) -> String {
    let part =
        |part: &str| if uuid::Uuid::try_parse(part).is_ok() { "{id}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_no_ids() {
        let id = uuid::Uuid::now_v7();
        assert_eq!(route(&format!("/internal/executions/{id}/logs")), "/internal/executions/{id}/logs");
        assert_eq!(route("/internal/executions/dequeue"), "/internal/executions/dequeue");
    }
}
