//! Waiting for an execution to end: its logs and states as they come, its outcome as the exit code.

use crate::failure::{CANCELLED, FAILED, INTERRUPTED, TIMED_OUT};
use crate::output::{one_line, say, status_style};
use crate::progress;
use crate::session::Session;
use crate::tail::{Lines, PATIENCE, Tail};
use crate::time::{parse_duration, relative, took};
use indicatif::ProgressBar;
use jiff::Timestamp;
use jobplane_protocol::{Execution, ExecutionId, Status};
use owo_colors::OwoColorize;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

/// The first wait between two looks.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait between two looks.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Whether and how long to wait for an execution that is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Wait {
    /// Wait until it has ended, show its logs and result, and exit with its outcome
    #[arg(long, short)]
    pub(crate) wait: bool,

    /// Wait no longer than this, such as 10m; the execution goes on
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
}

/// How long to wait until the next look: short after news, longer while nothing happens.
pub(crate) struct Pace(Duration);

impl Pace {
    /// The pace right after news.
    pub(crate) fn fresh() -> Self {
        Self(FIRST_WAIT)
    }

    /// Waits until the next look.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 3 / 2).min(LONGEST_WAIT);
    }
}

/// Waits for `ended`, but not past the timeout or a Ctrl-C. The execution goes on either way.
pub(crate) async fn bounded(
    id: ExecutionId,
    timeout: Option<Duration>,
    ended: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let timed_out = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        code = ended => return code,
        () = timed_out => TIMED_OUT,
        _ = tokio::signal::ctrl_c() => INTERRUPTED,
    };
    say(&format!("Waiting ended, the execution goes on: jobplane status --watch {id}"));
    Ok(ExitCode::from(code))
}

/// Shows states and logs until the execution has ended, then its result; the outcome is the exit code. As JSON,
/// only the execution, as it ended or as it is when the waiting does.
pub(crate) async fn to_the_end(
    session: &Session,
    id: ExecutionId,
    timeout: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let mut ended = false;
    let waited = bounded(id, timeout, async {
        let outcome = with_logs(session, id).await;
        ended = true;
        outcome
    });
    let code = waited.await?;
    if !ended && session.output.is_json() {
        session.output.show(&look(session, id).await?, String::new)?;
    }
    Ok(code)
}

async fn with_logs(session: &Session, id: ExecutionId) -> anyhow::Result<ExitCode> {
    let output = &session.output;
    let spinner = progress::spinner();
    let (mut tail, mut lines) = (Tail::of(&session.client, id), Lines::on(*output, false));
    let (mut pace, mut seen) = (Pace::fresh(), None);
    let execution = loop {
        let execution = look(session, id).await?;
        let is_news = changed(&mut seen, &execution);
        let is_running = execution.status == Status::Running;
        // That an attempt runs is told before its lines, that it has ended after them.
        if is_news && is_running {
            tell(&spinner, &execution);
        }
        while !output.is_json() {
            let news = tail.next().await?;
            if news.is_empty() {
                break;
            }
            pace = Pace::fresh();
            let text: Vec<_> = news.iter().map(|line| lines.text(line)).collect();
            spinner.suspend(|| output.print(&text.join("\n")))?;
        }
        if execution.status.is_final() {
            break execution;
        }
        if is_news {
            pace = Pace::fresh();
            if !is_running {
                tell(&spinner, &execution);
            }
        }
        pace.wait().await;
    };
    spinner.finish_and_clear();
    if output.is_json() {
        output.show(&execution, String::new)?;
    } else {
        say(&summary(&execution));
        output.print(&execution.result.as_ref().map(|result| output.pretty(result)).unwrap_or_default())?;
    }
    Ok(exit_code(execution.status))
}

/// Calls `show` whenever the state has changed, until the execution has ended.
pub(crate) async fn states(
    session: &Session,
    id: ExecutionId,
    mut show: impl FnMut(&Execution) -> anyhow::Result<()>,
) -> anyhow::Result<Execution> {
    let spinner = progress::spinner();
    let (mut pace, mut seen) = (Pace::fresh(), None);
    loop {
        let execution = look(session, id).await?;
        if changed(&mut seen, &execution) {
            spinner.suspend(|| show(&execution))?;
            pace = Pace::fresh();
        }
        if execution.status.is_final() {
            return Ok(execution);
        }
        spinner.set_message(now(&execution));
        pace.wait().await;
    }
}

async fn look(session: &Session, id: ExecutionId) -> anyhow::Result<Execution> {
    Ok(session.client.get(format!("/executions/{id}")).within(PATIENCE).send().await?)
}

/// Whether the state is another than the one that was seen last.
fn changed(seen: &mut Option<(Status, i32)>, execution: &Execution) -> bool {
    let state = (execution.status, execution.attempt);
    seen.replace(state) != Some(state)
}

/// Says what has changed where it is news that lasts, and shows what is the case now.
fn tell(spinner: &ProgressBar, execution: &Execution) {
    if matches!(execution.status, Status::Running | Status::Retrying | Status::Scheduled) {
        spinner.suspend(|| say(&now(execution).dimmed().to_string()));
    }
    spinner.set_message(now(execution));
}

/// What is the case now, on one line.
pub(crate) fn now(execution: &Execution) -> String {
    let Execution { status, attempt, .. } = execution;
    let when = execution.scheduled_at.map(|at| relative(at, Timestamp::now())).unwrap_or_default();
    let text = match status {
        Status::Running => {
            let worker = execution.attempts.last().and_then(|attempt| attempt.worker_id.as_deref());
            let progress = execution.progress.as_ref().map(|json| json.get()).unwrap_or_default();
            format!("{status} on {} (attempt {attempt}) {progress}", worker.unwrap_or("a worker"))
        }
        Status::Retrying => {
            format!("{status} {when}: {}", execution.error.as_deref().unwrap_or("the attempt failed"))
        }
        Status::Scheduled => format!("{status} {when}"),
        _ => status.to_string(),
    };
    one_line(&text)
}

/// How it ended, on one line.
pub(crate) fn summary(execution: &Execution) -> String {
    let status = execution.status;
    let mut text = status.as_str().style(status_style(status)).bold().to_string();
    if let (Some(start), Some(end)) = (execution.started_at, execution.finished_at)
        && let Ok(duration) = Duration::try_from(end.duration_since(start))
    {
        text.push_str(&format!(" in {}", took(duration)));
    }
    if execution.attempt > 1 {
        text.push_str(&format!(", attempt {}", execution.attempt));
    }
    if let Some(code) = execution.exit_code.filter(|code| *code != 0 && execution.error.is_none()) {
        text.push_str(&format!(", exit code {code}"));
    }
    match &execution.error {
        Some(error) if status == Status::Failed => format!("{text}: {}", crate::output::printable(error)),
        _ => text,
    }
}

/// The exit code that tells the outcome.
pub(crate) fn exit_code(status: Status) -> ExitCode {
    match status {
        Status::Failed => ExitCode::from(FAILED),
        Status::Cancelled => ExitCode::from(CANCELLED),
        _ => ExitCode::SUCCESS,
    }
}
