//! `/workers`: who was heard from, when, and what they hold.

use crate::request::{Admin, PageOf, Params};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use jobplane_protocol::{ExecutionId, PageQuery, TokenId, Worker, WorkerPage};
use tokio_postgres::Row;
use uuid::Uuid;

const WORKERS: &str = include_str!("../store/workers.sql");

/// Where a page begins: after this one, in the order of the list.
struct Place {
    last_seen_at: Timestamp,
    token_id: Uuid,
    worker_id: String,
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '_');
        let mut part = || parts.next().ok_or(());
        let last_seen_at = part()?.parse().map_err(|_| ())?;
        let token_id = part()?.parse().map_err(|_| ())?;
        Ok(Self { last_seen_at, token_id, worker_id: part()?.to_owned() })
    }
}

/// A page of workers.
pub(crate) async fn workers(
    State(app): State<App>,
    _: Admin,
    Params(query): Params<PageQuery>,
) -> Result<Json<WorkerPage>, Error> {
    let page = PageOf::<Place>::of(&query)?;
    let place = page.cursor.as_ref();
    let binds: [&dyn crate::store::Bind; 4] = [
        &place.map(|place| place.last_seen_at),
        &place.map(|place| place.worker_id.as_str()),
        &place.map(|place| place.token_id),
        &page.limit,
    ];
    let rows = app.db.rows(WORKERS, &binds).await?;
    let items = rows.iter().map(worker).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(page.page(items, |last| format!("{}_{}_{}", last.last_seen_at, last.token_id, last.worker_id))))
}

fn worker(row: &Row) -> Result<Worker, Error> {
    let executions: Option<Vec<Uuid>> = row.try_get("execution_ids")?;
    Ok(Worker {
        worker_id: row.try_get("worker_id")?,
        token_id: TokenId(row.try_get("token_id")?),
        last_seen_at: row.try_get("last_seen_at")?,
        running: row.try_get("running")?,
        executions: executions.unwrap_or_default().into_iter().map(ExecutionId).collect(),
    })
}
