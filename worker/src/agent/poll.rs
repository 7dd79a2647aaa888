//! Asking for work: at once while there is some, ever more rarely while there is none.

use super::attempt::attempt;
use super::leases::LeaseKey;
use super::results::Report;
use super::{Agent, LINGER, reached, report};
use crate::health::Starts;
use crate::metrics::{self, Dequeue};
use crate::trace::{self, Trace};
use crate::{Backoff, Error, Shutdown};
use jiff::Timestamp;
use jobplane_protocol::{DequeueRequest, DequeueResponse, ErrorCode, LeaseId, limits};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

/// After the nth empty answer in a row (n from 0) the next question comes after
/// `poll_after_ms + uniform(0, min(IDLE_CAP, IDLE_BASE × 2ⁿ))`. Were it the longer of the two, the first waits would all be
/// as long as the controller says, and a fleet that has begun together would go on asking together.
const IDLE_BASE: Duration = Duration::from_millis(200);
/// The longest that an idle worker adds of its own accord.
const IDLE_CAP: Duration = Duration::from_secs(5);
/// The longest pause that a controller can ask for with `poll_after_ms`.
const MAX_POLL_AFTER: Duration = Duration::from_secs(300);
/// The longest first pause after a dequeue that was not answered.
const FAILURE_BASE: Duration = Duration::from_millis(500);
/// The longest pause after a dequeue that was not answered, `Retry-After` apart.
const FAILURE_CAP: Duration = Duration::from_secs(10);
/// The longest first pause while this machine cannot start what it takes.
const STARTS_BASE: Duration = Duration::from_secs(2);
/// The longest pause while it cannot.
const STARTS_CAP: Duration = Duration::from_secs(30);
/// How long what has begun after others failed must stay, before more is taken.
const PROBE: Duration = Duration::from_secs(1);
/// How long a worker that drains still asks for the answer to a dequeue that may hold work, so that the
/// work can be given back rather than expire, which would spend one of its tries.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// The shortest heartbeat interval that a controller can ask for.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Takes and starts executions until a shutdown begins.
///
/// # Errors
/// What the controller refused the first dequeue with; later refusals are waited out.
pub(super) async fn poll(
    agent: Arc<Agent>,
    results: mpsc::Sender<Report>,
    mut phase: watch::Receiver<Shutdown>,
) -> Result<(), Error> {
    let mut idle = Backoff::new(IDLE_BASE, IDLE_CAP);
    let mut starts = agent.health.starts();
    let mut pauses = Backoff::new(STARTS_BASE, STARTS_CAP);
    let mut answered = false;
    loop {
        let slots = tokio::select! {
            slots = agent.free_slots() => slots,
            () = reached(&mut phase, Shutdown::Draining) => return Ok(()),
        };
        let Some(slots) = slots else { return Ok(()) };
        let mut limit = slots.num_permits();
        let probing = *starts.borrow() != Starts::Good;
        if probing {
            // One, to see whether it can be started by now: every other would only be taken from workers that can.
            limit = 1;
            let wait = pauses.next_wait().max(PROBE);
            tracing::error!(?wait, "what this machine takes it cannot start; it is released");
            tokio::select! {
                () = sleep(wait) => agent.health.proven(),
                () = reached(&mut phase, Shutdown::Draining) => return Ok(()),
            }
        } else {
            pauses.reset();
        }
        starts.mark_unchanged();
        let Some(taken) = agent.dequeue(limit, answered, &mut phase).await? else {
            return Ok(());
        };
        answered = true;
        let mut wait = Duration::from_millis(taken.answer.poll_after_ms.into()).min(MAX_POLL_AFTER);
        if taken.answer.executions.is_empty() {
            wait += idle.next_wait();
        } else {
            idle.reset();
        }
        let probing = probing && !taken.answer.executions.is_empty();
        let draining = *phase.borrow() >= Shutdown::Draining;
        let late = taken.late;
        agent.start(taken, slots, draining, &results);
        if late {
            agent.heartbeats_due.notify_one();
        }
        let waited = async {
            if probing {
                agent.probed(&mut starts).await;
            }
            sleep(wait).await;
        };
        tokio::select! {
            () = waited => {}
            () = reached(&mut phase, Shutdown::Draining) => return Ok(()),
        }
    }
}

/// What a dequeue brought.
struct Taken {
    answer: DequeueResponse,
    /// When the request that was answered was sent.
    asked: Timestamp,
    /// Whether the lease may have begun with an earlier try.
    late: bool,
}

