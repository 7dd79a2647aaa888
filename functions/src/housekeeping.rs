//! What must happen without anybody asking: due rows move into line, dead workers' leases end, old rows go.
//!
//! Nobody's job and everybody's: about once a second, fleet-wide, one dequeue ticks; the scheduled sweep does the
//! same and the slow work, so that the system also moves when no worker polls.

use crate::routes::result::Ends;
use crate::store::{self, Db};
use crate::{App, Error, invocation, retention};
use jiff::Timestamp;
use jobplane_protocol::limits;
use std::time::Instant;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

/// Rows of each kind that one tick moves, so that no transaction grows without bound.
const BATCH: i64 = 5_000;
/// Rows that fell due which one tick moves. What its claim took is answered after it: a tenth of a second more would be in
/// many waits while a million fall due.
const DUE_BATCH: i64 = 500;
/// Leases that one tick ends: each is a few rows more than the other kinds.
const EXPIRE_BATCH: i64 = 1_000;
/// Batches of idempotency keys that one sweep forgets.
const FORGET_BATCHES: usize = 200;
/// A full lane's worth of rank: one row of a tenant of weight 1 at priority 0. Divides well by the weights.
pub(crate) const RANK_UNIT: i32 = 1 << 20;

/// Tenants whose parked rows one tick looks after. Results do that all the time; this is for what they missed.
const PARKED_TENANTS: i32 = 500;
/// How much longer than a look behind the watermarks took no other is made: while an old transaction keeps dead rows
/// from being vacuumed it reads them all, and may take a fiftieth of one connection.
const LOOK_BEHIND_REST: f64 = 50.0;

/// How long one statement of the tick may take, while all others wait for it.
const STEP_LIMIT: &str = "set local statement_timeout = '20s'";
const TICK: &str = include_str!("store/tick.sql");
const TICKED: &str = include_str!("store/ticked.sql");
const EXPIRING: &str = include_str!("store/expiring.sql");
const DUE: &str = include_str!("store/due.sql");
const STRAGGLERS: &str = include_str!("store/stragglers.sql");
const PARKED_TENANTS_NEXT: &str = include_str!("store/parked_tenants.sql");
const ADMIT: &str = include_str!("store/admit.sql");
const ROTATE: &str = include_str!("store/rotate.sql");
const ROTATION_DUE: &str = include_str!("store/rotation_due.sql");
const IDLE_MARKS: &str = include_str!("store/idle_marks.sql");
const FORGET: &str = include_str!("store/forget.sql");

/// What one tick did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticked {
    expired: i64,
    due: i64,
    stragglers: i64,
    admitted: i64,
}

/// Does the once-a-second work if it is due and nobody else is at it, in a transaction of its own that holds the tick's
/// lock. Its steps are statements of their own, because each must see what the one before did, and each is undone by
/// itself when it fails.
pub(crate) async fn tick(app: &App) -> Result<Option<Ticked>, Error> {
    app.db.with(None, async |connection| tick_on(app, connection).await).await
}

