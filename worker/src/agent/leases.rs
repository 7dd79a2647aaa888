//! The leases that this worker holds: what heartbeats renew, and how a job is told to stop.

use jobplane_protocol::{ExecutionId, LeaseId};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// One attempt: an execution, and the lease that this worker has on it.
pub(crate) type LeaseKey = (ExecutionId, LeaseId);

/// Why a job has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody asked to cancel it.
    Cancel,
    /// The worker shuts down: give the attempt back.
    Release,
    /// The lease is gone: another worker may already run it.
    Lost,
}

/// Hears why to stop; holds `None` until there is a reason.
pub(crate) type StopReceiver = watch::Receiver<Option<Stop>>;

/// Every lease from its dequeue until its result is delivered or the lease is lost.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<LeaseKey, watch::Sender<Option<Stop>>>>,
}

impl Leases {
    /// Begins to hold a lease.
    pub(crate) fn add(&self, key: LeaseKey) -> StopReceiver {
        let (sender, receiver) = watch::channel(None);
        self.held().insert(key, sender);
        receiver
    }

    /// Ends a lease whose result has been answered.
    pub(crate) fn remove(&self, key: &LeaseKey) {
        self.held().remove(key);
    }

    /// Asks one job to stop; the first reason stays.
    pub(crate) fn stop(&self, key: &LeaseKey, why: Stop) {
        if let Some(sender) = self.held().get(key) {
            ask(sender, why);
        }
    }

    /// Asks every job to stop.
    pub(crate) fn stop_all(&self, why: Stop) {
        self.held().values().for_each(|sender| ask(sender, why));
    }

    /// Ends a lease that the controller has given up: the job stops and nothing is reported.
    pub(crate) fn lose(&self, key: &LeaseKey) {
        if let Some(sender) = self.held().remove(key) {
            tracing::info!(execution_id = %key.0, "the lease is lost");
            sender.send_replace(Some(Stop::Lost));
        }
    }

    /// Whether the lease is still held, as far as this worker knows.
    pub(crate) fn holds(&self, key: &LeaseKey) -> bool {
        self.held().contains_key(key)
    }

    /// Every lease that is held.
    pub(crate) fn keys(&self) -> Vec<LeaseKey> {
        self.held().keys().copied().collect()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<LeaseKey, watch::Sender<Option<Stop>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(sender: &watch::Sender<Option<Stop>>, why: Stop) {
    sender.send_if_modified(|reason| {
        let first = reason.is_none();
        if first {
            *reason = Some(why);
        }
        first
    });
}

/// Waits until there is a reason to stop.
pub(crate) async fn stopped(stop: &mut StopReceiver) -> Stop {
    // The sender goes away only after it has said why, or when the attempt has been answered for.
    stop.wait_for(Option::is_some).await.ok().and_then(|reason| *reason).unwrap_or(Stop::Lost)
}
