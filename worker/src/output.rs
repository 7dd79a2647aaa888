//! A job's output: both streams as they come, cut into lines, with the last errors kept for the result.

mod lines;

pub(crate) use lines::split;

use crate::logs::LogWriter;
use jobplane_protocol::Stream;
use lines::Lines;
use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Bytes that are read from a stream at once: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// How long a pipe that is still open may be silent once nothing of the job is left. Its bytes are in
/// the pipe by then; only a process that the job handed it to, and never made, can hold it open.
const SILENCE_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes that are still read once the job is gone: the most that a pipe can be made to hold.
const MAX_LEFT_BYTES: usize = 1024 * 1024;
/// Lines of standard error that go into the result of a failure.
const LAST_ERRORS: usize = 5;
/// Longest of them, in characters.
const LAST_ERROR_CHARS: usize = 500;

/// One of the two streams.
struct Source<R> {
    pipe: Option<R>,
    buffer: Vec<u8>,
    lines: Lines,
    stream: Stream,
}

impl<R: AsyncRead + Unpin> Source<R> {
    fn new(pipe: Option<R>, stream: Stream) -> Self {
        Self { pipe, buffer: vec![0; READ_BYTES], lines: Lines::default(), stream }
    }

    /// The next bytes, 0 at the end; never ready after that. Losing it in a `select!` loses nothing.
    async fn read(&mut self) -> usize {
        match &mut self.pipe {
            Some(pipe) => pipe.read(&mut self.buffer).await.unwrap_or(0),
            None => pending().await,
        }
    }

    /// Logs the lines that these bytes complete.
    async fn take(&mut self, count: usize, sink: &mut Sink<'_>) -> usize {
        if count == 0 {
            self.pipe = None;
        }
        for line in self.lines.feed(&self.buffer[..count]) {
            sink.push(self.stream, line).await;
        }
        count
    }

    /// Logs the line that was never ended.
    async fn finish(mut self, sink: &mut Sink<'_>) {
        if let Some(line) = self.lines.finish() {
            sink.push(self.stream, line).await;
        }
    }
}

/// Where lines go: the log, and the memory of the last errors.
struct Sink<'a> {
    log: &'a mut LogWriter,
    last_errors: VecDeque<String>,
}

impl Sink<'_> {
    async fn push(&mut self, stream: Stream, line: String) {
        if stream == Stream::Stderr {
            if self.last_errors.len() == LAST_ERRORS {
                self.last_errors.pop_front();
            }
            self.last_errors.push_back(line.chars().take(LAST_ERROR_CHARS).collect());
        }
        self.log.push(stream, line).await;
    }
}

/// Logs both streams until they end, or until the job is gone and they fall silent. Gives back the
/// last lines of standard error.
pub(crate) async fn pump(
    (stdout, stderr): (Option<impl AsyncRead + Unpin>, Option<impl AsyncRead + Unpin>),
    mut all_is_gone: oneshot::Receiver<()>,
    log: &mut LogWriter,
) -> String {
    let mut out = Source::new(stdout, Stream::Stdout);
    let mut err = Source::new(stderr, Stream::Stderr);
    let mut sink = Sink { log, last_errors: VecDeque::new() };
    while out.pipe.is_some() || err.pipe.is_some() {
        tokio::select! {
            count = out.read() => out.take(count, &mut sink).await,
            count = err.read() => err.take(count, &mut sink).await,
            _ = &mut all_is_gone => break,
        };
    }
    let mut left = 0;
    while (out.pipe.is_some() || err.pipe.is_some()) && left < MAX_LEFT_BYTES {
        let more = async {
            tokio::select! {
                count = out.read() => (Stream::Stdout, count),
                count = err.read() => (Stream::Stderr, count),
            }
        };
        left += match timeout(SILENCE_TIMEOUT, more).await {
            Ok((Stream::Stdout, count)) => out.take(count, &mut sink).await,
            Ok((Stream::Stderr, count)) => err.take(count, &mut sink).await,
            Err(_) => break,
        };
    }
    out.finish(&mut sink).await;
    err.finish(&mut sink).await;
    Vec::from(sink.last_errors).join("\n")
}
