//! `POST /internal/executions/dequeue`: executions under a fresh lease, or those that the same call took before.

use crate::housekeeping::{admit, tick};
use crate::request::{Checked, TokenHash, WorkerToken};
use crate::rows::{json, priority, stored};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use jobplane_protocol as protocol;
use protocol::{
    DequeueRequest, DequeueResponse, ErrorCode, ExecutionId, JobId, LeaseId, LeasedExecution, LeasedJob,
    TenantId, limits,
};
use tokio_postgres::Row;
use uuid::Uuid;

const DEQUEUE: &str = include_str!("../store/dequeue.sql");
const REPLAY: &str = include_str!("../store/replay.sql");
const HELD: &str = include_str!("../store/held.sql");

/// How often a claim that met nothing but rows under a limit goes on to the next ones.
const LOOKS: usize = 10;
/// When to ask again if even then it met no others, in milliseconds.
const POLL_AFTER_LIMITS_MS: u32 = 50;
/// When to ask again after an empty answer, in milliseconds: rows fall due once a second.
const POLL_AFTER_EMPTY_MS: u32 = 500;

/// Takes executions.
pub(crate) async fn dequeue(
    State(app): State<App>,
    WorkerToken(token): WorkerToken,
    Checked { value: request, .. }: Checked<DequeueRequest>,
) -> Result<Json<DequeueResponse>, Error> {
    let mut claimed = claim(&app, &token, &request).await?;
    if claimed.tick_due {
        match tick(&app).await {
            // What it moved into line may be for this caller.
            Ok(Some(_)) if claimed.ids.is_empty() => claimed = claim(&app, &token, &request).await?,
            Ok(_) => {}
            Err(error) => tracing::error!(cause = %error, "the tick failed; the next one tries again"),
        }
    }
    // Rows that a limit forbids are parked now, and those that another claim had in hand are taken: go on.
    for _ in 0..LOOKS {
        if !claimed.ids.is_empty() || !claimed.met_limits {
            break;
        }
        claimed = claim(&app, &token, &request).await?;
    }
    if claimed.ids.is_empty() {
        claimed.ids = replay(&app, &token, request.lease_id).await?;
    }
    let (executions, expires_at) = held(&app, &claimed.ids, request.lease_id).await?;
    Ok(Json(DequeueResponse {
        lease_id: request.lease_id,
        lease_expires_at: expires_at.unwrap_or(claimed.expires_at),
        heartbeat_interval_ms: app.lease_seconds.unsigned_abs() * 1_000
            / limits::HEARTBEATS_PER_LEASE.unsigned_abs(),
        poll_after_ms: match (executions.is_empty(), claimed.met_limits) {
            (false, _) => 0,
            (true, true) => POLL_AFTER_LIMITS_MS,
            (true, false) => POLL_AFTER_EMPTY_MS,
        },
        executions,
    }))
}

/// What a claim took.
struct Claimed {
    ids: Vec<Uuid>,
    expires_at: Timestamp,
    /// Whether it met rows under a limit that it could not take, and the next call may find others.
    met_limits: bool,
    tick_due: bool,
}

async fn claim(app: &App, token: &TokenHash, request: &DequeueRequest) -> Result<Claimed, Error> {
    let tenants: Option<Vec<_>> = request.tenant_ids.as_ref().map(|ids| ids.iter().map(|id| id.0).collect());
    let budget = i64::try_from(limits::MAX_DEQUEUE_BYTES).unwrap_or(i64::MAX);
    let row = app
        .db
        .row(
            DEQUEUE,
            &[
                &token.bytes(),
                &request.lease_id.0,
                &request.worker_id,
                &i64::from(request.limit),
                &request.queues,
                &tenants,
                &budget,
                &app.lease_seconds,
                &limits::DEADLINE_GRACE_SECONDS,
            ],
        )
        .await?
        .ok_or_else(Error::unauthorized)?;
    if !row.try_get::<_, bool>("in_scope")? {
        let detail = "the worker token is scoped, and not to all of these queues and tenants";
        return Err(Error::refused(ErrorCode::OutOfScope, detail));
    }
    let parked: Vec<Uuid> = row.try_get::<_, Option<_>>("parked_tenants")?.unwrap_or_default();
    let met_limits = !parked.is_empty() || row.try_get("met_busy")?;
    admit(app, parked).await;
    Ok(Claimed {
        ids: row.try_get::<_, Option<_>>("execution_ids")?.unwrap_or_default(),
        expires_at: row.try_get("lease_expires_at")?,
        met_limits,
        tick_due: row.try_get("tick_due")?,
    })
}

/// A fresh look before an empty answer: what an earlier call with this lease_id took.
async fn replay(app: &App, token: &TokenHash, lease_id: LeaseId) -> Result<Vec<Uuid>, Error> {
    match app.db.row(REPLAY, &[&lease_id.0, &token.bytes()]).await? {
        None => Ok(Vec::new()),
        Some(row) if row.try_get("own")? => Ok(row.try_get("execution_ids")?),
        Some(_) => Err(Error::refused(
            ErrorCode::LeaseIdTaken,
            "this lease_id was used with another token: pick a fresh one",
        )),
    }
}

/// What the lease holds of these, and when the first of them runs out.
async fn held(
    app: &App,
    ids: &Vec<Uuid>,
    lease_id: LeaseId,
) -> Result<(Vec<LeasedExecution>, Option<Timestamp>), Error> {
    if ids.is_empty() {
        return Ok((Vec::new(), None));
    }
    let rows = app.db.rows(HELD, &[ids, &lease_id.0]).await?;
    let executions = rows.iter().map(leased).collect::<Result<_, _>>()?;
    let mut expires_at: Option<Timestamp> = None;
    for row in &rows {
        let ends: Timestamp = row.try_get("expires_at")?;
        expires_at = Some(expires_at.map_or(ends, |first| first.min(ends)));
    }
    Ok((executions, expires_at))
}

fn leased(row: &Row) -> Result<LeasedExecution, Error> {
    Ok(LeasedExecution {
        execution_id: ExecutionId(row.try_get("execution_id")?),
        tenant_id: TenantId(row.try_get("tenant_id")?),
        attempt: row.try_get("attempt")?,
        tries: row.try_get("tries")?,
        max_attempts: row.try_get("max_attempts")?,
        timeout_seconds: row.try_get("timeout_seconds")?,
        queue: row.try_get("queue")?,
        priority: priority(row.try_get("priority")?)?,
        job: LeasedJob {
            id: JobId(row.try_get("job_id")?),
            name: row.try_get("job_name")?,
            image: row.try_get("image")?,
            command: row.try_get("command")?,
            env: stored(row.try_get("env")?)?,
        },
        input: json(row.try_get("input")?)?,
        traceparent: row.try_get("traceparent")?,
    })
}
