//! How an execution is shown to people.

use crate::output::status_style;
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::{since, took};
use jiff::Timestamp;
use jobplane_protocol::{Attempt, Execution};
use std::time::Duration;

/// Prints all there is to know about an execution.
pub(super) fn show(execution: &Execution, session: &Session) -> anyhow::Result<()> {
    let output = &session.output;
    output.show(execution, || {
        let mut parts = vec![fields(execution).render(output)];
        for (name, json) in [("Input", &execution.input), ("Result", &execution.result)] {
            parts.extend(json.as_ref().map(|json| format!("{name}\n{}", output.pretty(json))));
        }
        if !execution.attempts.is_empty() {
            parts.push(attempts(execution).render(output));
        }
        parts.join("\n\n")
    })
}

fn fields(execution: &Execution) -> Table {
    let when = |time: Timestamp| format!("{} ({})", since(time), time.strftime("%Y-%m-%d %H:%M:%S UTC"));
    let status = match execution.cancel_requested && !execution.status.is_final() {
        true => format!("{}, asked to cancel", execution.status),
        false => execution.status.to_string(),
    };
    let mut table = Table::fields();
    table.field("Execution", execution.id);
    table.field("Job", format!("{} ({})", execution.job_name, execution.job_id));
    table.field_cell("Status", Cell::text(status).styled(status_style(execution.status)));
    table.field_if("Error", execution.error.as_ref());
    table.field_if("Exit code", execution.exit_code);
    table.field_if("Progress", execution.progress.as_ref().map(|json| json.get()));
    table.field("Queue", &execution.queue);
    table.field("Priority", i16::from(execution.priority));
    table.field("Tries", format!("{} of {}", execution.tries, execution.max_attempts));
    table.field_if("Retry of", execution.retried_from);
    table.field("Created", when(execution.created_at));
    table.field_if("Scheduled", execution.scheduled_at.map(when));
    table.field_if("Started", execution.started_at.map(when));
    table.field_if("Finished", execution.finished_at.map(when));
    table
}

fn attempts(execution: &Execution) -> Table {
    let mut table = Table::new(&["ATTEMPT", "OUTCOME", "WORKER", "STARTED", "TOOK", "EXIT", "ERROR"]);
    for attempt in &execution.attempts {
        table.row([
            Cell::number(attempt.attempt),
            Cell::text(outcome(attempt)),
            Cell::maybe(attempt.worker_id.as_ref()),
            Cell::maybe(attempt.started_at.map(since)),
            Cell::maybe(duration(attempt).map(took)),
            Cell::maybe(attempt.exit_code),
            Cell::cut(attempt.error.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

/// The outcome as on the wire, in words.
fn outcome(attempt: &Attempt) -> String {
    let name = attempt.outcome.and_then(|outcome| serde_json::to_value(outcome).ok());
    let words = name.as_ref().and_then(|name| name.as_str()).map(|name| name.replace('_', " "));
    words.unwrap_or_else(|| "running".to_owned())
}

fn duration(attempt: &Attempt) -> Option<Duration> {
    let end = attempt.finished_at.unwrap_or_else(Timestamp::now);
    Duration::try_from(end.duration_since(attempt.started_at?)).ok()
}
