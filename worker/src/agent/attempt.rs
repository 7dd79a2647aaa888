//! One attempt from its lease to its result: the job, its log, and what is said about it.

use super::leases::{LeaseKey, Stop, StopReceiver};
use super::results::Report;
use super::{Agent, report};
use crate::logs;
use jobplane_protocol::{LeasedExecution, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a result waits for the log before it. The log goes on afterwards for as long as the
/// controller takes lines of an attempt that has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long that is.
const LOG_GRACE: Duration = Duration::from_secs(limits::LOG_GRACE_SECONDS as u64);

/// Runs one attempt in its slot and reports how it ended, unless its lease was lost.
pub(super) async fn attempt(
    agent: Arc<Agent>,
    results: mpsc::Sender<Report>,
    leased: LeasedExecution,
    key: LeaseKey,
    stop: StopReceiver,
    slot: OwnedSemaphorePermit,
) {
    let (mut log, shipper) = logs::open(agent.client.clone(), agent.leases.clone(), key);
    let shipping = tokio::spawn(shipper.ship());
    let ending = agent.exec.run(&leased, &mut log, stop.clone()).await;
    log.close();
    flush(shipping, key).await;
    if *stop.borrow() == Some(Stop::Lost) {
        return;
    }
    tracing::info!(
        execution_id = %leased.execution_id,
        attempt = leased.attempt,
        outcome = ?ending.outcome,
        error = ending.error,
        "ended"
    );
    report(&results, Report::new(key, ending)).await;
    drop(slot);
}

async fn flush(mut shipping: JoinHandle<()>, key: LeaseKey) {
    if timeout(FLUSH_TIMEOUT, &mut shipping).await.is_ok() {
        return;
    }
    tokio::spawn(async move {
        if timeout(LOG_GRACE, &mut shipping).await.is_err() {
            shipping.abort();
            tracing::warn!(execution_id = %key.0, "the end of the log could not be delivered");
        }
    });
}
