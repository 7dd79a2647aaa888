//! The agent: takes executions while slots are free, runs them, keeps their leases, reports how they ended.

mod attempt;
mod heartbeat;
mod leases;
mod poll;
mod results;

pub(crate) use leases::{LeaseKey, Leases, Progress, Stop, StopReceiver, lost, stopped, within_grace};

use crate::health::Health;
use crate::options::Options;
use crate::runtime::Runtime;
use crate::shutdown::phases;
use crate::{Client, Error, Shutdown, http, metrics};
use jobplane_protocol::limits;
use results::Report;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

/// A lease, until the controller says how long its own are. So long does a worker that has stopped everything still
/// try to deliver results: after that the controller has other ideas about them anyway.
const LEASE: Duration = Duration::from_secs(limits::LEASE_SECONDS as u64);

/// How long a request for work waits for more slots to be free, and one with results for more of them: on a busy worker
/// of many slots, most of what it costs is requests.
const LINGER: Duration = Duration::from_millis(5);
/// Of how many slots one is a request's worth of company.
const SLOTS_OF_COMPANY: u32 = 4;
/// How many are, where there are so many: a request costs as much for one as for two.
const LEAST_COMPANY: u32 = 2;

/// What all parts of the agent share.
pub(crate) struct Agent {
    client: Client,
    leases: Arc<Leases>,
    runtime: Box<dyn Runtime>,
    health: Arc<Health>,
    /// Where operators are served, if anywhere.
    metrics_addr: Option<SocketAddr>,
    kill_grace: Duration,
    name: String,
    queues: Option<Vec<String>>,
    /// A permit for each execution that may run at once.
    slots: Arc<Semaphore>,
    slot_count: u32,
    /// As the controller last asked for.
    heartbeat_interval: watch::Sender<Duration>,
    /// Says that leases may have begun long before they were heard of.
    heartbeats_due: Notify,
    /// Logs whose end is still on its way although their results are not.
    late_logs: watch::Sender<usize>,
}

/// Runs an agent until `shutdown` says so and everything it took has been answered for. What runs may go on for the
/// drain time meanwhile.
pub(crate) async fn run(
    options: &Options,
    runtime: Box<dyn Runtime>,
    shutdown: watch::Receiver<Shutdown>,
) -> Result<(), Error> {
    let agent = Arc::new(Agent::new(options, runtime)?);
    let phase = phases(shutdown, options.drain);
    let _served = match agent.metrics_addr {
        Some(address) => Some(http::serve(address, agent.health.clone(), phase.clone()).await?),
        None => None,
    };
    metrics::slots(agent.slot_count);
    agent.runtime.begin().await?;
    tracing::info!(worker = agent.name, url = agent.client.base_url(), slots = agent.slot_count, "started");
    let ended = Parts::start(&agent, &phase).run(&agent, phase).await;
    tracing::info!(worker = agent.name, "stopped");
    ended
}

/// What goes on all the time, each part of no use without the others: undelivered results and leases that
/// nobody keeps both mean that what runs here is run again elsewhere.
struct Parts {
    polling: JoinHandle<Result<(), Error>>,
    delivery: JoinHandle<()>,
    heartbeats: JoinHandle<()>,
    /// Delivery ends with the last of these.
    results: mpsc::Sender<Report>,
}

impl Parts {
    fn start(agent: &Arc<Agent>, phase: &watch::Receiver<Shutdown>) -> Self {
        // Ended attempts wait here for the sender, each keeping its slot while there is no room.
        let (results, queue) = mpsc::channel(agent.slots.available_permits());
        Self {
            polling: tokio::spawn(poll::poll(agent.clone(), results.clone(), phase.clone())),
            delivery: tokio::spawn(results::deliver(agent.clone(), queue)),
            heartbeats: tokio::spawn(heartbeat::keep_leases(agent.clone())),
            results,
        }
    }

