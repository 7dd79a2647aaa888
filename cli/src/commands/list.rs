//! `jobplane list`: executions, newest first.

use super::job::find;
use crate::output::status_style;
use crate::pages::{Limit, Pages};
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::{parse_past, since, took};
use crate::values::status;
use jiff::Timestamp;
use jobplane_protocol::{ExecutionSummary, Status};
use std::process::ExitCode;
use std::time::Duration;

/// Which to list.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only those in this state: pending, scheduled, running, retrying, succeeded, failed or cancelled
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// Only those of this job, by name or id
    #[arg(long)]
    job: Option<String>,
    /// Only those of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only those asked for since then: RFC 3339, or how long ago, such as 2h
    #[arg(long, value_parser = parse_past, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only those asked for before then: RFC 3339, or how long ago
    #[arg(long, value_parser = parse_past, value_name = "TIME")]
    until: Option<Timestamp>,
    #[command(flatten)]
    limit: Limit,
}

pub(super) async fn run(args: Args, session: &Session) -> anyhow::Result<ExitCode> {
    let job = match &args.job {
        Some(job) => Some(find(&session.client, job).await?.id),
        None => None,
    };
    let pages = Pages::of(&session.client, "/executions")
        .filter("status", args.status)
        .filter("job_id", job)
        .filter("queue", args.queue)
        .filter("created_after", args.since)
        .filter("created_before", args.until);
    let executions: Vec<ExecutionSummary> = pages.first(args.limit.limit).await?;
    session.output.show(&executions, || {
        let mut table = Table::new(&["ID", "JOB", "STATUS", "ATTEMPT", "QUEUE", "CREATED", "TOOK"]);
        executions.iter().for_each(|execution| table.row(row(execution)));
        table.render(&session.output)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn row(execution: &ExecutionSummary) -> [Cell; 7] {
    let end = match execution.status {
        Status::Running => Some(Timestamp::now()),
        _ => execution.finished_at,
    };
    let duration = execution
        .started_at
        .zip(end)
        .and_then(|(start, end)| Duration::try_from(end.duration_since(start)).ok());
    [
        Cell::text(execution.id),
        Cell::text(&execution.job_name),
        Cell::text(execution.status).styled(status_style(execution.status)),
        Cell::number(execution.attempt),
        Cell::text(&execution.queue),
        Cell::text(since(execution.created_at)),
        Cell::maybe(duration.map(took)),
    ]
}
