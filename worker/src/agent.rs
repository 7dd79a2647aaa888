//! The agent: takes executions while slots are free, runs them, keeps their leases, reports how they ended.

mod attempt;
mod heartbeat;
mod leases;
mod poll;
mod results;

pub(crate) use leases::{LeaseKey, Leases, Stop, StopReceiver, stopped};

use crate::exec::Exec;
use crate::shutdown::phases;
use crate::{Client, Error, Runtime, Settings, Shutdown};
use jobplane_protocol::limits;
use results::Report;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// A lease, until the controller says how long its own are. So long does a worker that has stopped everything still
/// try to deliver results: after that the controller has other ideas about them anyway.
const LEASE: Duration = Duration::from_secs(limits::LEASE_SECONDS as u64);

/// What all parts of the agent share.
struct Agent {
    client: Client,
    leases: Arc<Leases>,
    exec: Exec,
    name: String,
    queues: Option<Vec<String>>,
    /// A permit for each execution that may run at once.
    slots: Arc<Semaphore>,
    slot_count: u32,
    /// As the controller last asked for.
    heartbeat_interval: watch::Sender<Duration>,
}

/// Runs the agent until `shutdown` says so and everything it took has been answered for.
pub(crate) async fn run(settings: &Settings, shutdown: watch::Receiver<Shutdown>) -> Result<(), Error> {
    if settings.runtime == Runtime::Container {
        let detail = "the container runtime is not in this build; JOBPLANE_RUNTIME=exec is";
        return Err(Error::Configuration(detail.to_owned()));
    }
    let agent = Arc::new(Agent::new(settings)?);
    let phase = phases(shutdown, settings.drain());
    // Ended attempts wait here for the sender, each keeping its slot while there is no room.
    let (results, queue) = mpsc::channel(settings.slots());
    let delivery = tokio::spawn(results::deliver(agent.clone(), queue));
    let heartbeats = tokio::spawn(heartbeat::keep_leases(agent.clone()));
    tracing::info!(worker = agent.name, url = agent.client.base_url(), slots = agent.slot_count, "started");
    let polled = poll::poll(&agent, results, phase.clone()).await;
    agent.drain(phase).await;
    if tokio::time::timeout(LEASE, delivery).await.is_err() {
        tracing::error!("not every result could be delivered; their leases will expire");
    }
    heartbeats.abort();
    tracing::info!(worker = agent.name, "stopped");
    polled
}

impl Agent {
    fn new(settings: &Settings) -> Result<Self, Error> {
        let slots = settings.slots();
        Ok(Self {
            client: settings.client()?,
            leases: Arc::default(),
            exec: Exec::new(&settings.env_allow, settings.kill_grace()),
            name: settings.name(),
            queues: settings.queues(),
            slots: Arc::new(Semaphore::new(slots)),
            slot_count: u32::try_from(slots).unwrap_or(limits::MAX_DEQUEUE),
            heartbeat_interval: watch::Sender::new(LEASE / limits::HEARTBEATS_PER_LEASE.unsigned_abs()),
        })
    }

    /// Waits for what runs; once the shutdown is out of patience, stops it and gives it back.
    async fn drain(&self, mut phase: watch::Receiver<Shutdown>) {
        tokio::select! {
            _ = self.slots.acquire_many(self.slot_count) => return,
            () = reached(&mut phase, Shutdown::Stopping) => {}
        }
        tracing::info!("out of time: stopping and releasing what still runs");
        self.leases.stop_all(Stop::Release);
        if self.slots.acquire_many(self.slot_count).await.is_err() {
            tracing::error!("the slots were closed");
        }
    }
}

/// Waits until the shutdown has gone at least so far.
async fn reached(phase: &mut watch::Receiver<Shutdown>, least: Shutdown) {
    if phase.wait_for(|phase| *phase >= least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What went into the results' queue, or why it could not: the sender is gone only after a panic.
async fn report(results: &mpsc::Sender<Report>, report: Report) {
    if results.send(report).await.is_err() {
        tracing::error!("nobody delivers results any more; the lease will expire");
    }
}

#[cfg(test)]
mod tests;
