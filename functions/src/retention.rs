//! How long facts are kept: every fact has a partition for each week, made ahead and dropped behind.

use crate::store::Db;
use crate::{App, Error};
use jiff::Timestamp;
use uuid::Uuid;

/// How far ahead of now weeks are made, in days.
const DAYS_AHEAD: i32 = 30;
/// Weeks that one sweep drops.
const DROP_AT_MOST: i32 = 8;
/// Rows that may live on when a week is dropped, with what was kept before. With more of them the week stays.
const LIVE_ON_AT_MOST: i32 = 100_000;

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
        db.connection().await?.batch_execute(VALIDATE).await?;
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
    for dropped in 0..DROP_AT_MOST {
        let row = app.db.row(DROP, &[&app.keep_days, &app.keep_dead_letters_days, &LIVE_ON_AT_MOST]).await?;
        match row.map(|row| row.try_get::<_, Option<String>>("dropped")).transpose()?.flatten() {
            Some(week) => tracing::info!(week, "its time was over: dropped"),
            None => return Ok(dropped),
        }
    }
    Ok(DROP_AT_MOST)
}

/// What a statement answers that says whether it did something.
async fn yes(db: &Db, sql: &str, binds: &[&dyn crate::store::Bind]) -> Result<bool, Error> {
    Ok(db.row(sql, binds).await?.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}
