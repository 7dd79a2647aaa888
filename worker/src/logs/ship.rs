//! Sending a log: numbered chunks, each until it is answered, so that every line is stored once and in order.

use super::{Buffered, lost_line};
use crate::agent::{LeaseKey, Leases};
use crate::{Backoff, Client, Error, metrics};
use jobplane_protocol::{ErrorCode, LogLine, LogsRequest, LogsResponse, limits};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

/// How long the first line of a chunk waits for company, unless the log ends or the chunk is full.
const LINGER: Duration = Duration::from_millis(200);
/// The longest first pause after a chunk that was not answered.
const FAILURE_BASE: Duration = Duration::from_millis(200);
/// The longest pause after a chunk that was not answered, `Retry-After` apart.
const FAILURE_CAP: Duration = Duration::from_secs(10);

/// What became of a chunk.
#[derive(Debug, PartialEq, Eq)]
enum Shipped {
    /// Nothing of it is to be sent any more.
    Settled,
    /// The lease is gone, and the log with it.
    Fenced,
}

/// Sends one attempt's lines.
pub(crate) struct Shipper {
    client: Client,
    leases: Arc<Leases>,
    key: LeaseKey,
    lines: mpsc::UnboundedReceiver<Buffered>,
    lost: Arc<AtomicU64>,
    /// Taken from the buffer, but too much for the chunk before.
    next: Option<Buffered>,
    next_seq: i64,
}

impl Shipper {
    pub(super) fn new(
        client: Client,
        leases: Arc<Leases>,
        key: LeaseKey,
        lines: mpsc::UnboundedReceiver<Buffered>,
        lost: Arc<AtomicU64>,
    ) -> Self {
        Self { client, leases, key, lines, lost, next: None, next_seq: 0 }
    }

    /// Sends until the log is closed and empty, or the lease is lost.
    pub(crate) async fn ship(mut self) {
        if self.ship_all().await == Shipped::Fenced {
            self.leases.lose(&self.key);
        }
    }

    async fn ship_all(&mut self) -> Shipped {
        while let Some(buffered) = self.next_chunk().await {
            // The room is given back when the chunk is settled, not before.
            let chunk = buffered.iter().map(|buffered| buffered.line.clone()).collect();
            if self.settle(chunk).await == Shipped::Fenced {
                return Shipped::Fenced;
            }
            drop(buffered);
            if self.say_what_is_lost().await == Shipped::Fenced {
                return Shipped::Fenced;
            }
        }
        self.say_what_is_lost().await
    }

    /// The lines of the next chunk: those at hand, after a moment for more to come.
    async fn next_chunk(&mut self) -> Option<Vec<Buffered>> {
        let first = match self.next.take() {
            Some(first) => first,
            None => self.lines.recv().await?,
        };
        let until = Instant::now() + LINGER;
        let mut bytes = first.line.text.len();
        let mut chunk = vec![first];
        while chunk.len() < limits::MAX_LOG_CHUNK_LINES {
            let Ok(Some(more)) = timeout_at(until, self.lines.recv()).await else { break };
            bytes += more.line.text.len();
            if bytes > limits::MAX_LOG_CHUNK_BYTES {
                self.next = Some(more);
                break;
            }
            chunk.push(more);
        }
        Some(chunk)
    }

    async fn say_what_is_lost(&mut self) -> Shipped {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => Shipped::Settled,
            count => self.settle(vec![lost_line(count)]).await,
        }
    }

    /// Sends a chunk until the controller has it, will not have it, or the lease is gone.
    async fn settle(&mut self, mut lines: Vec<LogLine>) -> Shipped {
        let mut failures = Backoff::new(FAILURE_BASE, FAILURE_CAP);
        while !lines.is_empty() {
            let error = match self.send(&lines).await {
                Ok(LogsResponse { next_seq }) => {
                    metrics::lines_shipped(lines.len());
                    self.next_seq = next_seq;
                    return Shipped::Settled;
                }
                Err(error) => error,
            };
            match (error.code(), error.next_seq()) {
                (Some(ErrorCode::LeaseLost), _) => return Shipped::Fenced,
                (Some(ErrorCode::LogGap), Some(expected)) if expected != self.next_seq => {
                    self.resync(expected, &mut lines);
                }
                _ if matches!(error.status(), Some(400 | 404 | 409 | 413 | 422)) => {
                    tracing::warn!(%error, "a log chunk was refused");
                    metrics::lines_lost(lines.len());
                    let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
                    self.lost.fetch_add(count, Ordering::Relaxed);
                    return Shipped::Settled;
                }
                _ => {
                    let wait = failures.next_wait().max(error.pause());
                    tracing::debug!(%error, ?wait, "a log chunk was not taken");
                    sleep(wait).await;
                }
            }
        }
        Shipped::Settled
    }

    async fn send(&self, lines: &[LogLine]) -> Result<LogsResponse, Error> {
        let (execution_id, lease_id) = self.key;
        let request = LogsRequest { lease_id, first_seq: self.next_seq, lines: lines.to_vec() };
        self.client.post(format!("/internal/executions/{execution_id}/logs")).json(&request).send().await
    }

    /// Goes on from the number that the controller expects. Lines that it has already are not sent
    /// again; where it is behind, what it misses was settled and is not here any more.
    fn resync(&mut self, expected: i64, lines: &mut Vec<LogLine>) {
        tracing::warn!(expected, ours = self.next_seq, "the log was out of step");
        let known = usize::try_from(expected - self.next_seq).unwrap_or(0).min(lines.len());
        metrics::lines_shipped(known);
        lines.drain(..known);
        self.next_seq = expected;
    }
}
