//! `/executions`: looking at executions, their logs, and cancelling them.

use crate::request::{Id, PageOf, Params, TenantKey, missing};
use crate::rows::{items, json, priority, status, stored};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use jobplane_protocol::{
    Attempt, CancelResponse, ErrorCode, Execution, ExecutionId, ExecutionPage, ExecutionQuery,
    ExecutionSummary, JobId, LogLine, LogPage, LogQuery, Status, StoredLogLine, TenantId, limits,
};
use tokio_postgres::Row;
use uuid::Uuid;

const EXECUTION: &str = include_str!("../store/execution.sql");
const EXECUTIONS: &str = include_str!("../store/executions.sql");
const CANCEL: &str = include_str!("../store/cancel.sql");
const LOGS: &str = include_str!("../store/logs_read.sql");

/// How often a cancel looks for an execution that moves while it waits.
const CANCEL_LOOKS: usize = 4;

/// One execution, whole.
pub(crate) async fn execution(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>, Error> {
    let budget = i64::try_from(limits::MAX_HISTORY_BYTES).unwrap_or(i64::MAX);
    let binds: [&dyn crate::store::Bind; 4] = [&token.bytes(), &id.0, &i64::from(limits::MAX_PAGE), &budget];
    let row = app.db.row(EXECUTION, &binds).await?.ok_or_else(Error::unauthorized)?;
    if row.try_get::<_, Option<Uuid>>("id")?.is_none() {
        return Err(missing::<ExecutionId>());
    }
    let status = status(row.try_get("status")?)?;
    let attempt = row.try_get("attempt")?;
    let mut attempts: Vec<Attempt> = match row.try_get("attempts")? {
        Some(text) => stored(text)?,
        None => Vec::new(),
    };
    let started_at = row.try_get("started_at")?;
    if status == Status::Running {
        let worker_id = row.try_get("worker_id")?;
        attempts.push(Attempt {
            attempt,
            worker_id,
            started_at,
            outcome: None,
            finished_at: None,
            exit_code: None,
            error: None,
        });
    }
    let due_at: Option<Timestamp> = row.try_get("due_at")?;
    let finished_at: Option<Timestamp> = row.try_get("finished_at")?;
    Ok(Json(Execution {
        id,
        job_id: JobId(row.try_get("job_id")?),
        job_name: row.try_get("job_name")?,
        tenant_id: TenantId(row.try_get("tenant_id")?),
        status,
        queue: row.try_get("queue")?,
        priority: priority(row.try_get("priority")?)?,
        attempt,
        tries: row.try_get("tries")?,
        max_attempts: row.try_get("max_attempts")?,
        input: json(row.try_get("input")?)?,
        result: json(row.try_get("result")?)?,
        exit_code: row.try_get("exit_code")?,
        error: row.try_get("error")?,
        progress: json(row.try_get("progress")?)?,
        scheduled_at: due_at.or(row.try_get("scheduled_at")?),
        created_at: row.try_get("created_at")?,
        started_at,
        finished_at: finished_at.filter(|_| status.is_final()),
        cancel_requested: row.try_get("cancel_requested")?,
        retried_from: row.try_get::<_, Option<Uuid>>("retried_from")?.map(ExecutionId),
        attempts,
    }))
}

/// A page of executions.
pub(crate) async fn executions(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Params(query): Params<ExecutionQuery>,
) -> Result<Json<ExecutionPage>, Error> {
    let page = PageOf::<Uuid>::read(query.limit, query.cursor.as_deref())?;
    // Ids begin in 1970, and so do the times they can be compared with.
    let [after, before] =
        [query.created_after, query.created_before].map(|at| at.map(|at| at.max(Timestamp::UNIX_EPOCH)));
    let filtered = query.status.is_some() || query.job_id.is_some() || query.queue.is_some();
    let examined = if filtered { limits::MAX_EXAMINED } else { page.limit };
    let rows = app
        .db
        .rows(
            EXECUTIONS,
            &[
                &token.bytes(),
                &query.status.map(Status::as_str),
                &query.job_id.map(|id| id.0),
                &query.queue,
                &after,
                &before,
                &page.cursor,
                &page.limit,
                &examined,
            ],
        )
        .await?;
    let next_cursor: Option<Uuid> = rows.first().ok_or_else(Error::unauthorized)?.try_get("next_cursor")?;
    let items = items(&rows, summary)?.into_iter().flatten().collect();
    Ok(Json(ExecutionPage { items, next_cursor: next_cursor.map(|id| id.to_string()) }))
}

/// An execution as a list has it; none if it is in no place and has no end: the list goes on without it.
fn summary(row: &Row) -> Result<Option<ExecutionSummary>, Error> {
    let id = ExecutionId(row.try_get("id")?);
    let Some(found) = row.try_get::<_, Option<&str>>("status")? else {
        tracing::error!(%id, "an execution is in no place and has no end: left out of a list");
        return Ok(None);
    };
    Ok(Some(ExecutionSummary {
        id,
        job_id: JobId(row.try_get("job_id")?),
        job_name: row.try_get("job_name")?,
        status: status(found)?,
        queue: row.try_get("queue")?,
        priority: priority(row.try_get("priority")?)?,
        attempt: row.try_get("attempt")?,
        scheduled_at: row.try_get("scheduled_at")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
    }))
}

/// Cancels one execution.
pub(crate) async fn cancel(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<ExecutionId>,
) -> Result<(StatusCode, Json<CancelResponse>), Error> {
    for _ in 0..CANCEL_LOOKS {
        let row = app.db.row(CANCEL, &[&token.bytes(), &id.0]).await?.ok_or_else(Error::unauthorized)?;
        if row.try_get("cancelled")? {
            return Ok((StatusCode::ACCEPTED, Json(CancelResponse { status: Status::Cancelled })));
        }
        if row.try_get("asked")? {
            return Ok((StatusCode::ACCEPTED, Json(CancelResponse { status: Status::Running })));
        }
        if !row.try_get::<_, bool>("found")? {
            return Err(missing::<ExecutionId>());
        }
        if row.try_get("finished")? {
            return Err(Error::refused(
                ErrorCode::AlreadyFinished,
                "the execution has ended; nothing is left to cancel",
            ));
        }
    }
    Err(Error::TimedOut)
}

/// Where a reader of logs is: the next line it wants.
#[derive(Clone, Copy)]
struct LogPlace {
    attempt: i32,
    seq: i64,
}

impl std::str::FromStr for LogPlace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (attempt, seq) = text.split_once('.').ok_or(())?;
        Ok(Self { attempt: attempt.parse().map_err(|_| ())?, seq: seq.parse().map_err(|_| ())? })
    }
}

