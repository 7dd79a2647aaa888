//! `jobplane demo`: the whole platform at real work, with a worker killed in the middle and every result checked.

mod collect;
mod figures;
mod files;
mod job;
mod report;
mod screen;
mod victim;

use super::platform::{Options, Platform, WorkerOptions};
use super::postgres::Durability;
use anyhow::{Context, ensure};
use collect::{Collector, Outcome};
use figures::Figures;
use files::Input;
use indicatif::HumanCount;
use jobplane_protocol::limits;
use owo_colors::OwoColorize;
use report::Report;
use screen::Screen;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use victim::Killed;

/// The exit code after an interrupt.
const INTERRUPTED: u8 = 130;

/// How long leases last, in seconds: shorter than usual, because the killed worker's are waited for.
const LEASE_SECONDS: i32 = 10;

/// What `jobplane demo` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory whose files are counted and hashed, instead of the current one
    #[arg(long, default_value = ".", hide_default_value = true, value_name = "DIR")]
    pub input: PathBuf,

    /// How many workers run; one of them is killed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,

    /// How many executions each worker runs at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub concurrency: u32,
}

/// Runs the demo in a temporary directory, of which nothing stays, not after an interrupt either. Exit code 0 if all
/// results are right, 1 if not.
///
/// # Errors
/// When there is nothing to work on, or the platform cannot be started or used.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let directory = args.input.clone();
    let input = Arc::new(tokio::task::spawn_blocking(move || Input::under(&directory)).await??);
    ensure!(!input.files.is_empty(), "there are no files under {}", input.root.display());
    let screen = Arc::new(Screen::new(input.files.len())?);
    let place = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut interrupt = pin!(interrupted()?);
    // Begun is finished, for nothing may be written once the directory is removed.
    let mut platform = Platform::start(options(&args, place.path(), &screen)).await?;
    let worked = tokio::select! {
        worked = work(&args, &input, &screen, &platform) => Some(worked),
        () = &mut interrupt => None,
    };
    screen.clear();
    platform.stop_now().await?;
    place.close().context("the temporary directory could not be removed")?;
    let Some(worked) = worked else {
        screen.say("Interrupted: all that was started is stopped and removed.");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let Work { outcomes, computed, killed } = worked?;
    let report = Report::new(&input, outcomes, &computed, killed.get(), began.elapsed());
    anstream::print!("{report}");
    Ok(if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Resolves on the first SIGINT or SIGTERM from now on.
fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn options(args: &Args, place: &Path, screen: &Arc<Screen>) -> Options {
    let screen = screen.clone();
    Options {
        port: 0,
        data_dir: place.join("platform"),
        database_url: std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()),
        lease_seconds: LEASE_SECONDS,
        keep_days: limits::KEEP_DAYS,
        keep_dead_letters_days: limits::KEEP_DEAD_LETTERS_DAYS,
        durability: Durability::Full,
        workers: WorkerOptions {
            count: args.workers.into(),
            concurrency: Some(args.concurrency),
            // What a killed worker leaves behind goes with the rest.
            env: vec![("TMPDIR".to_owned(), place.into()), ("RUST_LOG".to_owned(), "warn".into())],
            ..WorkerOptions::default()
        },
        say: Arc::new(move |line| screen.say(&line.dimmed().to_string())),
    }
}

/// What came of the work.
struct Work {
    outcomes: Vec<Outcome>,
    computed: Vec<std::io::Result<Figures>>,
    killed: Arc<OnceLock<Killed>>,
}

/// The first third of the files runs undisturbed. Then the rest is asked for, and a worker killed while it is at it.
async fn work(
    args: &Args,
    input: &Arc<Input>,
    screen: &Arc<Screen>,
    platform: &Platform,
) -> anyhow::Result<Work> {
    introduce(args, input, screen, platform);
    let total = input.files.len();
    let tenant = platform.access.tenant()?;
    let killed = Arc::new(OnceLock::new());
    let mut collector = Collector {
        tenant: tenant.clone(),
        screen: screen.clone(),
        total,
        slots: usize::from(args.workers) * usize::try_from(args.concurrency)?,
        killed: killed.clone(),
        outcomes: Vec::with_capacity(total),
    };
    let files = input.clone();
    let computing = tokio::task::spawn_blocking(move || {
        files.files.iter().map(|name| Figures::of(&files.root.join(name))).collect()
    });
    let job = job::create(&tenant, input).await?;
    collector.collect(job::submit(&tenant, job, input, 0..total / 3).await?).await?;
    let rest = job::submit(&tenant, job, input, total / 3..total).await?;
    disturb(collector.collect(rest), platform, screen, &killed).await?;
    Ok(Work { outcomes: collector.outcomes, computed: computing.await?, killed })
}

/// Kills a worker while the work goes on.
async fn disturb(
    work: impl Future<Output = anyhow::Result<()>>,
    platform: &Platform,
    screen: &Screen,
    killed: &OnceLock<Killed>,
) -> anyhow::Result<()> {
    let admin = platform.access.admin()?;
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        victim = victim::kill_one(&platform.fleet, &admin) => {
            let victim = victim?;
            screen.say(&killed.get_or_init(|| victim).to_string());
        }
    }
    work.await
}

/// Says what is about to happen.
fn introduce(args: &Args, input: &Input, screen: &Screen, platform: &Platform) {
    screen.say(&format!(
        "{} is up at {}: PostgreSQL, the API, {} workers of {} executions each.",
        "jobplane".bold(),
        platform.access.url.cyan(),
        args.workers,
        args.concurrency
    ));
    screen.say(&format!(
        "Each of the {} files under {} is counted and hashed by an execution of its own.",
        HumanCount(input.files.len() as u64),
        input.root.display()
    ));
    for left_out in &input.left_out {
        screen.say(&format!("  left out: {left_out}").yellow().to_string());
    }
}
