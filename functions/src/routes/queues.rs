//! `/queues`: how deep each line of work is, and holding it.

use crate::request::{Admin, AdminOrWorker, Body, Id, PageOf, Params, QueueName, missing};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jobplane_protocol::{PageQuery, Queue, QueuePage, UpdateQueue, limits};
use tokio_postgres::Row;

const QUEUES: &str = include_str!("../store/queues.sql");
const UPDATE: &str = include_str!("../store/queue_update.sql");

/// A page of queues.
pub(crate) async fn queues(
    State(app): State<App>,
    AdminOrWorker(token): AdminOrWorker,
    Params(query): Params<PageQuery>,
) -> Result<Json<QueuePage>, Error> {
    let page = PageOf::<String>::of(&query)?;
    let counted = i32::try_from(limits::MAX_COUNTED).unwrap_or(i32::MAX);
    let token = token.as_ref().map(|token| token.bytes());
    let rows = app.db.rows(QUEUES, &[&token, &page.cursor, &page.limit, &counted]).await?;
    let first = rows.first().ok_or_else(Error::unauthorized)?;
    let items = match first.try_get::<_, Option<&str>>("name")? {
        None => Vec::new(),
        Some(_) => rows.iter().map(queue).collect::<Result<_, _>>()?,
    };
    Ok(Json(page.page(items, |last| last.name.clone())))
}

fn queue(row: &Row) -> Result<Queue, Error> {
    let counts =
        [row.try_get("waiting")?, row.try_get("delayed")?, row.try_get("running")?, row.try_get("parked")?];
    let [waiting, delayed, running, parked] = counts.map(|count: i64| count.min(limits::MAX_COUNTED));
    Ok(Queue {
        name: row.try_get("name")?,
        waiting,
        delayed,
        running,
        parked,
        exact: counts.iter().all(|count| *count <= limits::MAX_COUNTED),
        oldest_waiting_seconds: row.try_get("oldest_waiting_seconds")?,
        as_of: row.try_get("as_of")?,
        paused: row.try_get("paused")?,
    })
}

/// Pauses or resumes a queue.
pub(crate) async fn update(
    State(app): State<App>,
    _: Admin,
    Id(QueueName(name)): Id<QueueName>,
    Body { value: request, .. }: Body<UpdateQueue>,
) -> Result<StatusCode, Error> {
    let row = app.db.row(UPDATE, &[&name, &request.paused]).await?;
    row.map(|_| StatusCode::NO_CONTENT).ok_or_else(missing::<QueueName>)
}
