//! One attempt of a handler: a task that is watched, told to end when it has to, and dropped when it does not.

use super::context::{Context, StopReason};
use super::{Handler, Output};
use crate::agent::{Progress, Stop, StopReceiver, stopped, within_grace};
use crate::logs::LogWriter;
use crate::output::split;
use crate::runtime::{Ending, time_limit};
use jobplane_protocol::{Checks, Json, LeaseId, LeasedExecution, Outcome, ResultRequest, Stream};
use opentelemetry::trace::FutureExt;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tracing::Instrument;

/// Texts that wait between a handler and the log.
const LOG_TEXTS: usize = 64;

/// Runs a handler to its end, as a task there.
pub(super) async fn run(
    (handler, tasks): (Arc<Handler>, &Handle),
    leased: &LeasedExecution,
    log: &mut LogWriter,
    progress: Progress,
    stop: StopReceiver,
    kill_grace: Duration,
) -> Ending {
    let (sender, lines) = mpsc::channel(LOG_TEXTS);
    let (tell, told) = watch::channel(None);
    let limit = time_limit(leased);
    let mut leased = leased.clone();
    let input = leased.input.take();
    let context = Context::new(leased, progress, sender, told);
    let mut task = JoinSet::new();
    log.begin();
    // Within the task, so that a panic while the input is read is contained too.
    let handled = async move { handler(context, input).await };
    task.spawn_on(handled.in_current_span().with_current_context(), tasks);
    let (is_over, over) = oneshot::channel();
    let watched = async {
        let ended = watch(task, &tell, limit, kill_grace, stop).await;
        drop(is_over);
        ended
    };
    let (ended, ()) = tokio::join!(watched, pump(lines, over, log));
    let why = *tell.borrow();
    ending(ended, why, limit)
}

/// Waits for the end of the handler, and brings it about after `limit` or for a reason to stop: it is told, and
/// dropped after `grace`; at once for a lost lease, since another worker may run the same by now. `None` if it did
/// not end by itself.
async fn watch(
    mut task: JoinSet<Output>,
    tell: &watch::Sender<Option<StopReason>>,
    limit: Duration,
    grace: Duration,
    mut stop: StopReceiver,
) -> Option<Result<Output, JoinError>> {
    let why = tokio::select! {
        biased;
        ended = task.join_next() => return ended,
        why = stopped(&mut stop) => why.into(),
        () = sleep(limit) => StopReason::TimedOut,
    };
    tell.send_replace(Some(why));
    if let Some(ended) = within_grace(task.join_next(), grace, &mut stop).await {
        return ended;
    }
    if *stop.borrow() == Some(Stop::Lost) {
        tell.send_replace(Some(StopReason::LeaseLost));
    }
    tracing::debug!(%why, "a handler is dropped");
    task.abort_all();
    // One that blocks its thread cannot be dropped: it keeps its slot, since it does run.
    task.join_next().await.filter(|ended| !ended.as_ref().is_err_and(JoinError::is_cancelled))
}

/// Logs what the handler says until it is over, and then what it has said by then: others may hold its context.
async fn pump(
    mut lines: mpsc::Receiver<(Stream, String)>,
    mut over: oneshot::Receiver<()>,
    log: &mut LogWriter,
) {
    loop {
        let (stream, text) = tokio::select! {
            biased;
            // First: others may go on for ever.
            _ = &mut over, if !lines.is_closed() => {
                lines.close();
                continue;
            }
            said = lines.recv() => match said {
                Some(said) => said,
                None => return,
            },
        };
        for line in split(&text) {
            log.push(stream, line).await;
        }
    }
}

/// What the end of a handler means, if it was to end for this reason.
fn ending(ended: Option<Result<Output, JoinError>>, why: Option<StopReason>, limit: Duration) -> Ending {
    let failed = match ended {
        Some(Ok(Ok(output))) => return succeeded(output),
        Some(Ok(Err(error))) => Some(error.ending()),
        Some(Err(fault)) => Some(panicked(fault)),
        None => None,
    };
    match (why, failed) {
        (None, Some(failed)) => failed,
        (Some(StopReason::Cancelled), _) => Ending::plain(Outcome::Cancelled),
        (Some(StopReason::TimedOut), _) => Ending::timed_out(limit, ""),
        // A lost lease is not reported at all; without a reason, the program itself ends.
        (Some(StopReason::Released | StopReason::LeaseLost | StopReason::Ended) | None, _) => {
            Ending::released()
        }
    }
}

/// Succeeded, unless the controller would not take the output.
fn succeeded(output: Json) -> Ending {
    let result = ResultRequest {
        lease_id: LeaseId::random(),
        outcome: Outcome::Succeeded,
        exit_code: None,
        error: None,
        result: Some(output),
        retryable: None,
        retry_after_seconds: None,
    };
    match Checks::of(&result) {
        Ok(()) => Ending { result: result.result, ..Ending::plain(Outcome::Succeeded) },
        Err((_, errors)) => {
            let detail = errors.first().map_or("the controller would not take it", |error| &error.detail);
            Ending::impossible(format!("the output: {detail}"))
        }
    }
}

/// A panic is a failure like another: trying again may help.
fn panicked(fault: JoinError) -> Ending {
    let Ok(payload) = fault.try_into_panic() else { return Ending::released() };
    Ending::failed(format!("panicked: {}", message(payload.as_ref())))
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
