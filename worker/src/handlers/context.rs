//! What a handler knows of its attempt, and what it can say while it runs.

use crate::agent::{Progress, Stop};
use jobplane_protocol::{ExecutionId, LeasedExecution, LeasedJob, Stream, TenantId};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Why a handler is to end. An error too, so that a handler can end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Somebody asked to cancel the execution.
    #[error("cancelled")]
    Cancelled,
    /// The attempt ran past its time limit.
    #[error("timed out")]
    TimedOut,
    /// The worker shuts down and its drain time is over: the execution starts again elsewhere.
    #[error("the worker shuts down")]
    Released,
    /// The lease is gone and another worker may run the same by now. The handler is dropped at once: only what it has
    /// started beside itself still sees this.
    #[error("the lease was lost")]
    LeaseLost,
    /// The attempt has ended, by itself as far as its context was told. Only what the handler has started beside itself
    /// sees this.
    #[error("the attempt has ended")]
    Ended,
}

impl From<Stop> for StopReason {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancel => Self::Cancelled,
            Stop::Release => Self::Released,
            Stop::Lost => Self::LeaseLost,
        }
    }
}

/// Hears why to end; holds `None` until there is a reason.
pub(super) type Told = watch::Receiver<Option<StopReason>>;
/// Where lines of the log go in.
pub(super) type LogSender = mpsc::Sender<(Stream, String)>;

/// One attempt, as its handler sees it. Clones are of the same attempt.
#[derive(Debug, Clone)]
pub struct Context {
    /// All but its input.
    leased: Arc<LeasedExecution>,
    progress: Progress,
    log: LogSender,
    told: Told,
}

impl Context {
    pub(super) fn new(leased: LeasedExecution, progress: Progress, log: LogSender, told: Told) -> Self {
        Self { leased: Arc::new(leased), progress, log, told }
    }

    /// The execution: the same in every attempt, so the key under which to do something once.
    pub fn execution_id(&self) -> ExecutionId {
        self.leased.execution_id
    }

    /// The number of this attempt, from 1. It grows with every attempt: what is downstream can fence on it.
    pub fn attempt(&self) -> i32 {
        self.leased.attempt
    }

    /// Whether this is the last try if it fails.
    pub fn is_last_try(&self) -> bool {
        self.leased.tries + 1 >= self.leased.max_attempts
    }

    /// Whose execution it is.
    pub fn tenant_id(&self) -> TenantId {
        self.leased.tenant_id
    }

    /// The job: its id, its name, and its variables with the run's over them.
    pub fn job(&self) -> &LeasedJob {
        &self.leased.job
    }

    /// The queue it came from.
    pub fn queue(&self) -> &str {
        &self.leased.queue
    }

    /// The W3C trace context of this attempt: a part of the trace that the run was asked under, if it was under one.
    pub fn traceparent(&self) -> Option<&str> {
        self.leased.traceparent.as_deref()
    }

    /// Says how far it is: any JSON of at most 4 KB, shown with the execution. It goes out with the next heartbeat, a
    /// third of a lease later at most (20 s), and the latest wins; what comes after the last heartbeat of an attempt
    /// is not kept. What is too large is dropped, with a warning in the worker's log.
    pub fn progress(&self, progress: impl Serialize) {
        match serde_json::value::to_raw_value(&progress) {
            Ok(progress) => self.progress.set(progress),
            Err(error) => tracing::warn!(%error, execution_id = %self.execution_id(), "progress is not JSON"),
        }
    }

    /// Writes to the execution's log; a text of several lines makes several. Waits while the controller takes no
    /// more, 5 s at most.
    pub async fn log(&self, stream: Stream, text: impl Into<String>) {
        if self.log.send((stream, text.into())).await.is_err() {
            tracing::debug!(execution_id = %self.execution_id(), "a line came after the end of its attempt");
        }
    }

    /// Waits until the handler is to end, and says why. It then has the worker's kill grace to end by itself. What it
    /// returns as `Ok` counts as done, whatever the reason; an error, or being dropped, is reported as the reason:
    /// cancelled, timed out or released.
    ///
    /// ```no_run
    /// # use jobplane_worker::{Context, JobError};
    /// # async fn work() {}
    /// async fn handler(ctx: Context, _: ()) -> Result<(), JobError> {
    ///     tokio::select! {
    ///         () = work() => Ok(()),
    ///         why = ctx.cancelled() => {
    ///             // Put things in order, and end.
    ///             Err(why.into())
    ///         }
    ///     }
    /// }
    /// ```
    pub async fn cancelled(&self) -> StopReason {
        let told = self.told.clone().wait_for(Option::is_some).await.map(|told| *told);
        told.ok().flatten().unwrap_or(StopReason::Ended)
    }

    /// Why the handler is to end, if it is: for code that cannot wait, such as a loop within `spawn_blocking`. That goes
    /// on after the handler has returned or was dropped, and is told of that too.
    pub fn stop_reason(&self) -> Option<StopReason> {
        // Who would tell is there until the end of the attempt. Asked first: it may tell why and go.
        let ended = self.told.has_changed().is_err();
        let told = *self.told.borrow();
        told.or(ended.then_some(StopReason::Ended))
    }
}