impl Agent {
    /// Waits for a free slot, a moment for a quarter of all to be free, and takes all that are, up to what one dequeue
    /// may ask for.
    async fn free_slots(&self) -> Option<OwnedSemaphorePermit> {
        let mut slots = self.slots.clone().acquire_owned().await.ok()?;
        let company = self.company().saturating_sub(1);
        if let Ok(company) = timeout(LINGER, self.slots.clone().acquire_many_owned(company)).await {
            slots.merge(company.ok()?);
        }
        let more = self.slots.available_permits().min(limits::MAX_DEQUEUE as usize - 1);
        if let Ok(more) = self.slots.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            slots.merge(more);
        }
        Some(slots)
    }

    /// Waits until it is known whether the one that was taken could be started: it has begun and stayed, or has ended. One
    /// that does neither for long is left behind.
    async fn probed(&self, starts: &mut watch::Receiver<Starts>) {
        if timeout(STARTS_CAP, starts.changed()).await.is_ok() && *starts.borrow() == Starts::Perhaps {
            sleep(PROBE).await;
            self.health.proven();
        }
    }

    /// One dequeue, repeated under the same lease until it is answered, so that a lost answer costs
    /// nothing. `None` if a shutdown came first and nothing can have been handed out, or the controller is
    /// not there to be asked for it, or the answer did not come in time.
    async fn dequeue(
        &self,
        limit: usize,
        answered: bool,
        phase: &mut watch::Receiver<Shutdown>,
    ) -> Result<Option<Taken>, Error> {
        let mut request = self.dequeue_request(limit);
        let mut failures = Backoff::new(FAILURE_BASE, FAILURE_CAP);
        let mut may_have_arrived = false;
        let mut draining = phase.clone();
        let mut out_of_time = pin!(async move {
            reached(&mut draining, Shutdown::Draining).await;
            sleep(LAST_ANSWER).await;
        });
        loop {
            let call = self.client.post("/internal/executions/dequeue").json(&request).once();
            let asked = Timestamp::now();
            let error = tokio::select! {
                answer = call.send() => match answer {
                    Ok(answer) => {
                        self.heard(&answer);
                        return Ok(Some(Taken { answer, asked, late: may_have_arrived }));
                    }
                    Err(error) => error,
                },
                () = &mut out_of_time => {
                    may_have_arrived = true;
                    break;
                }
            };
            metrics::dequeued(Dequeue::Failed, 0);
            self.health.heard(false);
            if error.code() == Some(ErrorCode::LeaseIdTaken) {
                request.lease_id = LeaseId::random();
            } else if !answered && error.status().is_some() {
                return Err(error);
            }
            may_have_arrived |= error.may_have_arrived();
            let wait = error.pause() + failures.next_wait();
            tracing::warn!(%error, ?wait, "no work could be asked for");
            let draining = *phase.borrow() >= Shutdown::Draining;
            if draining && !error.may_have_arrived() {
                break;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = reached(phase, Shutdown::Draining), if !draining => {
                    if !may_have_arrived {
                        break;
                    }
                    failures.reset();
                }
                () = &mut out_of_time => break,
            }
        }
        if may_have_arrived {
            tracing::warn!("a dequeue was not answered: what it may have brought expires with its lease");
        }
        Ok(None)
    }

    fn heard(&self, answer: &DequeueResponse) {
        let count = answer.executions.len();
        metrics::dequeued(if count == 0 { Dequeue::Empty } else { Dequeue::Work }, count);
        self.health.heard(true);
    }

    fn dequeue_request(&self, limit: usize) -> DequeueRequest {
        DequeueRequest {
            lease_id: LeaseId::random(),
            worker_id: self.name.clone(),
            limit: u32::try_from(limit).unwrap_or(limits::MAX_DEQUEUE),
            queues: self.queues.clone(),
            tenant_ids: None,
            wait_ms: None,
        }
    }

    /// Starts what came, each in a slot; what has none, or comes while the worker drains, is released. Nothing
    /// here waits for room among the results: a worker that is asked to stop must hear it.
    fn start(
        self: &Arc<Self>,
        taken: Taken,
        mut slots: OwnedSemaphorePermit,
        draining: bool,
        results: &mpsc::Sender<Report>,
    ) {
        let Taken { answer, asked, .. } = taken;
        let interval = Duration::from_millis(answer.heartbeat_interval_ms.into()).max(MIN_HEARTBEAT_INTERVAL);
        self.heartbeat_interval.send_if_modified(|known| {
            let changed = *known != interval;
            *known = interval;
            changed
        });
        for leased in answer.executions {
            let key: LeaseKey = (leased.execution_id, answer.lease_id);
            let trace = Trace::begin(&leased, key, asked);
            let span = trace::lines(&leased, key, &trace);
            let stop = span.in_scope(|| self.leases.add(key));
            let (agent, results) = (self.clone(), results.clone());
            match slots.split(1) {
                Some(slot) if !draining => {
                    tokio::spawn(attempt(agent, results, leased, key, stop, slot, trace).instrument(span));
                }
                _ => {
                    metrics::attempt_unbegun();
                    let released = async move {
                        tracing::info!("released unstarted");
                        report(&agent.leases, &results, Report::released(key, trace)).await;
                    };
                    tokio::spawn(released.instrument(span));
                }
            }
        }
    }
}
