//! `/jobs`: the definitions that executions are asked of.

use crate::error::taken;
use crate::housekeeping::admit;
use crate::request::{Checked, Id, PageOf, Params, TenantKey, missing};
use crate::rows::{items, priority, stored};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jobplane_protocol::{
    CreateJob, DEFAULT_QUEUE, Job, JobId, JobPage, PageQuery, Priority, RetryPolicy, UpdateJob,
};
use tokio_postgres::Row;
use uuid::Uuid;

const CREATE: &str = include_str!("../store/job_create.sql");
const UPDATE: &str = include_str!("../store/job_update.sql");
const DELETE: &str = include_str!("../store/job_delete.sql");
const JOBS: &str = include_str!("../store/jobs.sql");

/// An attempt's time limit where a job names none, in seconds.
const DEFAULT_TIMEOUT_SECONDS: i32 = 300;

/// Makes a job.
pub(crate) async fn create(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Checked { value: request, .. }: Checked<CreateJob>,
) -> Result<(StatusCode, Json<Job>), Error> {
    let env = text(&request.env)?;
    let row = app
        .db
        .row(
            CREATE,
            &[
                &token.bytes(),
                &request.name,
                &request.command,
                &request.image,
                &env,
                &request.queue.as_deref().unwrap_or(DEFAULT_QUEUE),
                &i16::from(request.priority),
                &request.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS),
                &request.max_running,
                &request.retry.max_attempts,
                &request.retry.backoff_seconds,
                &request.retry.backoff_factor,
                &request.retry.backoff_cap_seconds,
            ],
        )
        .await
        .map_err(taken("job_name", "a job"))?
        .ok_or_else(Error::unauthorized)?;
    within_priority(&row, Some(request.priority))?;
    Ok((StatusCode::CREATED, Json(job(&row)?)))
}

fn text(env: &std::collections::BTreeMap<String, String>) -> Result<String, Error> {
    serde_json::to_string(env).map_err(|error| Error::Stored(error.to_string()))
}

/// A tenant may not ask for more than its highest priority.
fn within_priority(row: &Row, asked: Option<Priority>) -> Result<(), Error> {
    let highest = priority(row.try_get("max_priority")?)?;
    match asked {
        Some(asked) if asked > highest => {
            Err(Error::field("priority", format!("this tenant's highest priority is {}", i16::from(highest))))
        }
        _ => Ok(()),
    }
}

fn job(row: &Row) -> Result<Job, Error> {
    Ok(Job {
        id: JobId(row.try_get("id")?),
        name: row.try_get("name")?,
        command: row.try_get("command")?,
        image: row.try_get("image")?,
        env: stored(row.try_get("env")?)?,
        queue: row.try_get("queue")?,
        priority: priority(row.try_get("priority")?)?,
        timeout_seconds: row.try_get("timeout_seconds")?,
        max_running: row.try_get("max_running")?,
        retry: RetryPolicy {
            max_attempts: row.try_get("max_attempts")?,
            backoff_seconds: row.try_get("backoff_seconds")?,
            backoff_factor: row.try_get("backoff_factor")?,
            backoff_cap_seconds: row.try_get("backoff_cap_seconds")?,
        },
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// A page of jobs.
pub(crate) async fn jobs(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Params(query): Params<PageQuery>,
) -> Result<Json<JobPage>, Error> {
    let page = PageOf::<Uuid>::of(&query)?;
    let rows = app.db.rows(JOBS, &[&token.bytes(), &None::<Uuid>, &page.cursor, &page.limit]).await?;
    let items = items(&rows, job)?;
    Ok(Json(page.page(items, |last| last.id.to_string())))
}

/// One job; a deleted one too.
pub(crate) async fn get(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<JobId>,
) -> Result<Json<Job>, Error> {
    let rows = app.db.rows(JOBS, &[&token.bytes(), &Some(id.0), &None::<Uuid>, &1_i64]).await?;
    items(&rows, job)?.pop().map(Json).ok_or_else(missing::<JobId>)
}

/// Changes a job.
pub(crate) async fn update(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<JobId>,
    Checked { value: request, .. }: Checked<UpdateJob>,
) -> Result<Json<Job>, Error> {
    let env = request.env.as_ref().map(text).transpose()?;
    let retry = request.retry.as_ref();
    let row = app
        .db
        .row(
            UPDATE,
            &[
                &token.bytes(),
                &id.0,
                &request.name,
                &request.command.is_some(),
                &request.command.clone().flatten(),
                &request.image.is_some(),
                &request.image.clone().flatten(),
                &env,
                &request.queue,
                &request.priority.map(i16::from),
                &request.timeout_seconds,
                &request.max_running.is_some(),
                &request.max_running.flatten(),
                &retry.map(|retry| retry.max_attempts),
                &retry.map(|retry| retry.backoff_seconds),
                &retry.map(|retry| retry.backoff_factor),
                &retry.map(|retry| retry.backoff_cap_seconds),
            ],
        )
        .await
        .map_err(taken("job_name", "a job"))
        .map_err(neither_command_nor_image)?
        .ok_or_else(Error::unauthorized)?;
    within_priority(&row, request.priority)?;
    if row.try_get::<_, Option<Uuid>>("id")?.is_none() {
        return Err(missing::<JobId>());
    }
    if request.max_running.is_some() {
        admit(&app, vec![row.try_get("tenant_id")?]).await;
    }
    Ok(Json(job(&row)?))
}

/// The schema refuses a job that has nothing to run.
fn neither_command_nor_image(error: Error) -> Error {
    match &error {
        Error::Database(db)
            if db.as_db_error().and_then(|db| db.constraint()) == Some("job_runs_something") =>
        {
            Error::field("command", "a job needs a command or an image")
        }
        _ => error,
    }
}

/// Takes a job away.
pub(crate) async fn delete(
    State(app): State<App>,
    TenantKey(token): TenantKey,
    Id(id): Id<JobId>,
) -> Result<StatusCode, Error> {
    let row = app.db.row(DELETE, &[&token.bytes(), &id.0]).await?.ok_or_else(Error::unauthorized)?;
    if row.try_get("deleted")? { Ok(StatusCode::NO_CONTENT) } else { Err(missing::<JobId>()) }
}
