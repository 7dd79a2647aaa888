//! Every setting of the control plane, read in one place from the environment.

use std::env;

/// What a function needs to know before it can answer.
#[derive(Clone)]
pub struct Config {
    /// `DATABASE_URL`: where PostgreSQL is.
    pub database_url: String,
    /// `JOBPLANE_ADMIN_TOKEN`: the operator's token, `jp_admin_CELL_…`. Without it the admin routes
    /// answer 401 to everyone.
    pub admin_token: Option<String>,
    /// `JOBPLANE_CELL`: the name of this stack, part of every token it mints; `local` when absent.
    pub cell: String,
    /// `JOBPLANE_POOL_SIZE`: connections of one process, 1 to 100; 2 when absent, which suits a copy
    /// that serves one request at a time.
    pub pool_size: usize,
}

/// A setting that is missing or not acceptable.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl Config {
    /// Reads the settings from the environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        let setting = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let pool_size = setting("JOBPLANE_POOL_SIZE").map_or(Ok(2), |text| match text.parse() {
            Ok(size @ 1..=100) => Ok(size),
            _ => {
                Err(ConfigError { name: "JOBPLANE_POOL_SIZE", problem: format!("{text:?} is not 1 to 100") })
            }
        })?;
        Ok(Self {
            database_url: setting("DATABASE_URL")
                .ok_or(ConfigError { name: "DATABASE_URL", problem: "is not set".to_owned() })?,
            admin_token: setting("JOBPLANE_ADMIN_TOKEN"),
            cell: setting("JOBPLANE_CELL").unwrap_or_else(|| "local".to_owned()),
            pool_size,
        })
    }
}
