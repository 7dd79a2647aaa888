//! The log of one attempt: a bounded buffer between the job, which may write faster than the
//! controller takes, and the shipper that sends it in order.

mod ship;

use crate::agent::{LeaseKey, Leases};
use crate::health::Health;
use crate::{Client, metrics};
use jiff::Timestamp;
use jobplane_protocol::{LogLine, Stream, limits};
use ship::Shipper;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

/// What the buffer of one attempt holds, in bytes.
const BUFFER_BYTES: usize = 1024 * 1024;
/// What a line takes beside its text: so a flood of empty lines is bounded too.
const LINE_OVERHEAD_BYTES: usize = 64;
/// How long the job is held up when the buffer is full, before lines are dropped instead: a
/// controller that is away must not stop a job for ever.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A line, and the room that it takes until the controller has it.
struct Buffered {
    line: LogLine,
    _room: OwnedSemaphorePermit,
}

/// Where an attempt's lines go in.
pub(crate) struct LogWriter {
    lines: mpsc::UnboundedSender<Buffered>,
    room: Arc<Semaphore>,
    /// Bytes of text that went in.
    taken: usize,
    opened: Instant,
    health: Arc<Health>,
    /// Dropped since the last line that found room; said in the log when there is room again.
    dropped: u64,
    /// Lines dropped by either end and not yet said.
    lost: Arc<AtomicU64>,
}

/// The two ends of one attempt's log.
pub(crate) fn open(
    client: Client,
    leases: Arc<Leases>,
    health: Arc<Health>,
    key: LeaseKey,
) -> (LogWriter, Shipper) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let lost = Arc::<AtomicU64>::default();
    let room = Arc::new(Semaphore::new(BUFFER_BYTES));
    let opened = Instant::now();
    let writer = LogWriter { lines: sender, room, opened, health, taken: 0, dropped: 0, lost: lost.clone() };
    (writer, Shipper::new(client, leases, key, receiver, lost))
}

impl LogWriter {
    /// The job has started: what comes from here on is its own.
    pub(crate) fn begin(&self) {
        metrics::job_started(self.opened.elapsed());
        self.health.begun();
    }

    /// Takes one line; waits for room, and drops the line if there is none for too long. After the line
    /// at which the controller ends the log, which says so there, it takes no more.
    pub(crate) async fn push(&mut self, stream: Stream, text: String) {
        if self.taken > limits::MAX_LOG_BYTES {
            return;
        }
        let bytes = u32::try_from(text.len() + LINE_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let Some(room) = self.room(bytes).await else {
            self.dropped += 1;
            metrics::lines_lost(1);
            return;
        };
        self.lost.fetch_add(std::mem::take(&mut self.dropped), Ordering::Relaxed);
        self.taken += text.len();
        let line = LogLine { at: Timestamp::now(), stream, text };
        if self.lines.send(Buffered { line, _room: room }).is_err() {
            tracing::trace!("the log's other end is gone with its lease");
        }
    }

    /// Room for a line. The job waits for it once; while lines are being dropped it waits no more.
    async fn room(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        if let Ok(room) = self.room.clone().try_acquire_many_owned(bytes) {
            return Some(room);
        }
        if self.dropped > 0 || self.lines.is_closed() {
            return None;
        }
        timeout(STALL_TIMEOUT, self.room.clone().acquire_many_owned(bytes)).await.ok()?.ok()
    }

    /// Ends the log; what is in the buffer still goes out.
    pub(crate) fn close(self) {
        self.lost.fetch_add(self.dropped, Ordering::Relaxed);
    }
}

/// The line that stands for lines that are not there.
fn lost_line(count: u64) -> LogLine {
    let text = format!("[jobplane] {count} lines lost: the controller did not take them in time");
    LogLine { at: Timestamp::now(), stream: Stream::Stderr, text }
}

#[cfg(test)]
mod tests;
