//! Delivering results: one sender that takes everything due in one call, and never gives one up
//! while its lease could matter.

mod report;

pub(super) use report::Report;

use super::{Agent, LINGER, fitting};
use crate::metrics::{self, Delivery};
use crate::{Backoff, Error};
use jobplane_protocol::{ErrorCode, ResultAnswer, ResultsRequest, ResultsResponse, limits};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

/// Bytes of one request: the limit, less room for what stands around the items.
const MAX_BATCH_BYTES: usize = limits::MAX_REQUEST_BYTES - 1_000;
/// The longest first pause after a batch that was not answered.
const FAILURE_BASE: Duration = Duration::from_millis(200);
/// The longest pause after a batch that was not answered, `Retry-After` apart.
const FAILURE_CAP: Duration = Duration::from_secs(10);

/// Delivers results until no attempt is left that could send one, and the last is answered.
pub(super) async fn deliver(agent: Arc<Agent>, mut queue: mpsc::Receiver<Report>) {
    let mut due = VecDeque::new();
    let mut failures = Backoff::new(FAILURE_BASE, FAILURE_CAP);
    let mut most = limits::MAX_BATCH;
    loop {
        if due.is_empty() {
            match queue.recv().await {
                Some(report) => due.push_back(report),
                None => return,
            }
        }
        agent.linger(&mut queue, &mut due).await;
        while fits(&due) {
            let Ok(report) = queue.try_recv() else { break };
            due.push_back(report);
        }
        due.retain(|report| agent.leases.holds(&report.key()));
        let batch = take_batch(&mut due, most);
        if batch.is_empty() {
            continue;
        }
        let wait = match agent.send(&batch).await {
            Ok(answers) => {
                // Not at once back to the most: what a gateway refuses may stand right behind.
                most = (most * 2).min(limits::MAX_BATCH);
                let mut waits = false;
                for (report, answer) in batch.into_iter().zip(answers) {
                    let settled = agent.settle(report, &answer);
                    waits |= matches!(settled, Settled::Waits(_));
                    due.extend(settled.left());
                }
                waits.then(|| failures.next_wait())
            }
            Err(error) if refuses_content(&error) => {
                most = (batch.len() / 2).max(1);
                agent.split(batch, &error, &mut due);
                None
            }
            Err(error) => {
                let wait = failures.next_wait().max(error.pause());
                tracing::warn!(%error, results = batch.len(), ?wait, "results were not taken");
                metrics::results_again(batch.len());
                put_back(batch, &mut due);
                Some(wait)
            }
        };
        match wait {
            Some(wait) => sleep(wait).await,
            None => failures.reset(),
        }
    }
}

/// Whether one more can be due without the batch growing over its limits.
fn fits(due: &VecDeque<Report>) -> bool {
    due.len() < limits::MAX_BATCH && due.iter().map(|report| report.bytes).sum::<usize>() < MAX_BATCH_BYTES
}

/// The first of what is due, as many as one request holds, at least one.
fn take_batch(due: &mut VecDeque<Report>, most: usize) -> Vec<Report> {
    let count = fitting(due.iter().take(most).map(|report| report.bytes), MAX_BATCH_BYTES);
    due.drain(..count).collect()
}

fn put_back(batch: Vec<Report>, due: &mut VecDeque<Report>) {
    batch.into_iter().rev().for_each(|report| due.push_front(report));
}

/// Whether it is what the request holds that was refused, not who sent it or where.
fn refuses_content(error: &Error) -> bool {
    matches!(error.status(), Some(400 | 413 | 422))
}

/// What is left to do about a result that was answered.
#[derive(Debug)]
enum Settled {
    /// Nothing.
    Done,
    /// To send this in its place, at once.
    Replaced(Report),
    /// To send it again after a pause.
    Waits(Report),
}

impl Settled {
    /// What is to be sent.
    fn left(self) -> Option<Report> {
        match self {
            Self::Done => None,
            Self::Replaced(report) | Self::Waits(report) => Some(report),
        }
    }
}

