//! Every setting of the control plane, read in one place from the environment.

use jobplane_protocol::limits;
use std::env;
use std::ops::RangeInclusive;

/// What a function needs to know before it can answer.
#[derive(Clone)]
pub struct Config {
    /// `DATABASE_URL`: where PostgreSQL is.
    pub database_url: String,
    /// `JOBPLANE_ADMIN_TOKEN`: the operator's token, `jp_admin_CELL_…`. Without it the admin routes
    /// answer 401 to everyone.
    pub admin_token: Option<String>,
    /// `JOBPLANE_CELL`: the name of this stack, part of every token it mints: letters, digits and `-`; `local` when
    /// absent.
    pub cell: String,
    /// `JOBPLANE_POOL_SIZE`: connections of one process, 1 to 100; 2 when absent, which suits a copy
    /// that serves one request at a time.
    pub pool_size: usize,
    /// `JOBPLANE_LEASE_SECONDS`: how long a lease lasts without a heartbeat, and how far a heartbeat extends it,
    /// 5 to 3,600; 60 when absent. A shorter one finds a dead worker sooner and costs more heartbeats.
    pub lease_seconds: i32,
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
        let number = |name: &'static str, range: RangeInclusive<i32>, absent: i32| match setting(name) {
            None => Ok(absent),
            Some(text) => text.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
                let problem = format!("{text:?} is not {} to {}", range.start(), range.end());
                ConfigError { name, problem }
            }),
        };
        Ok(Self {
            database_url: setting("DATABASE_URL")
                .ok_or(ConfigError { name: "DATABASE_URL", problem: "is not set".to_owned() })?,
            admin_token: setting("JOBPLANE_ADMIN_TOKEN"),
            cell: setting("JOBPLANE_CELL").unwrap_or_else(|| "local".to_owned()),
            pool_size: number("JOBPLANE_POOL_SIZE", 1..=100, 2)?.unsigned_abs() as usize,
            lease_seconds: number(
                "JOBPLANE_LEASE_SECONDS",
                limits::MIN_LEASE_SECONDS..=limits::MAX_LEASE_SECONDS,
                limits::LEASE_SECONDS,
            )?,
        })
    }
}
