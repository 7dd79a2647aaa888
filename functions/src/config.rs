//! Every setting of the control plane, read in one place from the environment.

use jobplane_protocol::limits;
use std::env;
use std::ops::RangeInclusive;

/// The most connections of one process.
const MAX_POOL_SIZE: i32 = 100;
const KEEP_DEAD_LETTERS: &str = "JOBPLANE_KEEP_DEAD_LETTERS_DAYS";

/// Connections of a copy of a function that serves one request at a time, and one to spare.
const FUNCTION_POOL_SIZE: i32 = 2;

/// Connections of a copy of a function: as many as Lambda hands requests to it at once (`AWS_LAMBDA_MAX_CONCURRENCY`, which
/// managed instances have).
pub(crate) fn function_pool_size() -> i32 {
    let at_once = env::var("AWS_LAMBDA_MAX_CONCURRENCY").ok().and_then(|text| text.parse().ok());
    at_once.unwrap_or(0).clamp(FUNCTION_POOL_SIZE, MAX_POOL_SIZE)
}

/// What a function needs to know before it can answer.
#[derive(Clone)]
pub struct Config {
    /// Where PostgreSQL is, and how to log in.
    pub database: Database,
    /// `JOBPLANE_ADMIN_TOKEN`: the operator's token, `jp_admin_CELL_…`. Without it and without its secret the admin routes
    /// answer 401 to everyone.
    pub admin_token: Option<String>,
    /// `JOBPLANE_ADMIN_TOKEN_SECRET`: the name or ARN of the secret of AWS Secrets Manager that is the operator's token, or its
    /// 64 hex digits.
    pub admin_token_secret: Option<String>,
    /// `JOBPLANE_CELL`: the name of this stack, part of every token it mints: letters, digits and `-`; `local` when
    /// absent.
    pub cell: String,
    /// `JOBPLANE_POOL_SIZE`: connections of one process, 1 to 100; when absent 2 for a function, of which a
    /// copy serves one request at a time, and 10 for `jobplane serve`.
    pub pool_size: usize,
    /// `JOBPLANE_LEASE_SECONDS`: how long a lease lasts without a heartbeat, and how far a heartbeat extends it,
    /// 5 to 3,600; 60 when absent. A shorter one finds a dead worker sooner and costs more heartbeats.
    pub lease_seconds: i32,
    /// `JOBPLANE_KEEP_DAYS`: how long an execution is kept after it ended, at least, 1 to 366; 30 when absent. It goes
    /// with the week that it was asked for in, up to eight days later.
    pub keep_days: i32,
    /// `JOBPLANE_KEEP_DEAD_LETTERS_DAYS`: how long a dead letter that nobody retried or deleted is kept, at least, up to
    /// 366 and not less than `JOBPLANE_KEEP_DAYS`; when absent 90, or `JOBPLANE_KEEP_DAYS` if that is more.
    pub keep_dead_letters_days: i32,
}

/// Where PostgreSQL is, and how to log in. Certificates and host names are always verified where there is encryption.
#[derive(Clone, Default)]
pub struct Database {
    /// `DATABASE_URL`, with `sslmode=disable`, or `require`, `verify-ca` or `verify-full`, which mean the same. Without, or with
    /// `prefer`: encrypted if `ca` or `iam` is set. May be empty when the secret names the host.
    pub url: String,
    /// `JOBPLANE_DATABASE_SECRET`: the name or ARN of a secret of AWS Secrets Manager with `username` and `password`, and `host`,
    /// `port` and `dbname` where the URL has none.
    pub secret: Option<String>,
    /// `JOBPLANE_DATABASE_IAM`: whether the password is a token of RDS, signed for the URL's user; `false` when absent.
    pub iam: bool,
    /// `JOBPLANE_DATABASE_CA`: whose certificates the server may have: `rds`, or the path of a PEM file; the public ones when
    /// absent.
    pub ca: Option<String>,
    /// `JOBPLANE_DATABASE_MASTER_SECRET`: the secret of a user who may make the functions' user; for migrations alone.
    pub master_secret: Option<String>,
    /// `JOBPLANE_DATABASE_CONNECTIONS`: the most connections of the user that is made so; as many as there are when absent.
    pub connections: Option<i32>,
}

impl Database {
    /// The database of a URL that says it all.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

/// A setting that is missing or not acceptable.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl Config {
    /// Reads the settings from the environment; where it does not say how many connections there are to be, so many.
    ///
    /// # Errors
    /// When a setting is missing or not acceptable.
    pub fn from_env(pool_size: i32) -> Result<Self, ConfigError> {
        Self::read(pool_size, |name| env::var(name).ok())
    }