impl Agent {
    /// Waits a moment for the results of other attempts, if any run.
    async fn linger(&self, queue: &mut mpsc::Receiver<Report>, due: &mut VecDeque<Report>) {
        let company = usize::try_from(self.company()).unwrap_or(1);
        let until = Instant::now() + LINGER;
        while due.len() < company && self.slots.available_permits() < self.slot_count as usize {
            let Ok(Some(report)) = timeout_at(until, queue.recv()).await else { return };
            due.push_back(report);
        }
    }

    async fn send(&self, batch: &[Report]) -> Result<Vec<ResultAnswer>, Error> {
        let request = ResultsRequest { results: batch.iter().map(|report| report.item.clone()).collect() };
        let mut call = self.client.post("/internal/executions/results").json(&request);
        // A request belongs to one trace at most.
        let parent = if let [only] = batch { only.sending.parent() } else { None };
        if let Some(parent) = parent {
            call = call.header("traceparent", parent);
        }
        let answer: ResultsResponse = call.send().await?;
        if answer.results.len() == batch.len() {
            return Ok(answer.results);
        }
        let cause = format!("{} answers to {} results", answer.results.len(), batch.len());
        Err(Error::Decode { url: self.client.base_url().to_owned(), cause })
    }

    /// Acts on the answer to one result.
    fn settle(&self, report: Report, answer: &ResultAnswer) -> Settled {
        let key = report.key();
        let span = report.span.clone();
        let _entered = span.enter();
        let detail = answer.detail.as_deref().unwrap_or("the controller does not say why");
        match answer.error_code {
            None => {
                metrics::result_answered(Delivery::Taken);
                self.leases.remove(&key);
            }
            Some(ErrorCode::LeaseLost | ErrorCode::ExecutionNotFound) => {
                metrics::result_answered(Delivery::Late);
                report.sending.failed("the lease was lost");
                tracing::info!("the result came after the lease was lost");
                self.leases.remove(&key);
            }
            Some(ErrorCode::Internal | ErrorCode::Unavailable | ErrorCode::RateLimited) => {
                metrics::results_again(1);
                return Settled::Waits(report);
            }
            Some(code) if report.replaced => {
                metrics::result_answered(Delivery::Refused);
                report.sending.failed(detail);
                tracing::error!(?code, detail, "gave up; the lease will expire");
                self.leases.remove(&key);
            }
            Some(code) => {
                metrics::result_answered(Delivery::Refused);
                report.sending.failed(detail);
                tracing::warn!(?code, detail, "the result was refused");
                return Settled::Replaced(report.refused(detail));
            }
        }
        Settled::Done
    }

    /// A batch that was refused whole is sent in halves; one result alone is replaced by its refusal.
    fn split(&self, mut batch: Vec<Report>, error: &Error, due: &mut VecDeque<Report>) {
        match batch.pop() {
            Some(only) if batch.is_empty() => {
                let answer = ResultAnswer {
                    execution_id: Some(only.item.execution_id),
                    status: None,
                    next_attempt_at: None,
                    error_code: Some(error.code().unwrap_or(ErrorCode::RequestTooLarge)),
                    detail: Some(error.to_string()),
                };
                due.extend(self.settle(only, &answer).left());
            }
            Some(last) => {
                batch.push(last);
                put_back(batch, due);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::agent;
    use crate::exec::tests::execution;
    use crate::runtime::Ending;
    use crate::trace::Trace;
    use jiff::Timestamp;
    use jobplane_protocol::LeaseId;

    #[test]
    fn only_a_fresh_replacement_is_sent_without_a_pause() {
        let agent = agent("http://127.0.0.1:1");
        let leased = execution(&["true"]);
        let key = (leased.execution_id, LeaseId::random());
        let trace = Trace::begin(&leased, key, Timestamp::now());
        let answer = |error_code| ResultAnswer {
            execution_id: Some(key.0),
            status: None,
            next_attempt_at: None,
            error_code: Some(error_code),
            detail: None,
        };
        let settle = |report, code| agent.settle(report, &answer(code));
        let Settled::Replaced(replacement) =
            settle(Report::new(key, Ending::failed("x"), trace), ErrorCode::InvalidRequest)
        else {
            panic!("it is replaced");
        };
        let Settled::Waits(again) = settle(replacement, ErrorCode::Unavailable) else {
            panic!("the replacement waits as any other");
        };
        assert!(again.replaced);
        assert!(matches!(settle(again, ErrorCode::InvalidRequest), Settled::Done));
    }
}
