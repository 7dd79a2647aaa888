//! The leases that this worker holds: what heartbeats renew, and how a job is told to stop.

use crate::metrics;
use jobplane_protocol::{Checks, ExecutionId, HeartbeatItem, HeartbeatRequest, Json, LeaseId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::Span;

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

/// A lease that is held.
#[derive(Debug)]
struct Held {
    stop: watch::Sender<Option<Stop>>,
    /// Of its attempt.
    span: Span,
    /// What the next heartbeat has to tell.
    progress: Option<Json>,
}

/// Every lease from its dequeue until its result is delivered or the lease is lost.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<LeaseKey, Held>>,
}

impl Leases {
    /// Begins to hold a lease, within the span of its attempt.
    pub(crate) fn add(&self, key: LeaseKey) -> StopReceiver {
        let (stop, receiver) = watch::channel(None);
        self.held().insert(key, Held { stop, span: Span::current(), progress: None });
        receiver
    }

    /// Ends a lease whose result has been answered.
    pub(crate) fn remove(&self, key: &LeaseKey) {
        self.held().remove(key);
    }

    /// Asks one job to stop; the first reason stays.
    pub(crate) fn stop(&self, key: &LeaseKey, why: Stop) {
        if let Some(held) = self.held().get(key) {
            ask(&held.stop, why);
        }
    }

    /// Asks every job to stop.
    pub(crate) fn stop_all(&self, why: Stop) {
        self.held().values().for_each(|held| ask(&held.stop, why));
    }

    /// Ends a lease that the controller has given up: the job stops and nothing is reported.
    pub(crate) fn lose(&self, key: &LeaseKey) {
        if let Some(held) = self.held().remove(key) {
            metrics::lease_lost();
            held.span.in_scope(|| tracing::info!("the lease is lost"));
            held.stop.send_replace(Some(Stop::Lost));
        }
    }

    /// Whether the lease is still held, as far as this worker knows.
    pub(crate) fn holds(&self, key: &LeaseKey) -> bool {
        self.held().contains_key(key)
    }

    /// Every lease that is held, with the progress that is not told yet.
    pub(super) fn beats(&self) -> Vec<HeartbeatItem> {
        let beat = |(&(execution_id, lease_id), held): (&LeaseKey, &Held)| HeartbeatItem {
            execution_id,
            lease_id,
            progress: held.progress.clone(),
        };
        self.held().iter().map(beat).collect()
    }

    /// Forgets progress that the controller has, unless there is other by now.
    pub(super) fn told(&self, beat: &HeartbeatItem) {
        let Some(told) = &beat.progress else { return };
        if let Some(held) = self.held().get_mut(&(beat.execution_id, beat.lease_id)) {
            held.progress.take_if(|latest| latest.get() == told.get());
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<LeaseKey, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an attempt says how far it is.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    leases: Arc<Leases>,
    key: LeaseKey,
}

impl Progress {
    pub(crate) fn new(leases: Arc<Leases>, key: LeaseKey) -> Self {
        Self { leases, key }
    }

    /// Tells it with the next heartbeat, unless later progress comes before that. What the contract does not take
    /// is dropped with a warning: an attempt must not end of how it describes itself.
    pub(crate) fn set(&self, progress: Json) {
        let (execution_id, lease_id) = self.key;
        let request = HeartbeatRequest { lease_id, progress: Some(progress) };
        if let Err((_, errors)) = Checks::of(&request) {
            let detail = errors.first().map(|error| error.detail.as_str());
            tracing::warn!(%execution_id, detail, "progress was dropped");
        } else if let Some(held) = self.leases.held().get_mut(&self.key) {
            held.progress = request.progress;
        }
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

/// Waits until the lease is lost, for ever if it is not.
pub(crate) async fn lost(stop: &mut StopReceiver) {
    if stop.wait_for(|why| *why == Some(Stop::Lost)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for an end that was asked for: as long as the grace, and no longer once the lease is lost, since another worker may
/// run the same by then. `None` if it did not come.
pub(crate) async fn within_grace<T>(
    end: impl Future<Output = T>,
    grace: Duration,
    stop: &mut StopReceiver,
) -> Option<T> {
    tokio::select! {
        biased;
        () = lost(stop) => None,
        ended = end => Some(ended),
        () = sleep(grace) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_grace_ends_with_the_end_with_its_time_or_with_the_lease() {
        let (sender, mut stop) = watch::channel(Some(Stop::Cancel));
        let grace = Duration::from_secs(10);
        assert_eq!(within_grace(ready(1), grace, &mut stop).await, Some(1));
        assert_eq!(within_grace(pending::<u8>(), grace, &mut stop).await, None);
        sender.send_replace(Some(Stop::Lost));
        let lost_at = Instant::now();
        assert_eq!(within_grace(pending::<u8>(), grace, &mut stop).await, None);
        assert_eq!(lost_at.elapsed(), Duration::ZERO);
    }
}