async fn tick_on(app: &App, connection: &mut tokio_postgres::Client) -> Result<Option<Ticked>, Error> {
    let mut transaction = connection.transaction().await?;
    transaction.batch_execute(STEP_LIMIT).await?;
    let won = store::rows(transaction.client(), TICK, &[&f64::from(app.lease_seconds)]).await?;
    let Some(won) = won.first() else { return Ok(None) };
    let look_behind = won.try_get("look_behind")?;
    let expire_before: Option<Timestamp> = won.try_get("expire_before")?;
    let began = Instant::now();

    let ended =
        step(&mut transaction, async |client| expire(client, look_behind, expire_before).await).await?;
    let due = step(&mut transaction, async |client| move_due(client, look_behind).await).await?;
    let stragglers =
        step(&mut transaction, async |client| look_behind_marks(client, look_behind).await).await?;
    let rest = look_behind.then(|| (began.elapsed().as_secs_f64() * LOOK_BEHIND_REST).max(1.0));
    let next = store::rows(transaction.client(), PARKED_TENANTS_NEXT, &[&PARKED_TENANTS]).await?;
    let next = next.first().ok_or_else(|| Error::Stored("a count without a row".to_owned()))?;
    let last: Uuid = next.try_get("last")?;
    // A step that failed has left what it was to do.
    let all_expired = expire_before.is_none() && ended.as_ref().is_some_and(|ended| !ended.more);
    let (ended, due, stragglers) =
        (ended.unwrap_or_default(), due.unwrap_or_default(), stragglers.unwrap_or_default());
    let mut tenants: Vec<Uuid> = next.try_get::<_, Option<_>>("tenants")?.unwrap_or_default();
    tenants.extend([ended.tenants, due.tenants].concat());
    let admitted =
        step(&mut transaction, async |client| let_in(client, &tenants).await).await?.unwrap_or_default();

    let is_full = ended.more || due.more || [stragglers, admitted].contains(&BATCH);
    // As long as this one took, others have the machine to themselves.
    let next_in = if is_full { began.elapsed().as_secs_f64() * 2.0 } else { 1.0 };
    store::rows(transaction.client(), TICKED, &[&next_in, &all_expired, &rest, &last]).await?;
    transaction.commit().await?;
    Ok(Some(Ticked { expired: ended.count, due: due.count, stragglers, admitted }))
}

/// One step of the tick. What it did is undone if it fails, which is logged, and the others go on: a row that cannot be
/// moved must not keep everyone's from moving. None if it failed.
async fn step<T>(
    tick: &mut Transaction<'_>,
    work: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let savepoint = tick.transaction().await?;
    match work(savepoint.client()).await {
        Ok(done) => {
            savepoint.commit().await?;
            Ok(Some(done))
        }
        // There is no time for the others.
        Err(error) if invocation::is_over() => Err(error),
        Err(error) => {
            tracing::error!(cause = %error, "a step of the tick failed; the next tick tries it again");
            savepoint.rollback().await?;
            Ok(None)
        }
    }
}

/// What a step moved.
#[derive(Default)]
struct Moved {
    count: i64,
    /// Whether there is more, so that the next tick is due sooner.
    more: bool,
    /// The tenants that have rows to let in.
    tenants: Vec<Uuid>,
}

async fn move_due(client: &tokio_postgres::Client, look_behind: bool) -> Result<Moved, Error> {
    let rows = store::rows(client, DUE, &[&DUE_BATCH, &RANK_UNIT, &look_behind]).await?;
    let Some(row) = rows.first() else { return Ok(Moved::default()) };
    let tenants = row.try_get::<_, Option<_>>("limited_tenants")?.unwrap_or_default();
    Ok(Moved { count: row.try_get("moved")?, more: row.try_get("crowded")?, tenants })
}

async fn look_behind_marks(client: &tokio_postgres::Client, is_due: bool) -> Result<i64, Error> {
    if !is_due {
        return Ok(0);
    }
    store::rows(client, IDLE_MARKS, &[]).await?;
    count(&store::rows(client, STRAGGLERS, &[&BATCH]).await?)
}

async fn let_in(client: &tokio_postgres::Client, tenants: &Vec<Uuid>) -> Result<i64, Error> {
    if tenants.is_empty() {
        return Ok(0);
    }
    count(&store::rows(client, ADMIT, &[tenants, &BATCH, &RANK_UNIT]).await?)
}

/// Lets parked rows of these tenants stand in line as far as there is room under their limits. To be called after what
/// made room, or parked a row, is committed: of two that do so at once, the later one then sees both. What fails here is
/// mended by a tick.
pub(crate) async fn admit(app: &App, mut tenants: Vec<Uuid>) {
    tenants.sort_unstable();
    tenants.dedup();
    if tenants.is_empty() {
        return;
    }
    if let Err(error) = app.db.rows(ADMIT, &[&tenants, &BATCH, &RANK_UNIT]).await {
        tracing::warn!(cause = %error, "what is parked stays so until the next tick");
    }
}

