//! Bringing the database to this build's schema.

use crate::config::Database;
use crate::database::Login;
use crate::store::Db;
use crate::{Error, routes::health};
use tokio_postgres::Client;

mod embedded {
    refinery::embed_migrations!("../migrations");
}

/// The advisory lock under which migrations run; any number will do as long as it stays.
const LOCK: i64 = 0x6a6f_6270_6c61_6e65;

/// A table of somebody else's in a database that was never migrated.
const FOREIGN: &str = include_str!("store/foreign_table.sql");

/// The schema that this build wants: the version of its newest migration.
pub fn schema_version() -> i32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|m| i64::from(m.version()))
        .max()
        .map_or(0, |v| i32::try_from(v).unwrap_or(i32::MAX))
}

/// Brings the database to this build's schema and answers its version. Several may call it at once: an advisory
/// lock lets one go first. Needs a direct connection, since a transaction pooler keeps no session lock, as the database's
/// owner.
///
/// # Errors
/// [`Error::ForeignDatabase`] when something else lives in the database, which is left as it is; [`Error::Migration`] when
/// it was migrated by another build and the two do not agree.
pub async fn migrate(database: &Database) -> Result<i32, Error> {
    let mut client = Login::new(database)?.connect().await?;
    client.query_typed("select pg_advisory_lock($1)", &[(&LOCK, tokio_postgres::types::Type::INT8)]).await?;
    let ran = run(&mut client).await;
    // The lock goes with the session.
    client.close().await;
    ran?;
    Ok(schema_version())
}

async fn run(client: &mut Client) -> Result<(), Error> {
    if let Some(row) = client.query_typed(FOREIGN, &[]).await?.first() {
        return Err(Error::ForeignDatabase(row.try_get("name")?));
    }
    // A newer build's are left as they are: what it adds is of no harm to this one, which a deployment that is undone asks.
    embedded::migrations::runner().set_abort_missing(false).run_async(client).await?;
    Ok(())
}

/// The version of the newest migration that was applied.
pub(crate) async fn applied(db: &Db) -> Result<i32, Error> {
    let row = db.row(health::APPLIED, &[]).await?;
    Ok(row.map(|row| row.try_get::<_, Option<i32>>("version")).transpose()?.flatten().unwrap_or_default())
}
