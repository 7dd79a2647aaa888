//! One batched heartbeat each interval for all that the worker holds.

use super::Held;
use crate::Client;
use crate::exec::Stop;
use jobplane_protocol::{HeartbeatItem, HeartbeatsRequest, HeartbeatsResponse, LeaseState, limits};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// Sends heartbeats until it is aborted. A controller that is away stops no job: only its word that the lease is gone.
pub(super) async fn keep(client: Client, held: Arc<Held>) {
    let interval = Duration::from_millis(limits::HEARTBEAT_INTERVAL_MS.into());
    loop {
        tokio::time::sleep(jittered(interval)).await;
        let items: Vec<_> = held
            .lock()
            .iter()
            .map(|(id, lease)| HeartbeatItem { execution_id: *id, lease_id: lease.id, progress: None })
            .collect();
        for leases in items.chunks(limits::MAX_BATCH) {
            let request = HeartbeatsRequest { leases: leases.to_vec() };
            let call = client.post("/internal/executions/heartbeats").json(&request).within(interval);
            match call.send::<HeartbeatsResponse>().await {
                Ok(answer) => apply(&held, &answer),
                Err(error) => tracing::warn!(%error, "heartbeats were not delivered"),
            }
        }
    }
}

/// So that a fleet that started together does not beat together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.8..=1.0))
}

fn apply(held: &Held, answer: &HeartbeatsResponse) {
    for result in &answer.results {
        let Some(id) = result.execution_id else { continue };
        match result.state {
            LeaseState::Held => {}
            LeaseState::CancelRequested => held.stop(id, Stop::Cancel),
            LeaseState::Lost => held.stop(id, Stop::Lost),
        }
    }
}
