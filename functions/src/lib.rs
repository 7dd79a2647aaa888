//! The control plane: stateless functions over one PostgreSQL, the same handlers in Lambda and on one machine.

mod aws;
mod config;
mod database;
mod deployment;
mod error;
mod housekeeping;
mod invocation;
pub mod lambda;
mod migrations;
mod openapi;
mod operator;
mod request;
mod retention;
pub mod routes;
mod rows;
mod store;

pub use aws::Error as AwsError;
pub use config::{Config, ConfigError, Database};
pub use database::ConnectError;
pub use deployment::prepare;
pub use error::Error;
pub use housekeeping::{Swept, sweep};
pub use migrations::{migrate, schema_version};
pub use openapi::document as openapi_document;

use jobplane_protocol::{Token, TokenKind};
use operator::Operator;
use store::Db;

/// What every handler shares: the pool and the settings. Cheap to clone.
#[derive(Clone)]
pub struct App {
    db: Db,
    operator: std::sync::Arc<Operator>,
    cell: std::sync::Arc<str>,
    lease_seconds: i32,
    keep_days: i32,
    keep_dead_letters_days: i32,
}

impl App {
    /// Makes the pool; connects only when a request needs it.
    pub fn new(config: &Config) -> Result<Self, Error> {
        if !Token::names_cell(&config.cell) {
            return Err(Error::Setup("JOBPLANE_CELL must be letters, digits and - only"));
        }
        config.check()?;
        Ok(Self {
            db: Db::new(config)?,
            operator: Operator::of(config)?.into(),
            cell: config.cell.as_str().into(),
            lease_seconds: config.lease_seconds,
            keep_days: config.keep_days,
            keep_dead_letters_days: config.keep_dead_letters_days,
        })
    }

    /// Makes a token of this cell.
    fn mint(&self, kind: TokenKind) -> Token {
        // Three version 4 UUIDs carry 366 random bits from the operating system; the hash spreads them over 256.
        let mut seed = [0; 48];
        for part in seed.chunks_exact_mut(16) {
            part.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        use sha2::Digest;
        Token::mint(kind, &self.cell, sha2::Sha256::digest(seed).into())
    }
}

/// This machine's clock, for what is no state of the platform: a signature's time, an invocation's end, a freeze.
#[allow(clippy::disallowed_methods, reason = "none of this is compared with a time of the database")]
fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// The whole table of routes as one service.
pub fn router(app: App) -> axum::Router {
    routes::serve(app, |_| true)
}
