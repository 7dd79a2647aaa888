//! One attempt from its lease to its result: the job, its log, and what is said about it.

use super::leases::{LeaseKey, Progress, Stop, StopReceiver};
use super::results::Report;
use super::{Agent, report};
use crate::runtime::Ending;
use crate::trace::Trace;
use crate::{logs, metrics};
use jobplane_protocol::{LeasedExecution, limits};
use opentelemetry::trace::{FutureExt, SpanKind};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

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
    trace: Trace,
) {
    let leases = agent.leases.clone();
    let began = Instant::now();
    metrics::attempt_began();
    let health = agent.health.clone();
    let ending = contained(run(agent, leased, key, stop.clone(), trace.clone())).await;
    health.ended(ending.unstarted);
    let lost = *stop.borrow() == Some(Stop::Lost);
    metrics::attempt_ended((!lost).then_some(ending.outcome), began.elapsed());
    if lost {
        trace.failed("the lease was lost");
        return;
    }
    trace.ended(&ending);
    tracing::info!(outcome = ?ending.outcome, error = ending.error, "ended");
    report(&leases, &results, Report::new(key, ending, trace)).await;
    drop(slot);
}

/// The job and its log, to the end of both.
async fn run(
    agent: Arc<Agent>,
    mut leased: LeasedExecution,
    key: LeaseKey,
    stop: StopReceiver,
    trace: Trace,
) -> Ending {
    let (mut log, shipper) =
        logs::open(agent.client.clone(), agent.leases.clone(), agent.health.clone(), key);
    let shipping = tokio::spawn(shipper.ship().in_current_span());
    let progress = Progress::new(agent.leases.clone(), key);
    let span = trace.within("run", SpanKind::Internal);
    leased.traceparent = span.parent().or(leased.traceparent);
    let ending = agent.runtime.run(&leased, &mut log, progress, stop).with_context(span.context()).await;
    span.ended(&ending);
    drop(span);
    log.close();
    flush(&agent, shipping).await;
    ending
}

/// Runs an attempt to its ending, also when a fault of the worker's own ends it: a lease that nobody answers for would
/// be renewed for as long as the worker lives. What the attempt had started ends with it.
async fn contained(attempt: impl Future<Output = Ending> + Send + 'static) -> Ending {
    tokio::spawn(attempt.in_current_span()).await.unwrap_or_else(|fault| {
        tracing::error!(%fault, "an attempt was ended by a fault of this worker");
        Ending::failed("the worker had a fault of its own; its log has more")
    })
}

async fn flush(agent: &Arc<Agent>, mut shipping: JoinHandle<()>) {
    if timeout(FLUSH_TIMEOUT, &mut shipping).await.is_ok() {
        return;
    }
    let agent = agent.clone();
    agent.late_logs.send_modify(|logs| *logs += 1);
    let late = async move {
        if timeout(LOG_GRACE, &mut shipping).await.is_err() {
            shipping.abort();
            tracing::warn!("the end of the log could not be delivered");
        }
        agent.late_logs.send_modify(|logs| *logs -= 1);
    };
    tokio::spawn(late.in_current_span());
}

/// Waits for the logs that are not delivered yet, for as long as the controller would take them.
pub(super) async fn late_logs(agent: &Agent) {
    let mut late = agent.late_logs.subscribe();
    if timeout(LOG_GRACE, late.wait_for(|&logs| logs == 0)).await.is_err() {
        tracing::warn!(logs = *late.borrow(), "the ends of logs could not be delivered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::agent;
    use jobplane_protocol::Outcome;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::time::sleep;

    #[tokio::test]
    async fn a_fault_of_the_worker_fails_the_attempt_and_may_be_tried_again() {
        let ending = contained(async { panic!("on purpose") }).await;
        assert_eq!((ending.outcome, ending.retryable), (Outcome::Failed, None));
        assert_eq!(contained(async { Ending::released() }).await.outcome, Outcome::Released);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_log_that_comes_after_its_result_is_waited_for() {
        let agent = Arc::new(agent("http://127.0.0.1:1"));
        let delivered = Arc::new(AtomicBool::new(false));
        let says = delivered.clone();
        let shipping = tokio::spawn(async move {
            sleep(FLUSH_TIMEOUT + LOG_GRACE / 2).await;
            says.store(true, Ordering::Relaxed);
        });
        flush(&agent, shipping).await;
        assert!(!delivered.load(Ordering::Relaxed), "the result does not wait for it");
        late_logs(&agent).await;
        assert!(delivered.load(Ordering::Relaxed));
    }
}
