//! A PostgreSQL server of our own: found or fetched, on a free port of 127.0.0.1, in a folder that keeps its data.

mod account;
mod binaries;
mod cluster;
mod fetch;
mod processes;

pub use binaries::Binaries;

use crate::local::guard::Guard;
use anyhow::{Context, bail};
use cluster::Cluster;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use processes::POLL;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to be ready, the recovery after a crash included.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long sessions that are being closed are waited for at a stop.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// How long a server may take to stop in order before it is stopped at once.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Ports that are tried: a free one may be taken before the server gets to it.
const PORT_TRIES: u32 = 5;

/// How careful the server is with what is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// What is committed stays, as PostgreSQL has it by default.
    #[default]
    Full,
    /// Fast, and nothing survives a crash of the machine: for tests.
    None,
}

/// A running server. It ends with this value or, at the latest, with this process.
#[derive(Debug)]
pub struct Server {
    process: Child,
    guard: Option<Guard>,
    port: u16,
    cluster: Cluster,
}

impl Server {
    /// Starts the server that lives in `home`, and makes one there if there is none. Blocks until it takes
    /// connections. Under root the server runs as another account, which needs no access to the parents of `home`.
    ///
    /// # Errors
    /// When no PostgreSQL is found, when `home` cannot be written or is in use, or when the server does not start;
    /// the message says what to do.
    pub fn start(home: &Path, durability: Durability) -> anyhow::Result<Self> {
        let cluster = Cluster::open(home)?;
        let binaries = Binaries::find(cluster.version()?)?;
        Self::start_with(&binaries, cluster, durability)
    }

    fn start_with(binaries: &Binaries, cluster: Cluster, durability: Durability) -> anyhow::Result<Self> {
        if cluster.version()?.is_none() {
            cluster.initialize(binaries)?;
        }
        for _ in 0..PORT_TRIES {
            let (port, mut process) = launch(&cluster, binaries, durability)?;
            if await_ready(&cluster, &mut process)? {
                let guard = Some(Guard::of(process.id(), Signal::SIGINT)?);
                return Ok(Self { process, guard, port, cluster });
            }
            if !cluster.log_tail().contains("Address already in use") {
                break;
            }
        }
        bail!(
            "PostgreSQL did not start; its log, {}, ends with\n{}",
            cluster.log().display(),
            cluster.log_tail()
        )
    }

    /// Its URL, without a database.
    pub fn url(&self) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}", self.cluster.password, self.port)
    }

    /// The URL of one of its databases; `postgres` always exists.
    pub fn url_of(&self, database: &str) -> String {
        format!("{}/{database}", self.url())
    }

    /// The server's process, which leads a process group of its own.
    pub fn group(&self) -> u32 {
        self.process.id()
    }

    /// Whether the server's process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Stops the server in order: sessions end, everything is written. If that takes too long, at once: then the next
    /// start recovers.
    ///
    /// # Errors
    /// When the process cannot be signalled or waited for.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> anyhow::Result<()> {
        drop(self.guard.take());
        let pid = Pid::from_raw(i32::try_from(self.process.id())?);
        // Smart, fast and immediate shutdown: the first waits for sessions, so that those which are just being closed
        // are not cut off with an error in the log.
        let modes =
            [(Signal::SIGTERM, LEAVE_LIMIT), (Signal::SIGINT, STOP_LIMIT), (Signal::SIGQUIT, STOP_LIMIT)];
        for (signal, limit) in modes {
            let told = Instant::now();
            while told.elapsed() < limit {
                // Not reaped yet, so the number cannot have been given to another.
                if self.process.try_wait()?.is_some() {
                    return Ok(());
                }
                if told.elapsed() < POLL {
                    kill(pid, signal).context("cannot stop PostgreSQL")?;
                }
                std::thread::sleep(POLL);
            }
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::warn!(%error, "PostgreSQL was not stopped");
        }
    }
}

fn launch(cluster: &Cluster, binaries: &Binaries, durability: Durability) -> anyhow::Result<(u16, Child)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let log = std::fs::File::create(cluster.log()).context("cannot write PostgreSQL's log")?;
    let mut launch = cluster.account.command(&binaries.folder.join("postgres"), &cluster.data())?;
    launch.command.arg("-D").arg(&launch.directory);
    for setting in settings(port, durability) {
        launch.command.arg("-c").arg(setting);
    }
    let process = launch
        .command
        // Messages in English: one of them is looked for.
        .env("LC_ALL", "C")
        // A group of its own: a Ctrl-C on the terminal is for us, who stop it last.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot run postgres")?;
    Ok((port, process))
}

/// The settings that differ from PostgreSQL's own. No Unix socket: its path has a length limit, and URLs work.
fn settings(port: u16, durability: Durability) -> Vec<String> {
    let mut settings = vec![
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "max_connections=200".to_owned(),
        // A claim under many limits, or a refill of many windows, takes a lock for each.
        "max_locks_per_transaction=256".to_owned(),
        "shared_buffers=256MB".to_owned(),
        "max_wal_size=2GB".to_owned(),
        "timezone=UTC".to_owned(),
    ];
    if durability == Durability::None {
        settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
    }
    settings
}

/// Waits until the server takes connections; false if it ended instead.
fn await_ready(cluster: &Cluster, process: &mut Child) -> anyhow::Result<bool> {
    let pid = Pid::from_raw(i32::try_from(process.id())?);
    let started = Instant::now();
    while started.elapsed() < READY_LIMIT {
        if processes::is_ready(&cluster.data(), pid) {
            return Ok(true);
        }
        if process.try_wait()?.is_some() {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
    process.kill()?;
    process.wait()?;
    Ok(false)
}

#[cfg(test)]
mod tests;
