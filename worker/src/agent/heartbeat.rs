//! Keeping leases: one batch of heartbeats per interval for everything the worker holds.

use super::Agent;
use super::leases::{LeaseKey, Stop};
use crate::{Backoff, Error};
use jobplane_protocol::{HeartbeatItem, HeartbeatsRequest, HeartbeatsResponse, LeaseState, limits};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The shortest time between two heartbeats, in parts of the interval: a fleet that started
/// together spreads out.
const LEAST_PART: f64 = 0.8;
/// The longest first pause after a batch that was not answered.
const FAILURE_BASE: Duration = Duration::from_secs(1);
/// The longest pause after a batch that was not answered, unless the interval is shorter.
const FAILURE_CAP: Duration = Duration::from_secs(10);
/// What a batch may take with all its tries, unless the interval is shorter: a call that hangs must not be all that
/// is done for a lease.
const CALL_CAP: Duration = Duration::from_secs(20);

/// Sends heartbeats until it is aborted. It outlives every job: a lease is kept until its result is
/// delivered.
pub(super) async fn keep_leases(agent: Arc<Agent>) {
    let mut interval = agent.heartbeat_interval.subscribe();
    let mut failures = Backoff::new(FAILURE_BASE, FAILURE_CAP);
    let mut failed = false;
    loop {
        let last = Instant::now();
        let part = rand::rng().random_range(LEAST_PART..=1.0);
        let again = failed.then(|| failures.next_wait());
        // An interval that changes counts from the last batch too, or one that keeps changing would never end.
        loop {
            let regular = interval.borrow_and_update().mul_f64(part);
            tokio::select! {
                () = sleep_until(last + again.map_or(regular, |again| again.min(regular))) => break,
                () = agent.heartbeats_due.notified() => break,
                Ok(()) = interval.changed() => {}
            }
        }
        failed = false;
        for keys in agent.leases.keys().chunks(limits::MAX_BATCH) {
            if let Err(error) = agent.renew(keys).await {
                failed = true;
                tracing::warn!(%error, leases = keys.len(), "heartbeats were not answered; the jobs go on");
            }
        }
        if !failed {
            failures.reset();
        }
    }
}

impl Agent {
    /// One batch, and what each answer asks for.
    async fn renew(&self, keys: &[LeaseKey]) -> Result<(), Error> {
        let item =
            |&(execution_id, lease_id): &LeaseKey| HeartbeatItem { execution_id, lease_id, progress: None };
        let request = HeartbeatsRequest { leases: keys.iter().map(item).collect() };
        let within = CALL_CAP.min(*self.heartbeat_interval.borrow());
        let call = self.client.post("/internal/executions/heartbeats").json(&request).within(within);
        let answer: HeartbeatsResponse = call.send().await?;
        for (key, result) in keys.iter().zip(&answer.results) {
            match result.state {
                LeaseState::Held => {}
                LeaseState::CancelRequested => self.leases.stop(key, Stop::Cancel),
                LeaseState::Lost => self.leases.lose(key),
            }
        }
        Ok(())
    }
}
