//! What must happen without anybody asking: due rows move into line, dead workers' leases end, old rows go.
//!
//! Nobody's job and everybody's: about once a second, fleet-wide, one dequeue ticks; the scheduled sweep does the
//! same and the slow work, so that the system also moves when no worker polls.

use crate::routes::result::Ends;
use crate::store::{self, Db};
use crate::{App, Error};
use jobplane_protocol::limits;
use tokio_postgres::Row;

/// Rows of each kind that one tick moves, so that no transaction grows without bound.
const BATCH: i64 = 5_000;
/// Leases that one tick ends: each is a few rows more than the other kinds.
const EXPIRE_BATCH: i64 = 1_000;
/// How far ahead of now partitions are made, in days.
const PARTITION_DAYS_AHEAD: i32 = 30;
/// A full lane's worth of rank: one row of a tenant of weight 1 at priority 0. Divides well by the weights.
pub(crate) const RANK_UNIT: i32 = 1 << 20;

const TICK: &str = include_str!("store/tick.sql");
const TICK_AGAIN: &str = include_str!("store/tick_again.sql");
const EXPIRING: &str = include_str!("store/expiring.sql");
const DUE: &str = include_str!("store/due.sql");
const STRAGGLERS: &str = include_str!("store/stragglers.sql");
const PARTITIONS: &str = include_str!("store/partitions.sql");
const ROTATE: &str = include_str!("store/rotate.sql");
const ROTATION_DUE: &str = include_str!("store/rotation_due.sql");
const FORGET: &str = include_str!("store/forget.sql");

/// What one tick did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticked {
    expired: i64,
    due: i64,
    stragglers: i64,
}

/// Does the once-a-second work if it is due and nobody else is at it. A transaction of its own: several
/// statements, because each must see what the one before did, and all of them happen under the tick's lock.
pub(crate) async fn tick(app: &App) -> Result<Option<Ticked>, Error> {
    let mut connection = app.db.connection().await?;
    let transaction = connection.transaction().await?;
    let client = transaction.client();
    let won = store::rows(client, TICK, &[&f64::from(app.lease_seconds)]).await?;
    let Some(won) = won.first() else { return Ok(None) };
    let expired = if won.try_get("may_expire")? { expire(client).await? } else { 0 };
    let due = count(&store::rows(client, DUE, &[&BATCH, &RANK_UNIT]).await?)?;
    let stragglers = count(&store::rows(client, STRAGGLERS, &[&BATCH]).await?)?;
    if expired == EXPIRE_BATCH || due == BATCH || stragglers == BATCH {
        store::rows(client, TICK_AGAIN, &[]).await?;
    }
    transaction.commit().await?;
    Ok(Some(Ticked { expired, due, stragglers }))
}

/// Ends the attempts whose leases ran out, as a result that the controller itself reports.
async fn expire(client: &tokio_postgres::Client) -> Result<i64, Error> {
    let expiring = store::rows(client, EXPIRING, &[&EXPIRE_BATCH]).await?;
    let mut ends = Ends::default();
    for row in &expiring {
        let outcome: &str = row.try_get("outcome")?;
        ends.push_ended(
            row.try_get("execution_id")?,
            row.try_get("lease_id")?,
            outcome,
            row.try_get("error")?,
        );
    }
    if !expiring.is_empty() {
        ends.run_as_controller(client).await?;
    }
    Ok(i64::try_from(expiring.len()).unwrap_or(i64::MAX))
}

fn count(rows: &[Row]) -> Result<i64, Error> {
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}

/// What one sweep did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Attempts that were ended because their leases ran out.
    pub expired: i64,
    /// Executions that were moved into line because their time had come.
    pub due: i64,
    /// Rows that were found behind the watermark.
    pub stragglers: i64,
    /// Partitions that were made ahead.
    pub partitions: i32,
    /// Idempotency keys that were forgotten.
    pub forgotten: i64,
    /// Whether a new hour of remembered dequeues began.
    pub rotated: bool,
}

/// One round of the scheduled housekeeping, such as once a minute. Safe to run twice at once.
pub async fn sweep(app: &App) -> Result<Swept, Error> {
    let db = &app.db;
    let mut swept = Swept::default();
    if let Some(ticked) = tick(app).await? {
        (swept.expired, swept.due, swept.stragglers) = (ticked.expired, ticked.due, ticked.stragglers);
    }
    if let Some(row) = db.row(PARTITIONS, &[&PARTITION_DAYS_AHEAD]).await? {
        swept.partitions = row.try_get("made")?;
    }
    swept.forgotten = count(&db.rows(FORGET, &[&limits::IDEMPOTENCY_HOURS, &BATCH]).await?)?;
    swept.rotated = rotate(db).await?;
    Ok(swept)
}

/// Begins a new hour of remembered dequeues when the current one is over.
async fn rotate(db: &Db) -> Result<bool, Error> {
    let mut connection = db.connection().await?;
    let transaction = connection.transaction().await?;
    // Locks the tick's row, so that of two sweeps at once only one rotates.
    if store::rows(transaction.client(), ROTATION_DUE, &[]).await?.is_empty() {
        return Ok(false);
    }
    transaction.batch_execute(ROTATE).await?;
    transaction.commit().await?;
    Ok(true)
}
