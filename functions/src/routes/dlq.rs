//! `/executions/dlq`: executions that ended badly and wait for somebody to decide.

use crate::request::{Checked, Id, PageOf, Params, TenantKey};
use crate::rows::items;
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use jobplane_protocol::{
    DeadLetter, DeadLetterPage, ErrorCode, ExecutionId, JobId, PageQuery, RetriedResponse, RetryDeadLetters,
    RetryResponse, limits,
};
use tokio_postgres::Row;
use uuid::Uuid;

const DEAD_LETTERS: &str = include_str!("../store/dead_letters.sql");
const RETRY: &str = include_str!("../store/dead_letters_retry.sql");
const RETRIED: &str = include_str!("../store/dead_letter_retried.sql");
const DELETE: &str = include_str!("../store/dead_letter_delete.sql");

/// How often a retry looks for what a concurrent one makes.
const LOOKS: usize = 3;

/// Where a page begins: after this one, in the order of the list.
struct Place {
    failed_at: Timestamp,
    id: Uuid,
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (failed_at, id) = text.split_once('_').ok_or(())?;
        Ok(Self { failed_at: failed_at.parse().map_err(|_| ())?, id: id.parse().map_err(|_| ())? })
    }
}

/// A page of dead letters.
pub(crate) async fn dead_letters(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Params(query): Params<PageQuery>,
) -> Result<Json<DeadLetterPage>, Error> {
    let page = PageOf::<Place>::of(&query)?;
    let (failed_at, id) = page.cursor.as_ref().map(|place| (place.failed_at, place.id)).unzip();
    let rows = app.db.rows(DEAD_LETTERS, &[&token.bytes(), &failed_at, &id, &page.limit]).await?;
    let items = items(&rows, dead_letter)?;
    Ok(Json(page.page(items, |last| format!("{}_{}", last.failed_at, last.execution_id))))
}

fn dead_letter(row: &Row) -> Result<DeadLetter, Error> {
    Ok(DeadLetter {
        execution_id: ExecutionId(row.try_get("execution_id")?),
        job_id: JobId(row.try_get("job_id")?),
        job_name: row.try_get("job_name")?,
        attempts: row.try_get("attempts")?,
        reason: row.try_get("reason")?,
        failed_at: row.try_get("failed_at")?,
    })
}

/// Retries one dead letter: a new execution; asked twice, the same one.
pub(crate) async fn retry(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<ExecutionId>,
) -> Result<(StatusCode, Json<RetryResponse>), Error> {
    for _ in 0..LOOKS {
        let binds: [&dyn crate::store::Bind; 5] =
            [&token.bytes(), &Some(id.0), &None::<Uuid>, &None::<Timestamp>, &1_i64];
        let made = retried(app.db.row(RETRY, &binds).await?)?;
        let earlier = match made.first() {
            Some(new) => Some(*new),
            None => retried_before(&app, &token, id).await?,
        };
        if let Some(new) = earlier {
            let response = RetryResponse { execution_id: ExecutionId(new), retried_from: id };
            return Ok((StatusCode::CREATED, Json(response)));
        }
    }
    Err(Error::TimedOut)
}

/// The executions that a retry made, if the tenant's rate allowed them.
fn retried(row: Option<Row>) -> Result<Vec<Uuid>, Error> {
    let row = row.ok_or_else(Error::unauthorized)?;
    match row.try_get("wait_seconds")? {
        Some(wait) => Err(Error::rate_limited(wait)),
        None => Ok(row.try_get::<_, Option<_>>("execution_ids")?.unwrap_or_default()),
    }
}

/// A fresh look: what an earlier retry made. `None` while a concurrent one is at it.
async fn retried_before(
    app: &App,
    token: &crate::request::TokenHash,
    id: ExecutionId,
) -> Result<Option<Uuid>, Error> {
    let row = app.db.row(RETRIED, &[&token.bytes(), &id.0]).await?.ok_or_else(not_dead)?;
    let retried_as: Option<Uuid> = row.try_get("retried_as")?;
    if retried_as.is_none() && row.try_get("job_deleted")? {
        return Err(Error::refused(ErrorCode::JobNotFound, "its job was deleted and runs no more"));
    }
    Ok(retried_as)
}

fn not_dead() -> Error {
    Error::refused(ErrorCode::DeadLetterNotFound, "that execution is not a dead letter")
}

/// Retries many, oldest first.
pub(crate) async fn retry_many(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Checked { value: request, .. }: Checked<RetryDeadLetters>,
) -> Result<Json<RetriedResponse>, Error> {
    let limit = i64::from(request.limit.unwrap_or(limits::MAX_PAGE));
    let job = request.job_id.map(|id| id.0);
    let row =
        app.db.row(RETRY, &[&token.bytes(), &None::<Uuid>, &job, &request.failed_before, &limit]).await?;
    let made = retried(row)?;
    Ok(Json(RetriedResponse { retried: u32::try_from(made.len()).unwrap_or(u32::MAX) }))
}

/// Takes one off the list; the execution's history stays.
pub(crate) async fn delete(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<ExecutionId>,
) -> Result<StatusCode, Error> {
    let row = app.db.row(DELETE, &[&token.bytes(), &id.0]).await?.ok_or_else(Error::unauthorized)?;
    if row.try_get("deleted")? { Ok(StatusCode::NO_CONTENT) } else { Err(not_dead()) }
}
