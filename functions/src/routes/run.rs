//! `POST /jobs/{id}/run` and `/runs`: asking for executions, once however often the call is repeated.

use crate::housekeeping::{RANK_UNIT, admit};
use crate::request::{Checked, Id, TenantKey, TokenHash, header_text, missing};
use crate::{App, Error, rows};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jobplane_protocol::{
    ErrorCode, ExecutionId, JobId, RunRequest, RunResponse, RunsRequest, RunsResponse, Status, limits,
};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use uuid::Uuid;

const RUN: &str = include_str!("../store/run.sql");
const REPLAY: &str = include_str!("../store/run_replay.sql");

/// A W3C `traceparent` has 55 characters; later versions may add some.
pub(crate) const MAX_TRACEPARENT_BYTES: usize = 200;

/// Asks for one execution.
pub(crate) async fn run(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(job): Id<JobId>,
    headers: HeaderMap,
    Checked { value: request, bytes }: Checked<RunRequest>,
) -> Result<(StatusCode, Json<RunResponse>), Error> {
    let asked = Asked::read(&app, token, job, &headers, "run", &bytes)?;
    let (code, accepted) = asked.ask(&[request], true).await?;
    let execution_id = accepted.ids.first().copied().map(ExecutionId);
    let execution_id =
        execution_id.ok_or_else(|| Error::Stored("an accepted run without an id".to_owned()))?;
    Ok((code, Json(RunResponse { execution_id, status: accepted.status })))
}

/// Asks for many executions: all of them or none.
pub(crate) async fn runs(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(job): Id<JobId>,
    headers: HeaderMap,
    Checked { value: request, bytes }: Checked<RunsRequest>,
) -> Result<(StatusCode, Json<RunsResponse>), Error> {
    let asked = Asked::read(&app, token, job, &headers, "runs", &bytes)?;
    let (code, accepted) = asked.ask(&request.runs, false).await?;
    Ok((code, Json(RunsResponse { execution_ids: accepted.ids.into_iter().map(ExecutionId).collect() })))
}

/// Who asks, for what, and under which key.
struct Asked<'a> {
    app: &'a App,
    token: TokenHash,
    job: JobId,
    traceparent: Option<String>,
    key: Option<String>,
    /// Of the route, the job and the body: what a repeated key must agree with.
    fingerprint: [u8; 32],
}

/// What was accepted.
struct Accepted {
    ids: Vec<Uuid>,
    status: Status,
}

impl<'a> Asked<'a> {
    fn read(
        app: &'a App,
        token: TokenHash,
        job: JobId,
        headers: &HeaderMap,
        route: &str,
        body: &[u8],
    ) -> Result<Self, Error> {
        let key = header_text(headers, "idempotency-key", limits::MAX_IDEMPOTENCY_KEY_BYTES)?;
        let traceparent = header_text(headers, "traceparent", MAX_TRACEPARENT_BYTES)?;
        let mut hash = Sha256::new();
        hash.update(route);
        hash.update(job.0.as_bytes());
        hash.update(body);
        Ok(Self { app, token, job, traceparent, key, fingerprint: hash.finalize().into() })
    }

    /// Asks, or finds what an earlier call with the same key was answered.
    async fn ask(&self, runs: &[RunRequest], single: bool) -> Result<(StatusCode, Accepted), Error> {
        let row = self.insert(runs, single).await?.ok_or_else(Error::unauthorized)?;
        if row.try_get("accepted")? {
            admit(self.app, row.try_get::<_, Option<Uuid>>("limited_tenant")?.into_iter().collect()).await;
            let status = if row.try_get("is_later")? { Status::Scheduled } else { Status::Pending };
            return Ok((StatusCode::CREATED, Accepted { ids: row.try_get("execution_ids")?, status }));
        }
        if !row.try_get::<_, bool>("known")? {
            self.refusal(&row)?;
        }
        Ok((StatusCode::OK, self.replay().await?.ok_or(Error::TimedOut)?))
    }

    async fn insert(&self, runs: &[RunRequest], single: bool) -> Result<Option<Row>, Error> {
        let inputs: Vec<Option<&str>> =
            runs.iter().map(|run| run.input.as_ref().map(|json| json.get())).collect();
        let scheduled: Vec<Option<Timestamp>> = runs.iter().map(|run| run.scheduled_at).collect();
        let priorities: Vec<Option<i16>> = runs.iter().map(|run| run.priority.map(i16::from)).collect();
        let envs: Vec<Option<String>> = runs
            .iter()
            .map(|run| run.env.as_ref().map(serde_json::to_string).transpose())
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Stored(error.to_string()))?;
        let days = i32::try_from(limits::MAX_SCHEDULE_DAYS).unwrap_or(i32::MAX);
        self.app
            .db
            .row(
                RUN,
                &[
                    &self.token.bytes(),
                    &self.job.0,
                    &inputs,
                    &scheduled,
                    &priorities,
                    &envs,
                    &self.traceparent,
                    &self.key,
                    &self.fingerprint.as_slice(),
                    &single,
                    &limits::IDEMPOTENCY_HOURS,
                    &RANK_UNIT,
                    &days,
                ],
            )
            .await
    }

    /// Why nothing was accepted, if it was not for the key.
    fn refusal(&self, row: &Row) -> Result<(), Error> {
        if !row.try_get::<_, bool>("job_exists")? {
            return Err(missing::<JobId>());
        }
        let max_priority: i16 = row.try_get("max_priority")?;
        if row.try_get::<_, i16>("highest_priority")? > max_priority {
            return Err(Error::field(
                "priority",
                format!("this tenant's highest priority is {max_priority}"),
            ));
        }
        if row.try_get::<_, Option<bool>>("too_far")? == Some(true) {
            return Err(Error::field(
                "scheduled_at",
                format!("at most {} days ahead", limits::MAX_SCHEDULE_DAYS),
            ));
        }
        row.try_get::<_, Option<f64>>("wait_seconds")?.map_or(Ok(()), |wait| Err(Error::rate_limited(wait)))
    }

    async fn replay(&self) -> Result<Option<Accepted>, Error> {
        let Some(row) = self.app.db.row(REPLAY, &[&self.token.bytes(), &self.key]).await? else {
            return Ok(None);
        };
        if row.try_get::<_, &[u8]>("fingerprint")? != self.fingerprint {
            let detail = "this Idempotency-Key was used with another request; pick a new one";
            return Err(Error::refused(ErrorCode::IdempotencyKeyReused, detail));
        }
        let status = row.try_get::<_, Option<&str>>("status")?.unwrap_or("PENDING");
        Ok(Some(Accepted { ids: row.try_get("execution_ids")?, status: rows::status(status)? }))
    }
}
