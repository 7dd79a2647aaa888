//! A job's lines on their way to the controller: split, numbered, sent as ordered chunks.

use crate::{Client, Error};
use jiff::Timestamp;
use jobplane_protocol::{
    ErrorCode, ExecutionId, LeaseId, LogLine, LogsRequest, LogsResponse, Stream, limits,
};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Lines that wait for the controller; when full, the job waits at its pipe.
const QUEUE_LINES: usize = 2_000;
/// The longest line; a longer one is split.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// A chunk is sent when it has this much, or when there is nothing more at the moment.
const CHUNK_LINES: usize = 1_000;
const CHUNK_BYTES: usize = limits::MAX_LOG_CHUNK_BYTES / 2;
/// How long the last lines may hold back a result.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);
/// Lines of standard error that explain a failure, and how long they may be together.
const TAIL_LINES: usize = 5;
const MAX_TAIL_BYTES: usize = 2_000;

/// The log of one attempt.
pub(super) struct Logs {
    lines: Option<mpsc::Sender<LogLine>>,
    partial: [Vec<u8>; 2],
    tail: VecDeque<String>,
    lost: watch::Receiver<bool>,
    sender: tokio::task::JoinHandle<()>,
}

impl Logs {
    pub(super) fn new(client: Client, id: ExecutionId, lease: LeaseId) -> Self {
        let (lines, queue) = mpsc::channel(QUEUE_LINES);
        let (tell, lost) = watch::channel(false);
        let sender = tokio::spawn(send_all(client, id, lease, queue, tell));
        Self { lines: Some(lines), partial: [Vec::new(), Vec::new()], tail: VecDeque::new(), lost, sender }
    }

    /// Ends when the controller has said that the lease is gone.
    pub(super) async fn lost(&self) {
        if self.lost.clone().wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes bytes of a stream in; waits while the controller is behind.
    pub(super) async fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let partial = &mut self.partial[stream as usize];
        partial.extend_from_slice(bytes);
        let mut complete = Vec::new();
        while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
            complete.push(partial.drain(..=end).collect::<Vec<_>>());
        }
        if partial.len() > MAX_LINE_BYTES {
            complete.push(std::mem::take(partial));
        }
        for line in complete {
            self.line(stream, &line).await;
        }
    }

    async fn line(&mut self, stream: Stream, bytes: &[u8]) {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for part in bytes.chunks(MAX_LINE_BYTES).chain(bytes.is_empty().then_some(bytes)) {
            let text = String::from_utf8_lossy(part).into_owned();
            if stream == Stream::Stderr {
                self.tail.push_back(text.clone());
                if self.tail.len() > TAIL_LINES {
                    self.tail.pop_front();
                }
            }
            if let Some(lines) = &self.lines
                && lines.send(LogLine { at: Timestamp::now(), stream, text }).await.is_err()
            {
                self.lines = None;
            }
        }
    }

    /// Sends what is left, and gives back the last lines of standard error as the end of a sentence.
    pub(super) async fn finish(mut self) -> String {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                self.line(stream, &rest).await;
            }
        }
        drop(self.lines.take());
        let abort = self.sender.abort_handle();
        if tokio::time::timeout(FLUSH_LIMIT, self.sender).await.is_err() {
            abort.abort();
            tracing::warn!("the last lines of a job's log were not delivered");
        }
        let tail: Vec<_> = self.tail.into_iter().map(|line| line.replace('\0', "\u{fffd}")).collect();
        let mut text = if tail.is_empty() { String::new() } else { format!(": {}", tail.join("\n")) };
        text.truncate(text.floor_char_boundary(MAX_TAIL_BYTES));
        text
    }
}

/// Sends chunks in order until the log ends or its lease is gone.
async fn send_all(
    client: Client,
    id: ExecutionId,
    lease: LeaseId,
    mut queue: mpsc::Receiver<LogLine>,
    lost: watch::Sender<bool>,
) {
    let (mut next_seq, mut waiting) = (0, Vec::new());
    while queue.recv_many(&mut waiting, CHUNK_LINES).await > 0 {
        while !waiting.is_empty() {
            let mut bytes = 0;
            let fit = waiting.iter().take_while(|line| {
                bytes += line.text.len();
                bytes <= CHUNK_BYTES
            });
            let lines: Vec<_> = waiting.drain(..fit.count().max(1)).collect();
            let count = i64::try_from(lines.len()).unwrap_or_default();
            let request = LogsRequest { lease_id: lease, first_seq: next_seq, lines };
            let call = client.post(format!("/internal/executions/{id}/logs")).json(&request);
            match call.send::<LogsResponse>().await {
                Ok(answer) => next_seq = answer.next_seq,
                Err(error) if error.code() == Some(ErrorCode::LeaseLost) => {
                    lost.send_replace(true);
                    return;
                }
                // A chunk that was given up had arrived all the same.
                Err(Error::Refused(problem)) if problem.next_seq.is_some_and(|seq| seq != next_seq) => {
                    next_seq = problem.next_seq.unwrap_or(next_seq);
                    waiting.splice(0..0, request.lines);
                }
                Err(error) => {
                    tracing::warn!(%id, %error, count, "lines of a job's log were lost");
                    let text = format!("[jobplane: {count} lines were lost: {error}]");
                    waiting.insert(0, LogLine { at: Timestamp::now(), stream: Stream::Stderr, text });
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}