    fn read(pool_size: i32, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let setting = |name: &str| variable(name).filter(|value| !value.is_empty());
        let number = |name: &'static str, range: RangeInclusive<i32>, absent: i32| match setting(name) {
            None => Ok(absent),
            Some(text) => text.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
                let problem = format!("{text:?} is not {} to {}", range.start(), range.end());
                ConfigError { name, problem }
            }),
        };
        let flag = |name: &'static str| match setting(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(ConfigError { name, problem: format!("{text:?} is not true or false") }),
        };
        let database = Database {
            url: setting("DATABASE_URL").unwrap_or_default(),
            secret: setting("JOBPLANE_DATABASE_SECRET"),
            iam: flag("JOBPLANE_DATABASE_IAM")?,
            ca: setting("JOBPLANE_DATABASE_CA"),
            master_secret: setting("JOBPLANE_DATABASE_MASTER_SECRET"),
            connections: match number("JOBPLANE_DATABASE_CONNECTIONS", 0..=100_000, 0)? {
                0 => None,
                limit => Some(limit),
            },
        };
        if database.url.is_empty() && (database.secret.is_none() || database.iam) {
            return Err(ConfigError { name: "DATABASE_URL", problem: "is not set".to_owned() });
        }
        let keep_days = number("JOBPLANE_KEEP_DAYS", 1..=limits::MAX_KEEP_DAYS, limits::KEEP_DAYS)?;
        let config = Self {
            database,
            admin_token: setting("JOBPLANE_ADMIN_TOKEN"),
            admin_token_secret: setting("JOBPLANE_ADMIN_TOKEN_SECRET"),
            cell: setting("JOBPLANE_CELL").unwrap_or_else(|| "local".to_owned()),
            pool_size: number("JOBPLANE_POOL_SIZE", 1..=MAX_POOL_SIZE, pool_size)?.unsigned_abs() as usize,
            lease_seconds: number(
                "JOBPLANE_LEASE_SECONDS",
                limits::MIN_LEASE_SECONDS..=limits::MAX_LEASE_SECONDS,
                limits::LEASE_SECONDS,
            )?,
            keep_days,
            keep_dead_letters_days: number(
                KEEP_DEAD_LETTERS,
                1..=limits::MAX_KEEP_DAYS,
                limits::KEEP_DEAD_LETTERS_DAYS.max(keep_days),
            )?,
        };
        config.check()?;
        Ok(config)
    }

    /// What one setting demands of another.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Self { keep_days, keep_dead_letters_days: dead_letters, .. } = self;
        if self.admin_token.is_some() && self.admin_token_secret.is_some() {
            let problem = "is set beside JOBPLANE_ADMIN_TOKEN".to_owned();
            return Err(ConfigError { name: "JOBPLANE_ADMIN_TOKEN_SECRET", problem });
        }
        if dead_letters < keep_days {
            let problem = format!("{dead_letters} is less than JOBPLANE_KEEP_DAYS, which is {keep_days}");
            return Err(ConfigError { name: KEEP_DEAD_LETTERS, problem });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<(i32, i32), String> {
        let all = [settings, &[("DATABASE_URL", "postgres:///")]].concat();
        let config = Config::read(2, |name| {
            all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        config
            .map(|config| (config.keep_days, config.keep_dead_letters_days))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_kept_is_kept_in_range_and_dead_letters_no_shorter_than_the_rest() {
        let (days, dead) = ("JOBPLANE_KEEP_DAYS", "JOBPLANE_KEEP_DEAD_LETTERS_DAYS");
        assert_eq!(read(&[]), Ok((30, 90)));
        assert_eq!(read(&[(days, "120")]), Ok((120, 120)));
        assert_eq!(read(&[(days, "1"), (dead, "1")]), Ok((1, 1)));
        assert_eq!(read(&[(days, "366"), (dead, "366")]), Ok((366, 366)));
        for (name, value) in
            [(days, "0"), (days, "367"), (days, "-1"), (days, "a week"), (dead, "0"), (dead, "367")]
        {
            assert_eq!(read(&[(name, value)]), Err(format!("{name}: {value:?} is not 1 to 366")));
        }
        let refused = read(&[(days, "40"), (dead, "39")]);
        assert_eq!(refused, Err(format!("{dead}: 39 is less than {days}, which is 40")));
    }
}
