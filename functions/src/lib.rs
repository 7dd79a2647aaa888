//! The control plane: stateless functions over one PostgreSQL, the same handlers in Lambda and on one machine.

mod config;

pub use config::{Config, ConfigError};

/// What every handler shares: the pool and the settings.
#[derive(Clone)]
pub struct App {}

impl App {
    /// Makes the pool; connects only when a request needs it.
    pub fn new(_config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {})
    }
}

/// The whole table of routes as one service.
pub fn router(_app: App) -> axum::Router {
    axum::Router::new()
}

/// Brings the database to this build's schema, under an advisory lock. Answers the schema's version.
pub async fn migrate(_database_url: &str) -> Result<i32, Error> {
    Ok(0)
}

/// What one sweep did.
#[derive(Debug, Default)]
pub struct Swept {}

/// One round of the scheduled housekeeping, such as once a minute.
pub async fn sweep(_app: &App) -> Result<Swept, Error> {
    Ok(Swept {})
}

/// Why a statement or a route did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct Error;
