//! `jobplane dev`: the whole platform on 127.0.0.1 until Ctrl-C or SIGTERM.

use super::platform::{Access, Options, Platform, WorkerOptions};
use super::postgres::Durability;
use crate::sources::DEV_FILE;
use anyhow::Context;
use jobplane_protocol::limits;
use jobplane_worker::{LogFormat, Shutdown};
use owo_colors::OwoColorize;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What a lease may be, in seconds.
const LEASES: RangeInclusive<i64> = limits::MIN_LEASE_SECONDS as i64..=limits::MAX_LEASE_SECONDS as i64;
/// How long something may be kept, in days.
const KEPT: RangeInclusive<i64> = 1..=limits::MAX_KEEP_DAYS as i64;

/// What `jobplane dev` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port on 127.0.0.1; 0 takes any that is free
    #[arg(long, default_value_t = 8080)]
    pub port: u16,

    /// Where the database and the tokens are kept
    #[arg(long, default_value = ".jobplane", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// How many workers run beside the API, 0 for none
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub workers: usize,

    /// Print one line of JSON when ready: url, database_url, admin_token, tenant_key, worker_token
    #[arg(long)]
    pub json: bool,

    /// How long a lease lasts without a heartbeat, in seconds: how soon the work of a dead worker is run again
    #[arg(long, env = "JOBPLANE_LEASE_SECONDS", default_value_t = limits::LEASE_SECONDS, value_name = "SECONDS",
        value_parser = clap::value_parser!(i32).range(LEASES))]
    pub lease_seconds: i32,

    /// How long an execution is kept after it ended, at least, in days
    #[arg(long, env = "JOBPLANE_KEEP_DAYS", default_value_t = limits::KEEP_DAYS, value_name = "DAYS",
        value_parser = clap::value_parser!(i32).range(KEPT))]
    pub keep_days: i32,

    /// How long a dead letter is kept, at least, in days; not less than --keep-days [default: 90, or --keep-days]
    #[arg(long, env = "JOBPLANE_KEEP_DEAD_LETTERS_DAYS", value_name = "DAYS",
        value_parser = clap::value_parser!(i32).range(KEPT))]
    pub keep_dead_letters_days: Option<i32>,

    /// Use this database, which must be empty or jobplane's, instead of starting PostgreSQL. Its planner settings are
    /// changed
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,

    /// How long running jobs may go on once asked to stop, in seconds
    #[arg(long, env = "JOBPLANE_DRAIN_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    pub drain_seconds: u32,
}

/// Runs until a signal asks it to stop, then stops in order. A second signal does not wait for what runs.
///
/// # Errors
/// When the platform cannot be started, or a part of it ended by itself.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    jobplane_worker::start_logging(Some(LogFormat::Pretty));
    let mut shutdown = jobplane_worker::on_signals()?;
    let database_url = args.database_url.filter(|url| !url.is_empty());
    let data = match &database_url {
        None => args.data_dir.display().to_string(),
        Some(_) => "in the database of --database-url or DATABASE_URL".to_owned(),
    };
    let options = Options {
        port: args.port,
        data_dir: args.data_dir.clone(),
        database_url,
        lease_seconds: args.lease_seconds,
        keep_days: args.keep_days,
        keep_dead_letters_days: args
            .keep_dead_letters_days
            .unwrap_or(limits::KEEP_DEAD_LETTERS_DAYS.max(args.keep_days)),
        durability: Durability::Full,
        workers: WorkerOptions {
            count: args.workers,
            drain: Duration::from_secs(args.drain_seconds.into()),
            ..WorkerOptions::default()
        },
        say: Arc::new(|line| anstream::eprintln!("{}", line.dimmed())),
    };
    let mut platform = tokio::select! {
        started = Platform::start(options) => started?,
        () = asked(&mut shutdown, Shutdown::Draining) => return Ok(ExitCode::SUCCESS),
    };
    announce(&platform.access, &args.data_dir, &data, args.json)
        .context("cannot write to standard output")?;
    tokio::select! {
        error = platform.broken() => return stop(platform, shutdown).await.and(Err(error)),
        () = asked(&mut shutdown, Shutdown::Draining) => {}
    }
    anstream::eprintln!("Stopping: workers finish what they run. Ctrl-C again does not wait for them.");
    stop(platform, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

async fn stop(mut platform: Platform, mut shutdown: watch::Receiver<Shutdown>) -> anyhow::Result<()> {
    tokio::select! {
        stopped = platform.stop() => return stopped,
        () = asked(&mut shutdown, Shutdown::Stopping) => {}
    }
    platform.stop_now().await
}

/// Waits until the shutdown has gone so far.
async fn asked(shutdown: &mut watch::Receiver<Shutdown>, phase: Shutdown) {
    if shutdown.wait_for(|now| *now >= phase).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}

fn announce(access: &Access, data_dir: &Path, data: &str, json: bool) -> anyhow::Result<()> {
    if json {
        let line = serde_json::to_string(access)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
        return Ok(());
    }
    let mut out = anstream::stdout();
    let tokens = data_dir.join("dev.json");
    writeln!(
        out,
        "\n{} is ready at {}\n\n  data    {data}\n  tokens  {}\n\nTry, in another terminal here:\n",
        "jobplane".bold(),
        access.url.cyan(),
        tokens.display(),
    )?;
    if tokens != Path::new(DEV_FILE) {
        // Commands look nowhere else by themselves.
        let export = format!("export JOBPLANE_URL={} JOBPLANE_TOKEN={}", access.url, access.tenant_key);
        writeln!(out, "  {}", export.green())?;
    }
    for example in
        ["jobplane submit --wait -- echo hello", "jobplane list", "jobplane logs --follow EXECUTION"]
    {
        writeln!(out, "  {}", example.green())?;
    }
    writeln!(out, "\nCtrl-C stops everything; the data stays.\n")?;
    out.flush()?;
    Ok(())
}
