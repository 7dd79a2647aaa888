//! The worker that is killed: chosen, caught while it holds executions, and what becomes of its leases.

use super::job::Asked;
use crate::local::platform::Fleet;
use jobplane_protocol::{ExecutionId, Worker, WorkerPage};
use jobplane_worker::Client;
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

/// How long what a stopped worker has already sent may take to be served.
const SETTLE: Duration = Duration::from_millis(100);
/// The wait before the workers are looked at again.
const AGAIN: Duration = Duration::from_millis(5);
/// When an expired lease is noticed at the latest.
const TICK: Duration = Duration::from_secs(2);

/// A worker that was killed.
#[derive(Debug)]
pub(super) struct Killed {
    /// Its name.
    pub(super) worker: String,
    /// What it held.
    pub(super) held: HashSet<ExecutionId>,
    at: Instant,
}

impl Killed {
    /// What is being waited for, if it held any of these.
    pub(super) fn note<'a>(&self, unfinished: impl Iterator<Item = &'a Asked>) -> Option<String> {
        let left = unfinished.filter(|asked| self.held.contains(&asked.execution)).count();
        let lease = Duration::from_secs(super::LEASE_SECONDS.unsigned_abs().into()) + TICK;
        let (leases, they) = if left == 1 { ("lease", "it is") } else { ("leases", "they are") };
        match (left, lease.saturating_sub(self.at.elapsed()).as_secs()) {
            (0, _) => None,
            (_, 0) => Some(format!("{left} {leases} of the killed worker ended; {they} re-run")),
            (_, seconds) => Some(format!(
                "{left} {leases} of the killed worker expire{} in {seconds} s, then {they} re-run",
                if left == 1 { "s" } else { "" }
            )),
        }
    }
}

impl Display for Killed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} was killed with SIGKILL while it held {}. Nobody is told: what it held is run again once its leases expire.",
            self.worker,
            self.held.len()
        )
    }
}

/// Kills a worker that holds executions. It is stopped first and looked at then, so that what it is seen to hold it
/// surely still holds when it dies. Tries until it finds one.
pub(super) async fn kill_one(fleet: &Fleet, admin: &Client) -> anyhow::Result<Killed> {
    loop {
        let busiest = workers(admin).await?.into_iter().max_by_key(|worker| worker.running);
        let busiest = busiest.filter(|worker| worker.running > 0);
        if let Some(worker) = busiest.and_then(|busiest| fleet.worker(&busiest.worker_id))
            && worker.signal(Signal::SIGSTOP).is_ok()
        {
            tokio::time::sleep(SETTLE).await;
            let stopped = workers(admin).await?.into_iter().find(|found| found.worker_id == worker.name);
            let held: HashSet<_> = stopped.into_iter().flat_map(|found| found.executions).collect();
            if !held.is_empty() {
                worker.signal(Signal::SIGKILL)?;
                return Ok(Killed { worker: worker.name.clone(), held, at: Instant::now() });
            }
            worker.signal(Signal::SIGCONT)?;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Who was heard from; there are few.
async fn workers(admin: &Client) -> anyhow::Result<Vec<Worker>> {
    Ok(admin.get("/workers").send::<WorkerPage>().await?.items)
}
