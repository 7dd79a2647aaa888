//! How long facts are kept: every fact has a partition for each week, made ahead and dropped behind.

use crate::store::{self, Db};
use crate::{App, Error};
use jiff::Timestamp;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How far ahead of now weeks are made, in days.
const DAYS_AHEAD: i32 = 30;
/// Weeks that one sweep drops.
const DROP_AT_MOST: i32 = 8;
/// Executions whose facts move in one transaction, where they live on after their week.
const MOVE_AT_ONCE: i32 = 20_000;
/// Bytes of lines after which it takes no more of them.
const MOVE_BYTES_AT_ONCE: i64 = 1 << 30;
/// How long one sweep begins to move facts and to drop weeks; the next sweep goes on.
const DROP_FOR: Duration = Duration::from_secs(20);
/// How long one such step may take: seconds, unless the files of a week are very large.
const STEP_LIMIT: &str = "set local statement_timeout = '5min'";

const MISSING: &str = include_str!("store/weeks_missing.sql");
const MAKE: &str = include_str!("store/week_make.sql");
const DROP: &str = include_str!("store/week_drop.sql");
const OVERFLOW: &str = include_str!("store/overflow.sql");
const BOUND: &str = include_str!("store/overflow_bound.sql");
const VALIDATE: &str = include_str!("store/overflow_validate.sql");
const SETTLE: &str = include_str!("store/overflow_settle.sql");
const UNBOUND: &str = include_str!("store/overflow_unbound.sql");

/// Makes the weeks ahead that are missing, and answers how many were. To be called after [`settle`], to which a week is
/// left whose rows lie in the default partition.
pub(crate) async fn make_ahead(db: &Db) -> Result<i32, Error> {
    let mut made = 0;
    for row in db.rows(MISSING, &[&DAYS_AHEAD]).await? {
        let week: Timestamp = row.try_get("week")?;
        made += i32::from(yes(db, MAKE, &[&week]).await?);
    }
    Ok(made)
}

/// Takes the promise of a sweep back that did not come to its end, or it would refuse rows some day.
pub(crate) async fn unbind(db: &Db) -> Result<(), Error> {
    db.row(UNBOUND, &[]).await.map(drop)
}

/// Makes a partition of the default one where rows lie in it, and answers whether it did. Three transactions, so that
/// the one that keeps others waiting does not also read what may be many rows.
pub(crate) async fn settle(db: &Db) -> Result<i32, Error> {
    let Some(row) = db.row(OVERFLOW, &[]).await? else { return Ok(0) };
    let (lower, upper): (Uuid, Uuid) = (row.try_get("lower")?, row.try_get("upper")?);
    if !row.try_get::<_, bool>("contiguous")? {
        let problem =
            "rows of the default partition lie on both sides of a week that exists; move them by hand";
        return Err(Error::Stored(problem.to_owned()));
    }
    if !yes(db, BOUND, &[&lower, &upper]).await? {
        return Ok(0);
    }
    let settled = async {
        db.with(None, async |connection| Ok(connection.batch_execute(VALIDATE).await?)).await?;
        yes(db, SETTLE, &[&lower, &upper]).await
    }
    .await;
    if settled.is_err() {
        unbind(db).await?;
    }
    settled.map(i32::from)
}

/// Drops the weeks whose time is over, oldest first, and answers how many.
pub(crate) async fn drop_behind(app: &App) -> Result<i32, Error> {
    let began = Instant::now();
    let mut dropped = 0;
    while dropped < DROP_AT_MOST && began.elapsed() < DROP_FOR {
        match drop_step(app).await? {
            (Some(week), Some(step)) if step == "dropped" => {
                tracing::info!(week, "its time was over: dropped");
                dropped += 1;
            }
            (_, Some(step)) if step == "moved" => {}
            (Some(week), _) => {
                tracing::warn!(
                    week,
                    "its time is over, but a long transaction holds the facts: it stays until then"
                );
                break;
            }
            (None, _) => break,
        }
    }
    Ok(dropped)
}

/// The next step towards dropping the oldest week, if its time is over: the week, and what was done with it. Not under
/// the limit of a call's statement: it would be taken for undone and be done all the same.
async fn drop_step(app: &App) -> Result<(Option<String>, Option<String>), Error> {
    let binds: [&dyn store::Bind; 4] =
        [&app.keep_days, &app.keep_dead_letters_days, &MOVE_AT_ONCE, &MOVE_BYTES_AT_ONCE];
    let stepped = app.db.with(None, async |connection| {
        let transaction = connection.transaction().await?;
        transaction.batch_execute(STEP_LIMIT).await?;
        let rows = store::rows(transaction.client(), DROP, &binds).await?;
        transaction.commit().await?;
        Ok(rows)
    });
    let rows = stepped.await?;
    let row = rows.first().ok_or_else(|| Error::Stored("a step without a row".to_owned()))?;
    Ok((row.try_get("week")?, row.try_get("step")?))
}

/// What a statement answers that says whether it did something.
async fn yes(db: &Db, sql: &str, binds: &[&dyn store::Bind]) -> Result<bool, Error> {
    Ok(db.row(sql, binds).await?.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}
