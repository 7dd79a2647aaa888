//! The platform as one unit that starts and stops: PostgreSQL, the control plane over HTTP, and workers beside it.

mod access;
mod data_dir;
mod fleet;
mod http;

pub use access::Access;
pub use fleet::{Fleet, Worker};
pub(crate) use http::Http;

use super::postgres::{Durability, Server};
use anyhow::{Context, anyhow};
use data_dir::DataDir;
use jobplane_functions::{App, Config, Database};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// The cell that tokens made here name.
const CELL: &str = "local";
/// Database connections of the control plane.
const POOL_SIZE: usize = 16;
/// How often the housekeeping runs.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is looked whether PostgreSQL still runs.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Where one line goes that the platform or a worker has to say.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// What to start.
#[derive(Clone)]
pub struct Options {
    /// The port on 127.0.0.1; 0 for any that is free.
    pub port: u16,
    /// Where the database and `dev.json` live; made when new. One platform at a time.
    pub data_dir: PathBuf,
    /// A database to use instead of starting PostgreSQL.
    pub database_url: Option<String>,
    /// How long a lease lasts without a heartbeat, in seconds.
    pub lease_seconds: i32,
    /// How long an execution is kept after it ended, in days.
    pub keep_days: i32,
    /// How long a dead letter is kept, in days.
    pub keep_dead_letters_days: i32,
    /// How careful a PostgreSQL that is started here is.
    pub durability: Durability,
    /// How many workers, and how they run.
    pub workers: WorkerOptions,
    /// Where lines for people go.
    pub say: Say,
}

/// How workers run.
#[derive(Clone)]
pub struct WorkerOptions {
    /// How many there are; they are named `worker-1`, `worker-2` and so on.
    pub count: usize,
    /// Executions that each runs at once; the worker's own default when absent.
    pub concurrency: Option<u32>,
    /// How long running jobs may go on once the platform stops.
    pub drain: Duration,
    /// The `jobplane` binary; the running program when absent.
    pub program: Option<PathBuf>,
    /// Variables for the workers on top of this process's.
    pub env: Vec<(String, std::ffi::OsString)>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { count: 1, concurrency: None, drain: Duration::from_secs(30), program: None, env: Vec::new() }
    }
}

/// A running platform. [`Platform::stop`] stops it in order; dropping it stops it at once.
pub struct Platform {
    /// Where it is and with which tokens it is used.
    pub access: Access,
    /// Its workers.
    pub fleet: Fleet,
    http: Http,
    sweeper: JoinHandle<()>,
    postgres: Option<Server>,
    // Last, so that nobody takes the directory while something of ours still runs in it.
    _data_dir: DataDir,
}

impl Platform {
    /// Starts everything and waits until requests are answered.
    ///
    /// # Errors
    /// When the port or the data directory is taken, no PostgreSQL is found, the database cannot be reached or
    /// migrated; the message says which and what to do.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let data_dir = DataDir::open(&options.data_dir)?;
        let listener = bind(options.port).await?;
        let (database_url, postgres) = database(&options, &data_dir).await?;
        let database = Database::at(&database_url);
        jobplane_functions::migrate(&database)
            .await
            .context("the database cannot be brought to this version's schema")?;
        let kept = data_dir.access()?;
        let admin_token =
            kept.as_ref().map_or_else(|| access::mint_admin(CELL), |kept| kept.admin_token.clone());
        let app = App::new(&Config {
            database,
            admin_token: Some(admin_token.clone()),
            admin_token_secret: None,
            cell: CELL.to_owned(),
            pool_size: POOL_SIZE,
            lease_seconds: options.lease_seconds,
            keep_days: options.keep_days,
            keep_dead_letters_days: options.keep_dead_letters_days,
        })?;
        let sweeper = tokio::spawn(sweep_for_ever(app.clone(), options.say.clone()));
        let http = Http::serve(listener, jobplane_functions::router(app))?;
        let access = Access::settle(http.url(), database_url, admin_token, kept).await?;
        data_dir.keep(&access)?;
        let fleet = Fleet::start(&options.workers, &access, &options.say)?;
        Ok(Self { access, fleet, http, sweeper, postgres, _data_dir: data_dir })
    }

    /// Waits until something that cannot be started again has ended by itself, and says what.
    pub async fn broken(&mut self) -> anyhow::Error {
        loop {
            if self.postgres.as_mut().is_some_and(|server| !server.is_running()) {
                return anyhow!("PostgreSQL ended by itself; its log is postgres.log in the data directory");
            }
            if self.http.has_ended() {
                return anyhow!("the HTTP server ended by itself");
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    /// Stops in order: the workers, once they have drained; then requests; then PostgreSQL, if it is ours.
    ///
    /// # Errors
    /// When PostgreSQL cannot be stopped.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.fleet.drain().await;
        self.end().await
    }

    /// As [`Platform::stop`], without waiting for what runs.
    ///
    /// # Errors
    /// When PostgreSQL cannot be stopped.
    pub async fn stop_now(&mut self) -> anyhow::Result<()> {
        self.fleet.kill().await;
        self.end().await
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.http.stop().await;
        self.sweeper.abort();
        match self.postgres.take() {
            Some(server) => tokio::task::spawn_blocking(|| server.stop()).await?,
            None => Ok(()),
        }
    }
}

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await.with_context(|| {
        format!(
            "cannot listen on 127.0.0.1:{port}; choose another port with --port (0 takes any that is free)"
        )
    })
}

/// The database's URL, and the server if it had to be started.
async fn database(options: &Options, data_dir: &DataDir) -> anyhow::Result<(String, Option<Server>)> {
    if let Some(url) = &options.database_url {
        return Ok((url.clone(), None));
    }
    let (home, durability) = (data_dir.postgres(), options.durability);
    let server = tokio::task::spawn_blocking(move || Server::start(&home, durability)).await??;
    Ok((server.url_of("postgres"), Some(server)))
}

/// Sweeps at once and then every minute.
pub(crate) async fn sweep_for_ever(app: App, say: Say) {
    let mut turns = tokio::time::interval(SWEEP_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if let Err(error) = jobplane_functions::sweep(&app).await {
            say(&format!("housekeeping failed, it is tried again in a minute: {error}"));
        }
    }
}
