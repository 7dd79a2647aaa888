//! An execution's log lines: read page by page, shown with stderr set apart.

use crate::output::Output;
use jobplane_protocol::{ExecutionId, LogPage, StoredLogLine, Stream, limits};
use jobplane_worker::Client;
use owo_colors::Style;
use std::time::Duration;

/// How long a call may be retried while something is followed: a controller that restarts ends nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Where a reader is in the logs of an execution.
pub(crate) struct Tail<'a> {
    client: &'a Client,
    id: ExecutionId,
    after: Option<String>,
    finished: bool,
}

impl<'a> Tail<'a> {
    /// The logs from their first line.
    pub(crate) fn of(client: &'a Client, id: ExecutionId) -> Self {
        Self { client, id, after: None, finished: false }
    }

    /// The lines that have come since; none if there is no news.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<StoredLogLine>> {
        let mut call = self.client.get(format!("/executions/{}/logs", self.id)).within(PATIENCE);
        call = call.query("limit", limits::MAX_PAGE);
        if let Some(after) = &self.after {
            call = call.query("after", after);
        }
        let page: LogPage = call.send().await?;
        self.after = Some(page.next);
        self.finished = page.finished;
        Ok(page.lines)
    }

    /// Whether the execution has ended and the last lines were read.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }
}

/// How lines are shown.
pub(crate) struct Lines {
    output: Output,
    timestamps: bool,
    attempt: Option<i32>,
}

impl Lines {
    /// Shows lines on this output, with or without the time of each.
    pub(crate) fn on(output: Output, timestamps: bool) -> Self {
        Self { output, timestamps, attempt: None }
    }

    /// The line for people; before the first of a further attempt, a line that says so.
    pub(crate) fn text(&mut self, line: &StoredLogLine) -> String {
        let changed = self.attempt.replace(line.attempt).is_some_and(|before| before != line.attempt);
        let style = match line.stream {
            Stream::Stdout => Style::new(),
            Stream::Stderr => Style::new().yellow(),
        };
        let mut text = String::new();
        if changed {
            let heading = format!("--- attempt {} ---", line.attempt);
            text.push_str(&self.output.paint(&heading, Style::new().dimmed()));
            text.push('\n');
        }
        if self.timestamps {
            let at = format!("{:.3} ", line.at);
            text.push_str(&self.output.paint(&at, Style::new().dimmed()));
        }
        text.push_str(&self.output.paint(&self.output.foreign(&line.text), style));
        text
    }
}