/// Lines of an execution's logs.
pub(crate) async fn execution_logs(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<ExecutionId>,
    Params(query): Params<LogQuery>,
) -> Result<Json<LogPage>, Error> {
    let page = PageOf::<LogPlace>::read(query.limit, query.after.as_deref())?;
    let mut place = page.cursor.unwrap_or(LogPlace { attempt: 0, seq: 0 });
    let budget = i64::try_from(limits::MAX_LOG_PAGE_BYTES).unwrap_or(i64::MAX);
    let binds: [&dyn crate::store::Bind; 6] =
        [&token.bytes(), &id.0, &place.attempt, &place.seq, &page.limit, &budget];
    let rows = app.db.rows(LOGS, &binds).await?;
    let first = rows.first().ok_or_else(Error::unauthorized)?;
    if !first.try_get::<_, bool>("found")? {
        return Err(missing::<ExecutionId>());
    }
    let ended: bool = first.try_get("finished")?;
    let (mut lines, mut bytes, mut cut) = (Vec::new(), 0, false);
    for row in &rows {
        let Some(attempt) = row.try_get::<_, Option<i32>>("attempt")? else { break };
        let text: &str = row.try_get("lines")?;
        let first_seq: i64 = row.try_get("first_seq")?;
        bytes += text.len();
        let skip = if attempt == place.attempt { place.seq - first_seq } else { 0 };
        for (seq, line) in
            (first_seq..).zip(stored::<Vec<LogLine>>(text)?).skip(usize::try_from(skip).unwrap_or(0))
        {
            if lines.len() as i64 == page.limit {
                cut = true;
                break;
            }
            let LogLine { at, stream, text } = line;
            lines.push(StoredLogLine { attempt, seq, at, stream, text });
            place = LogPlace { attempt, seq: seq + 1 };
        }
    }
    // Only a page that came out short of every bound is known to be the last.
    let finished = ended && !cut && bytes < limits::MAX_LOG_PAGE_BYTES && (rows.len() as i64) < page.limit;
    Ok(Json(LogPage { lines, next: format!("{}.{}", place.attempt, place.seq), finished }))
}
