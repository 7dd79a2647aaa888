//! What every worker is told, whatever it runs: by settings or by a builder.

use crate::{Client, Credential, Error};
use jobplane_protocol::limits;
use std::net::SocketAddr;
use std::time::Duration;

/// Executions that run at once when the settings do not say and the machine does not tell its cores.
const DEFAULT_CONCURRENCY: usize = 1;
/// How long running jobs may go on once the worker is to stop, unless it is told.
pub(crate) const DRAIN_SECONDS: u32 = 30;
/// How long a job has between being asked to end and being ended, unless the worker is told.
pub(crate) const KILL_GRACE_SECONDS: u32 = 10;
/// The longest that it may be. A job that times out must be ended, and its end reported, before the controller ends
/// the attempt itself ([`limits::DEADLINE_GRACE_SECONDS`] after the time limit).
pub(crate) const MAX_KILL_GRACE_SECONDS: u32 = limits::DEADLINE_GRACE_SECONDS as u32 / 2;

/// What every worker needs to know.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) credential: Credential,
    pub(crate) concurrency: Option<u32>,
    pub(crate) queues: Vec<String>,
    pub(crate) worker_id: Option<String>,
    pub(crate) drain: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) metrics_addr: Option<SocketAddr>,
}

impl Options {
    /// A client of the controller with the worker's token.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        Client::new(&self.url, self.credential.clone())
    }

    /// How many executions run at once.
    pub(crate) fn slots(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(DEFAULT_CONCURRENCY, usize::from);
        self.concurrency.and_then(|slots| usize::try_from(slots).ok()).unwrap_or_else(cores)
    }

    /// The worker's name.
    pub(crate) fn name(&self) -> String {
        let named = || {
            let host = nix::unistd::gethostname().unwrap_or_else(|_| "worker".into());
            format!("{}-{}", host.to_string_lossy(), std::process::id())
        };
        self.worker_id.clone().unwrap_or_else(named)
    }

    /// The queues as the dequeue asks for them: `None` leaves the choice to the token.
    pub(crate) fn queues(&self) -> Option<Vec<String>> {
        (!self.queues.is_empty()).then(|| self.queues.clone())
    }
}