    /// Until the shutdown, or the early end of a part: that stops the others and is the worker's error, so
    /// that whoever watches over it starts it again.
    async fn run(self, agent: &Agent, phase: watch::Receiver<Shutdown>) -> Result<(), Error> {
        let Self { mut polling, mut delivery, mut heartbeats, results } = self;
        let work = async {
            (&mut polling).await.unwrap_or_else(|fault| Err(fault_of("asking for work", Err(fault))))?;
            agent.drain(phase).await;
            Ok(())
        };
        let ended = tokio::select! {
            ended = work => ended,
            ended = &mut delivery => Err(fault_of("delivering results", ended)),
            ended = &mut heartbeats => Err(fault_of("keeping leases", ended)),
        };
        if let Err(error @ Error::Fault(_)) = &ended {
            tracing::error!(%error, "stopping everything");
            agent.health.is_faulty();
        }
        polling.abort();
        agent.stop().await;
        drop(results);
        if !delivery.is_finished() && !matches!(timeout(LEASE, delivery).await, Ok(Ok(()))) {
            tracing::error!("not every result could be delivered; their leases will expire");
        }
        heartbeats.abort();
        attempt::late_logs(agent).await;
        ended
    }
}

/// A part has ended that never does before the rest has.
fn fault_of(part: &str, ended: Result<(), JoinError>) -> Error {
    let why = ended.err().map_or_else(|| "it just ended".to_owned(), |fault| fault.to_string());
    Error::Fault(format!("{part}: {why}"))
}

impl Agent {
    /// An agent that has nothing yet.
    pub(crate) fn new(options: &Options, runtime: Box<dyn Runtime>) -> Result<Self, Error> {
        let slots = options.slots();
        Ok(Self {
            client: options.client()?,
            leases: Arc::default(),
            runtime,
            health: Arc::default(),
            metrics_addr: options.metrics_addr,
            kill_grace: options.kill_grace,
            name: options.name(),
            queues: options.queues(),
            slots: Arc::new(Semaphore::new(slots)),
            slot_count: u32::try_from(slots).unwrap_or(limits::MAX_DEQUEUE),
            heartbeat_interval: watch::Sender::new(LEASE / limits::HEARTBEATS_PER_LEASE.unsigned_abs()),
            heartbeats_due: Notify::new(),
            late_logs: watch::Sender::new(0),
        })
    }

    /// How many slots or results make a request that need not wait for more.
    fn company(&self) -> u32 {
        (self.slot_count / SLOTS_OF_COMPANY).max(LEAST_COMPANY.min(self.slot_count))
    }

    /// Waits for what runs until the shutdown is out of patience.
    async fn drain(&self, mut phase: watch::Receiver<Shutdown>) {
        tokio::select! {
            _ = self.slots.acquire_many(self.slot_count) => {}
            () = reached(&mut phase, Shutdown::Stopping) => {
                tracing::info!("out of time: stopping and releasing what still runs");
            }
        }
    }

    /// Stops what still runs and gives it back; no longer than that can matter, since a result that finds no
    /// room keeps its slot.
    async fn stop(&self) {
        self.leases.stop_all(Stop::Release);
        let patience = self.kill_grace.saturating_add(LEASE);
        if timeout(patience, self.slots.acquire_many(self.slot_count)).await.is_err() {
            tracing::error!("not every attempt could be ended and answered for; their leases will expire");
        }
    }
}

/// Waits until the shutdown has gone at least so far.
async fn reached(phase: &mut watch::Receiver<Shutdown>, least: Shutdown) {
    if phase.wait_for(|phase| *phase >= least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How many of what is due fit into one request of so many bytes: one at least.
fn fitting(sizes: impl Iterator<Item = usize>, most_bytes: usize) -> usize {
    let mut bytes = 0;
    let further = sizes.enumerate().take_while(|&(place, size)| {
        bytes += size;
        place == 0 || bytes <= most_bytes
    });
    further.count()
}

/// Puts a result into the queue. Only after a fault does nobody take it out: then the lease is not kept any longer,
/// so that the controller gives the execution to another worker.
async fn report(leases: &Leases, results: &mpsc::Sender<Report>, report: Report) {
    if let Err(SendError(report)) = results.send(report).await {
        tracing::error!("nobody delivers results any more; the lease will expire");
        leases.remove(&report.key());
    }
}

#[cfg(test)]
mod tests;