/// Ends the attempts whose leases ran out, only before this if that is given, as a result that the controller itself
/// reports; the tenants are those whose limits have room again.
async fn expire(
    client: &tokio_postgres::Client,
    look_behind: bool,
    before: Option<Timestamp>,
) -> Result<Moved, Error> {
    let expiring = store::rows(client, EXPIRING, &[&EXPIRE_BATCH, &look_behind, &before]).await?;
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
    let count = i64::try_from(expiring.len()).unwrap_or(i64::MAX);
    let tenants = if count == 0 { Vec::new() } else { ends.run_as_controller(client).await? };
    Ok(Moved { count, more: count == EXPIRE_BATCH, tenants })
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
    /// Rows that were let in from behind a concurrency limit.
    pub admitted: i64,
    /// Weeks that partitions were made for.
    pub weeks_made: i32,
    /// Weeks that were dropped because their time was over.
    pub weeks_dropped: i32,
    /// Idempotency keys that were forgotten.
    pub forgotten: i64,
    /// Whether a new hour of remembered dequeues began.
    pub rotated: bool,
}

/// One round of the scheduled housekeeping, such as once a minute. Safe to run twice at once.
///
/// # Errors
/// The first step's that failed. Each error is logged, and none keeps the steps after it from running.
pub async fn sweep(app: &App) -> Result<Swept, Error> {
    let db = &app.db;
    let mut failed = None;
    let ticked = done("tick", tick(app).await, &mut failed).unwrap_or_default();
    done("taking a promise back", retention::unbind(db).await, &mut failed);
    let swept = Swept {
        expired: ticked.expired,
        due: ticked.due,
        stragglers: ticked.stragglers,
        admitted: ticked.admitted,
        rotated: done("rotating the dequeues", rotate(db).await, &mut failed),
        forgotten: done("forgetting idempotency keys", forget(db).await, &mut failed),
        // In this order: whatever attaches a partition reads the default one, while others wait.
        weeks_made: done("settling rows without a week", retention::settle(db).await, &mut failed)
            + done("making weeks ahead", retention::make_ahead(db).await, &mut failed),
        weeks_dropped: done("dropping weeks behind", retention::drop_behind(app).await, &mut failed),
    };
    failed.map_or(Ok(swept), Err)
}

/// What a step did. Its error is logged and kept, if it is the first.
fn done<T: Default>(step: &str, result: Result<T, Error>, failed: &mut Option<Error>) -> T {
    result.unwrap_or_else(|error| {
        tracing::error!(step, cause = %error, "a step of the sweep failed; the next sweep tries it again");
        failed.get_or_insert(error);
        T::default()
    })
}

/// Forgets what nobody may repeat any more, batch by batch.
async fn forget(db: &Db) -> Result<i64, Error> {
    let mut forgotten = 0;
    for _ in 0..FORGET_BATCHES {
        let batch = count(&db.rows(FORGET, &[&limits::IDEMPOTENCY_HOURS, &BATCH]).await?)?;
        forgotten += batch;
        if batch < BATCH {
            break;
        }
    }
    Ok(forgotten)
}

/// Begins a new hour of remembered dequeues when the current one is over.
async fn rotate(db: &Db) -> Result<bool, Error> {
    db.with(None, async |connection| {
        let transaction = connection.transaction().await?;
        // Locks the tick's row, so that of two sweeps at once only one rotates.
        if store::rows(transaction.client(), ROTATION_DUE, &[]).await?.is_empty() {
            return Ok(false);
        }
        transaction.batch_execute(ROTATE).await?;
        transaction.commit().await?;
        Ok(true)
    })
    .await
}
