//! One process of a worker: how it is started, what it says, and how it is told to stop.

use crate::local::guard::Guard;
use crate::local::platform::{Access, Say, WorkerOptions};
use anyhow::Context;
use jobplane_worker::Shutdown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// What a worker gets on top of its drain: time to stop what still runs and to give it back.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How long a worker that is to end at once may take to stop its jobs.
const LAST_GRACE: Duration = Duration::from_secs(2);
/// Variables of ours that a worker must not have: the database's and other people's tokens, a second place for its
/// own, and what only one of several workers can have.
const WITHHELD: [&str; 6] = [
    "DATABASE_URL",
    "JOBPLANE_ADMIN_TOKEN",
    "JOBPLANE_TOKEN",
    "JOBPLANE_WORKER_TOKEN_FILE",
    "JOBPLANE_WORKER_ID",
    "JOBPLANE_METRICS_ADDR",
];

/// How every worker of a fleet is started.
pub(super) struct Launch {
    program: PathBuf,
    options: WorkerOptions,
    url: String,
    token: String,
    pub(super) drain: Duration,
    pub(super) say: Say,
}

impl Launch {
    pub(super) fn new(options: &WorkerOptions, access: &Access, say: &Say) -> anyhow::Result<Self> {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("cannot tell which program this is")?,
        };
        let (url, token) = (access.url.clone(), access.worker_token.clone());
        Ok(Self { program, options: options.clone(), url, token, drain: options.drain, say: say.clone() })
    }

    /// Starts the process of the worker with this name.
    pub(super) fn start(&self, name: &str) -> anyhow::Result<Running> {
        let mut command = Command::new(&self.program);
        command.arg("worker");
        WITHHELD.iter().for_each(|variable| {
            command.env_remove(variable);
        });
        if let Some(concurrency) = self.options.concurrency {
            command.env("JOBPLANE_CONCURRENCY", concurrency.to_string());
        }
        let mut child = command
            .env("JOBPLANE_URL", &self.url)
            .env("JOBPLANE_WORKER_TOKEN", &self.token)
            .env("JOBPLANE_WORKER_ID", name)
            .env("JOBPLANE_DRAIN_SECONDS", self.drain.as_secs().to_string())
            .env("JOBPLANE_LOG_FORMAT", "pretty")
            .envs(self.options.env.iter().map(|(name, value)| (name, value)))
            // A group of its own: a Ctrl-C on the terminal is for us, who stop things in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let pid = pid.context("the worker has no process id")?;
        let guard = Guard::of(child.id().unwrap_or_default(), Signal::SIGTERM)?;
        self.forward(name, child.stdout.take());
        self.forward(name, child.stderr.take());
        Ok(Running { pid, child, _guard: guard })
    }

    /// Passes on what the process says, line by line, until it says no more.
    fn forward(&self, name: &str, output: Option<impl AsyncRead + Unpin + Send + 'static>) {
        let Some(output) = output else { return };
        let (say, name) = (self.say.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                say(&format!("{name} | {}", String::from_utf8_lossy(&line).trim_end()));
            }
        });
    }
}

/// A worker's process that runs.
pub(super) struct Running {
    pub(super) pid: Pid,
    child: Child,
    _guard: Guard,
}

impl Running {
    /// Waits until it ends by itself, and says how.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("ended ({status})"),
            Err(error) => format!("cannot be waited for: {error}"),
        }
    }

    /// Stops it: it drains, or ends at once when the shutdown says so, and is killed when its time is over.
    pub(super) async fn stop(mut self, drain: Duration, shutdown: &mut watch::Receiver<Shutdown>) {
        self.tell(Signal::SIGTERM);
        let drained = tokio::select! {
            ended = tokio::time::timeout(drain + STOP_GRACE, self.child.wait()) => ended.is_ok(),
            _ = shutdown.wait_for(|phase| *phase == Shutdown::Stopping) => false,
        };
        if !drained {
            // A second time, it stops its jobs instead of waiting for them.
            self.tell(Signal::SIGTERM);
            if tokio::time::timeout(LAST_GRACE, self.child.wait()).await.is_err()
                && let Err(error) = self.child.kill().await
            {
                tracing::warn!(%error, pid = %self.pid, "a worker could not be killed");
            }
        }
    }

    fn tell(&self, signal: Signal) {
        // Of a process that was waited for there is no id any more.
        if self.child.id().is_some()
            && let Err(error) = kill(self.pid, signal)
        {
            tracing::debug!(%error, pid = %self.pid, "a worker was gone already");
        }
    }
}
