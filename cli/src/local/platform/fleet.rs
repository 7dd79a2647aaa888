//! The workers: child processes that are started, started again when they die, drained, and killed.

mod child;

use super::{Access, Say, WorkerOptions};
use anyhow::{Context, bail};
use child::Launch;
use jobplane_worker::{Backoff, Shutdown};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The longest first wait before a worker that died is started again.
const RESTART_BASE: Duration = Duration::from_millis(500);
/// The longest wait of all.
const RESTART_CAP: Duration = Duration::from_secs(30);
/// A worker that lived so long was well; the next wait is a first one again.
const STEADY: Duration = Duration::from_secs(10);

/// The workers of one platform.
pub struct Fleet {
    workers: Vec<Worker>,
    shutdown: watch::Sender<Shutdown>,
}

/// One worker, whichever process it is at the moment.
pub struct Worker {
    /// What it calls itself.
    pub name: String,
    process: watch::Receiver<Option<Pid>>,
    supervisor: JoinHandle<()>,
}

impl Fleet {
    /// Starts the workers.
    pub(super) fn start(options: &WorkerOptions, access: &Access, say: &Say) -> anyhow::Result<Self> {
        let launch = Arc::new(Launch::new(options, access, say)?);
        let (shutdown, _) = watch::channel(Shutdown::Running);
        let workers = (1..=options.count)
            .map(|number| {
                let name = format!("worker-{number}");
                let (sender, process) = watch::channel(None);
                let supervised = supervise(launch.clone(), name.clone(), sender, shutdown.subscribe());
                Worker { name, process, supervisor: tokio::spawn(supervised) }
            })
            .collect();
        Ok(Self { workers, shutdown })
    }

    /// The workers.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// The worker of this name.
    pub fn worker(&self, name: &str) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.name == name)
    }

    /// Tells every worker to take no more, and waits until all have ended; each is killed when its time is over.
    pub(super) async fn drain(&mut self) {
        self.shut_down(Shutdown::Draining).await;
    }

    /// Ends every worker at once.
    pub(super) async fn kill(&mut self) {
        self.shut_down(Shutdown::Stopping).await;
    }

    async fn shut_down(&mut self, phase: Shutdown) {
        self.shutdown.send_replace(phase);
        for worker in &mut self.workers {
            if !worker.supervisor.is_finished()
                && let Err(error) = (&mut worker.supervisor).await
            {
                tracing::warn!(%error, worker = worker.name, "the supervisor of a worker failed");
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The children are killed as their supervisors are dropped.
        self.workers.iter().for_each(|worker| worker.supervisor.abort());
    }
}

impl Worker {
    /// Its process, unless it is just being started again.
    pub fn pid(&self) -> Option<Pid> {
        *self.process.borrow()
    }

    /// Waits until it has a process, and says which.
    ///
    /// # Errors
    /// When the platform stops meanwhile.
    pub async fn running(&self) -> anyhow::Result<Pid> {
        let mut process = self.process.clone();
        let pid = *process.wait_for(Option::is_some).await.context("the platform stops")?;
        pid.context("the platform stops")
    }

    /// Sends its process a signal. After one that kills, it is started again.
    ///
    /// # Errors
    /// When there is no process at the moment.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Cleared before the process is reaped, so the number is never another's.
        match *self.process.borrow() {
            Some(pid) => kill(pid, signal).with_context(|| format!("cannot signal {}", self.name)),
            None => bail!("{} is just being started again", self.name),
        }
    }
}

/// Keeps one worker running until the shutdown.
async fn supervise(
    launch: Arc<Launch>,
    name: String,
    process: watch::Sender<Option<Pid>>,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    let mut backoff = Backoff::new(RESTART_BASE, RESTART_CAP);
    loop {
        let started = Instant::now();
        let end = match launch.start(&name) {
            Ok(mut child) => {
                process.send_replace(Some(child.pid));
                let stopping = shutdown.wait_for(|phase| *phase > Shutdown::Running);
                let ended = tokio::select! {
                    end = child.ended() => Some(end),
                    _ = stopping => None,
                };
                process.send_replace(None);
                match ended {
                    Some(end) => end,
                    None => return child.stop(launch.drain, &mut shutdown).await,
                }
            }
            Err(error) => format!("cannot be started: {error:#}"),
        };
        if started.elapsed() > STEADY {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        (launch.say)(&format!("{name} {end}; it is started again in {:.1} s", wait.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = shutdown.wait_for(|phase| *phase > Shutdown::Running) => return,
        }
    }
}
