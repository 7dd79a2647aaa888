//! Everything that can go wrong, and the one place where it becomes a status, a code and a sentence.

use crate::database::ConnectError;
use crate::{ConfigError, aws};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool::managed::PoolError;
use jobplane_protocol::{ErrorCode, FieldError, Problem};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// How long a caller waits before it tries again what could not be served, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The longest wait that an answer names, in seconds.
const MAX_WAIT_SECONDS: f64 = 1e6;

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller is told, and can act on it.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The tenant's rate limit; the bucket has room again after so many seconds.
    #[error("rate limit, {retry_after_seconds} s to wait")]
    RateLimited {
        /// Whole seconds until the same call passes, at least one.
        retry_after_seconds: u64,
    },
    /// No connection to PostgreSQL was to be had in time.
    #[error("no database connection: {0}")]
    Connection(#[from] PoolError<ConnectError>),
    /// The one connection that was wanted could not be made.
    #[error("no database connection: {0}")]
    Connect(#[from] ConnectError),
    /// The operator's token could not be read from its secret.
    #[error("the operator's token: {0}")]
    AdminSecret(#[from] aws::Error),
    /// PostgreSQL refused or failed a statement.
    #[error("database: {}", source_of(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A statement took too long.
    #[error("a statement took too long")]
    TimedOut,
    /// A handler panicked; the log says where.
    #[error("a panic")]
    Panicked,
    /// The settings are such that nothing can be served.
    #[error("nothing can be served: {0}")]
    Unserved(std::sync::Arc<Self>),
    /// A migration failed; the ones before it stay applied.
    #[error("migration: {0}")]
    Migration(#[from] refinery::Error),
    /// The database belongs to something else, of which this is one table.
    #[error(
        "the database holds tables of something else, such as {0}; jobplane needs one of its own, whose planner \
         settings it changes: `create database jobplane`"
    )]
    ForeignDatabase(String),
    /// A row held what its schema should have kept out.
    #[error("stored data: {0}")]
    Stored(String),
    /// A setting is missing or not acceptable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process could not be set up.
    #[error("{0}")]
    Setup(&'static str),
}

/// tokio-postgres says what PostgreSQL said, and what broke a connection, only in its source.
pub(crate) fn source_of(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) if !error.to_string().contains(&source.to_string()) => {
            format!("{error}: {source}")
        }
        _ => error.to_string(),
    }
}

impl Error {
    /// A refusal with this code and this sentence.
    pub(crate) fn refused(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(Problem::new(code, detail)))
    }

    /// A refusal that names fields.
    pub(crate) fn fields(code: ErrorCode, errors: Vec<FieldError>) -> Self {
        let mut problem = Problem::new(code, "the request was refused, nothing was changed; see errors");
        problem.errors = errors;
        Self::Refused(Box::new(problem))
    }

    /// A refusal of one field.
    pub(crate) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::fields(ErrorCode::InvalidRequest, vec![FieldError::new(field, detail)])
    }

    /// A refusal by the tenant's rate limit, which has room again after so long.
    pub(crate) fn rate_limited(wait_seconds: f64) -> Self {
        let wait = Duration::from_secs_f64(wait_seconds.clamp(0.0, MAX_WAIT_SECONDS));
        Self::RateLimited { retry_after_seconds: wait.as_secs() + 1 }
    }

    /// No token, or none that is known and still good.
    pub(crate) fn unauthorized() -> Self {
        Self::refused(
            ErrorCode::Unauthorized,
            "send `Authorization: Bearer TOKEN` with a token that is known, not revoked and not expired",
        )
    }

    /// The problem to answer, and how long to wait before trying again.
    pub(crate) fn problem(&self) -> (Problem, Option<u64>) {
        match self {
            Self::Refused(problem) => {
                let wait = (problem.code == ErrorCode::Unavailable).then_some(RETRY_AFTER_SECONDS);
                (Problem::clone(problem), wait)
            }
            Self::RateLimited { retry_after_seconds } => {
                let detail =
                    format!("the tenant's rate limit is reached; try again in {retry_after_seconds} s");
                (Problem::new(ErrorCode::RateLimited, detail), Some(*retry_after_seconds))
            }
            Self::Database(error) if is_away(error) => unavailable(),
            Self::Connection(_) | Self::Connect(_) | Self::TimedOut => unavailable(),
            Self::AdminSecret(_) => {
                let detail = "the operator's token cannot be read for now; try again";
                (Problem::new(ErrorCode::Unavailable, detail), Some(RETRY_AFTER_SECONDS))
            }
            Self::Database(error) if is_data(error) => {
                let detail = "a value cannot be stored: out of range, or text with U+0000";
                (Problem::new(ErrorCode::InvalidRequest, detail), None)
            }
            Self::Unserved(_) => {
                let detail = "the controller is not set up; its log says what is wrong";
                (Problem::new(ErrorCode::Unavailable, detail), Some(RETRY_AFTER_SECONDS))
            }
            Self::Database(_)
            | Self::Panicked
            | Self::Migration(_)
            | Self::ForeignDatabase(_)
            | Self::Stored(_)
            | Self::Config(_)
            | Self::Setup(_) => (
                Problem::new(ErrorCode::Internal, "the controller failed; the same call may be tried again"),
                None,
            ),
        }
    }
}

fn unavailable() -> (Problem, Option<u64>) {
    let detail = "the database is away or full; whether the call took effect is not known: repeat it";
    (Problem::new(ErrorCode::Unavailable, detail), Some(RETRY_AFTER_SECONDS))
}

/// The connection broke, or the server is starting, stopping or full (classes 08, 53 and 57).
fn is_away(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => ["08", "53", "57"].iter().any(|class| code.code().starts_with(class)),
        None => {
            error.is_closed()
                || std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
        }
    }
}

/// PostgreSQL cannot represent a value that the checks let through (class 22).
fn is_data(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("22"))
}

/// Turns the violation of this unique constraint into `name_taken`.
pub(crate) fn taken(constraint: &str, what: &str) -> impl FnOnce(Error) -> Error {
    move |error| match &error {
        Error::Database(db)
            if db.code() == Some(&SqlState::UNIQUE_VIOLATION)
                && db.as_db_error().and_then(|db| db.constraint()) == Some(constraint) =>
        {
            Error::refused(ErrorCode::NameTaken, format!("{what} of that name exists"))
        }
        _ => error,
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (problem, retry_after) = self.problem();
        if problem.status >= 500 {
            tracing::error!(code = ?problem.code, cause = %self, "request failed");
        }
        answer(&problem, retry_after)
    }
}

/// A problem document.
fn answer(problem: &Problem, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_string(problem).unwrap_or_default();
    let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
