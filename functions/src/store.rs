//! The pool, and how a statement is run: unnamed and with its types stated, so that a transaction pooler may stand
//! between. One statement to a file in `store/`, headed by what it guarantees.

use crate::database::{CONNECT_LIMIT, Connection, Login};
use crate::{Config, Error, invocation};
use deadpool::Runtime;
use deadpool::managed::{Object, Pool};
use jiff::Timestamp;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, error::SqlState};
use uuid::Uuid;

/// How long a call waits for a free connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// How long a new one may take to be made, with a secret that is read and a password that is refused once.
const CREATE_LIMIT: Duration = CONNECT_LIMIT.saturating_mul(2);
/// How long a statement may take before its caller is told to try again.
const STATEMENT_LIMIT: Duration = Duration::from_secs(25);
/// How long what is cancelled has to end: less than the end of an invocation keeps for it.
const CANCEL_LIMIT: Duration = Duration::from_millis(500);

/// The pool of connections to PostgreSQL.
#[derive(Clone)]
pub(crate) struct Db(Pool<Login>);

impl Db {
    /// Makes the pool; it connects when the first statement needs it.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let pool = Pool::builder(Login::new(&config.database)?)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECTION_WAIT))
            .create_timeout(Some(CREATE_LIMIT))
            .build()
            .map_err(|_| Error::Setup("the pool has no runtime"))?;
        Ok(Self(pool))
    }

    /// Works on a connection that nobody else has meanwhile, for as long as this or until the invocation ends; absent, only
    /// that. What runs then is cancelled: the database does not work on for a caller who is told that it did not.
    pub(crate) async fn with<T>(
        &self,
        limit: Option<Duration>,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let until = [invocation::give_up_at(), limit.map(|limit| Instant::now() + limit)];
        let Some(until) = until.into_iter().flatten().min() else {
            let mut connection = self.0.get().await?;
            return work(&mut connection).await;
        };
        let got = timeout_at(until, self.0.get()).await.map_err(|_| Error::TimedOut)?;
        let mut connection = got?;
        let cancel = connection.cancel();
        let late = {
            let mut work = pin!(work(&mut connection));
            match timeout_at(until, &mut work).await {
                Ok(done) => return done,
                Err(_) => {
                    let cancelled = async {
                        cancel.send().await;
                        work.await
                    };
                    timeout(CANCEL_LIMIT, cancelled).await
                }
            }
        };
        // It may be busy still, or the cancel may reach it only now: nobody else may get it.
        drop(Object::take(connection));
        match late {
            Ok(Err(Error::Database(error))) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                Err(Error::TimedOut)
            }
            Ok(done) => done,
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// Runs one statement in a transaction of its own. A deadlock undid it whole, so it is tried once more.
    pub(crate) async fn rows(&self, sql: &str, binds: &[&dyn Bind]) -> Result<Vec<Row>, Error> {
        let tried =
            self.with(Some(STATEMENT_LIMIT), async |connection| match rows(connection, sql, binds).await {
                Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                    Ok(rows(connection, sql, binds).await?)
                }
                tried => Ok(tried?),
            });
        tried.await
    }

    /// The first row of a statement that answers one or none.
    pub(crate) async fn row(&self, sql: &str, binds: &[&dyn Bind]) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql, binds).await?.into_iter().next())
    }
}

/// Runs one statement on this connection.
pub(crate) async fn rows(
    client: &tokio_postgres::Client,
    sql: &str,
    binds: &[&dyn Bind],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let typed: Vec<_> = binds.iter().map(|bind| (bind.sql(), bind.kind())).collect();
    client.query_typed(sql, &typed).await
}

/// A value that knows which type PostgreSQL is to take it for.
pub(crate) trait Bind: Send + Sync {
    /// The value.
    fn sql(&self) -> &(dyn ToSql + Sync);
    /// Its type.
    fn kind(&self) -> Type;
}

impl<T: Kind + ToSql + Send + Sync> Bind for T {
    fn sql(&self) -> &(dyn ToSql + Sync) {
        self
    }

    fn kind(&self) -> Type {
        T::KIND
    }
}

/// PostgreSQL's type for a Rust type, and for a list of it.
pub(crate) trait Kind {
    const KIND: Type;
    const LIST: Type;
}

impl Kind for bool {
    const KIND: Type = Type::BOOL;
    const LIST: Type = Type::BOOL_ARRAY;
}

impl Kind for i16 {
    const KIND: Type = Type::INT2;
    const LIST: Type = Type::INT2_ARRAY;
}

impl Kind for i32 {
    const KIND: Type = Type::INT4;
    const LIST: Type = Type::INT4_ARRAY;
}

impl Kind for i64 {
    const KIND: Type = Type::INT8;
    const LIST: Type = Type::INT8_ARRAY;
}

impl Kind for f64 {
    const KIND: Type = Type::FLOAT8;
    const LIST: Type = Type::FLOAT8_ARRAY;
}

impl Kind for &str {
    const KIND: Type = Type::TEXT;
    const LIST: Type = Type::TEXT_ARRAY;
}

impl Kind for String {
    const KIND: Type = Type::TEXT;
    const LIST: Type = Type::TEXT_ARRAY;
}

impl Kind for &[u8] {
    const KIND: Type = Type::BYTEA;
    const LIST: Type = Type::BYTEA_ARRAY;
}

impl Kind for Uuid {
    const KIND: Type = Type::UUID;
    const LIST: Type = Type::UUID_ARRAY;
}

impl Kind for Timestamp {
    const KIND: Type = Type::TIMESTAMPTZ;
    const LIST: Type = Type::TIMESTAMPTZ_ARRAY;
}

impl<T: Kind> Kind for Option<T> {
    const KIND: Type = T::KIND;
    const LIST: Type = T::LIST;
}

impl<T: Kind> Kind for Vec<T> {
    const KIND: Type = T::LIST;
    const LIST: Type = T::LIST;
}
