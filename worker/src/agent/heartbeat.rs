//! Keeping leases: one batch of heartbeats per interval for everything the worker holds.

use super::leases::Stop;
use super::{Agent, fitting};
use crate::{Backoff, Error, metrics};
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
/// Bytes of progress in one request: the limit, less room for the ids of as many items as it may have.
const MAX_BATCH_BYTES: usize = limits::MAX_REQUEST_BYTES - limits::MAX_BATCH * 200;

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
        let mut due = agent.leases.beats();
        while !due.is_empty() {
            let batch = take_batch(&mut due);
            let count = batch.len();
            if let Err(error) = agent.renew(batch).await {
                failed = true;
                metrics::heartbeats_failed();
                tracing::warn!(%error, leases = count, "heartbeats were not answered; the jobs go on");
            }
        }
        if !failed {
            failures.reset();
        }
    }
}

/// Some of what is due, as many as one request holds.
fn take_batch(due: &mut Vec<HeartbeatItem>) -> Vec<HeartbeatItem> {
    let bytes = |beat: &HeartbeatItem| beat.progress.as_ref().map_or(0, |progress| progress.get().len());
    let count = fitting(due.iter().rev().take(limits::MAX_BATCH).map(bytes), MAX_BATCH_BYTES);
    due.split_off(due.len() - count)
}

impl Agent {
    /// One batch, and what each answer asks for.
    async fn renew(&self, leases: Vec<HeartbeatItem>) -> Result<(), Error> {
        let request = HeartbeatsRequest { leases };
        let within = CALL_CAP.min(*self.heartbeat_interval.borrow());
        let call = self.client.post("/internal/executions/heartbeats").json(&request).within(within);
        let answer: HeartbeatsResponse = call.send().await?;
        for (beat, result) in request.leases.iter().zip(&answer.results) {
            let key = (beat.execution_id, beat.lease_id);
            self.leases.told(beat);
            match result.state {
                LeaseState::Held => {}
                LeaseState::CancelRequested => self.leases.stop(&key, Stop::Cancel),
                LeaseState::Lost => self.leases.lose(&key),
            }
        }
        Ok(())
    }
}
