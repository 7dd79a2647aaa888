//! The agent: leases executions while it has room, keeps their leases alive, runs them and reports how they ended.

mod heartbeats;
mod reports;

use crate::exec::{Ended, Exec, Stop};
use crate::{Backoff, Client, Error, Settings, Shutdown};
use jobplane_protocol::{
    DequeueRequest, DequeueResponse, ExecutionId, LeaseId, LeasedExecution, Outcome, ResultItem,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// The longest first wait between two empty answers; it doubles up to the cap, uniform below it (full jitter).
const IDLE_BASE: Duration = Duration::from_millis(250);
/// The longest wait between two empty answers.
const IDLE_CAP: Duration = Duration::from_secs(5);
/// How long a dequeue, under one lease id, is tried before it is given up. Longer than a lease: what it took unseen
/// has run out by then.
const DEQUEUE_DEADLINE: Duration = Duration::from_secs(90);

/// What this worker holds, and how each is told to stop.
#[derive(Default)]
pub(crate) struct Held {
    executions: Mutex<HashMap<ExecutionId, Lease>>,
    /// Rings when one has been reported and its place is free.
    freed: Notify,
}

pub(crate) struct Lease {
    id: LeaseId,
    stop: watch::Sender<Stop>,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Lease>> {
        self.executions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells one job to stop, if it is still held; a reason that weighs more replaces one that weighs less.
    fn stop(&self, id: ExecutionId, reason: Stop) {
        if let Some(lease) = self.lock().get(&id) {
            lease.stop.send_if_modified(|current| {
                let heavier = reason > *current;
                *current = reason.max(*current);
                heavier
            });
        }
    }

    fn stop_all(&self, reason: Stop) {
        let ids: Vec<_> = self.lock().keys().copied().collect();
        ids.into_iter().for_each(|id| self.stop(id, reason));
    }

    fn remove(&self, id: ExecutionId) {
        self.lock().remove(&id);
        self.freed.notify_one();
    }
}

/// A worker at work.
pub(crate) struct Agent {
    client: Client,
    settings: Settings,
    exec: Arc<Exec>,
    held: Arc<Held>,
    reports: mpsc::Sender<ResultItem>,
}

impl Agent {
    /// Runs until the shutdown has gone through: drained, or stopped and released.
    pub(crate) async fn run(
        settings: Settings,
        mut shutdown: watch::Receiver<Shutdown>,
    ) -> Result<(), Error> {
        let client = settings.client()?;
        let held = Arc::new(Held::default());
        let (reports, due) = mpsc::channel(settings.slots());
        let beating = tokio::spawn(heartbeats::keep(client.clone(), held.clone()));
        let reporting = tokio::spawn(reports::deliver(client.clone(), held.clone(), due));
        let exec = Arc::new(Exec::new(&settings, client.clone()));
        let agent = Self { client, settings, exec, held, reports };
        let served = agent.serve(&mut shutdown).await;
        if served.is_ok() {
            agent.drain(&mut shutdown).await;
        }
        drop(agent);
        if reporting.await.is_err() {
            tracing::error!("the task that reports results ended early");
        }
        beating.abort();
        served
    }

    /// Takes work while there is room, until a shutdown is asked for.
    async fn serve(&self, shutdown: &mut watch::Receiver<Shutdown>) -> Result<(), Error> {
        let mut idle = Backoff::new(IDLE_BASE, IDLE_CAP);
        let mut answered = false;
        while *shutdown.borrow() == Shutdown::Running {
            let room = self.settings.slots().saturating_sub(self.held.count());
            let wait = if room == 0 {
                Duration::MAX
            } else {
                match self.dequeue(room).await {
                    Ok(taken) => {
                        answered = true;
                        let least = Duration::from_millis(taken.poll_after_ms.into());
                        if taken.executions.is_empty() {
                            least + idle.next_wait()
                        } else {
                            idle.reset();
                            let draining = *shutdown.borrow() != Shutdown::Running;
                            self.start(taken, draining);
                            least
                        }
                    }
                    // Wrong from the start: a person has to mend it.
                    Err(error @ (Error::Configuration(_) | Error::Refused(_) | Error::Gateway { .. }))
                        if !answered =>
                    {
                        return Err(error);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot dequeue");
                        idle.next_wait()
                    }
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.held.freed.notified() => {}
                _ = shutdown.changed() => {}
            }
        }
        Ok(())
    }

    /// One dequeue; the client repeats it under the same lease id until it is answered.
    async fn dequeue(&self, room: usize) -> Result<DequeueResponse, Error> {
        let request = DequeueRequest {
            lease_id: LeaseId::random(),
            worker_id: self.settings.name(),
            limit: u32::try_from(room).unwrap_or(u32::MAX),
            queues: self.settings.queues(),
            tenant_ids: None,
            wait_ms: None,
        };
        self.client.post("/internal/executions/dequeue").json(&request).within(DEQUEUE_DEADLINE).send().await
    }

    /// Starts what was taken; what a shutdown overtook is given back.
    fn start(&self, taken: DequeueResponse, draining: bool) {
        for execution in taken.executions {
            let (stop, stopped) = watch::channel(if draining { Stop::Release } else { Stop::Not });
            self.held.lock().insert(execution.execution_id, Lease { id: taken.lease_id, stop });
            let (exec, held, reports) = (self.exec.clone(), self.held.clone(), self.reports.clone());
            tokio::spawn(async move {
                let (id, lease_id) = (execution.execution_id, taken.lease_id);
                let ended = run(&exec, execution, lease_id, stopped).await;
                match ended {
                    Some(ended) => {
                        if reports.send(report(id, lease_id, ended)).await.is_err() {
                            tracing::error!(%id, "the result could not be handed over");
                        }
                    }
                    None => {
                        tracing::info!(%id, "the lease was lost; the job was stopped and nothing is reported");
                        held.remove(id);
                    }
                }
            });
        }
    }

    /// Lets running jobs finish for as long as the settings allow, then stops and releases them.
    async fn drain(&self, shutdown: &mut watch::Receiver<Shutdown>) {
        let emptied = async {
            while self.held.count() > 0 {
                self.held.freed.notified().await;
            }
        };
        tokio::pin!(emptied);
        tokio::select! {
            () = &mut emptied => return,
            () = sleep(self.settings.drain()) => {}
            _ = shutdown.wait_for(|phase| *phase == Shutdown::Stopping) => {}
        }
        tracing::info!(held = self.held.count(), "stopping what still runs and giving it back");
        self.held.stop_all(Stop::Release);
        emptied.await;
    }
}

async fn run(
    exec: &Exec,
    execution: LeasedExecution,
    lease: LeaseId,
    stop: watch::Receiver<Stop>,
) -> Option<Ended> {
    if *stop.borrow() == Stop::Release {
        return Some(Ended::of(Outcome::Released));
    }
    exec.run(execution, lease, stop).await
}

fn report(execution_id: ExecutionId, lease_id: LeaseId, ended: Ended) -> ResultItem {
    ResultItem {
        execution_id,
        lease_id,
        outcome: ended.outcome,
        exit_code: ended.exit_code,
        error: ended.error,
        result: ended.result,
        retryable: (!ended.retryable).then_some(false),
        retry_after_seconds: None,
    }
}

/// Sleeps; for ever if the wait is too long to be one.
async fn sleep(wait: Duration) {
    if wait == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(wait).await;
}
