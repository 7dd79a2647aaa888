//! `jobplane dlq`: executions that ended badly and wait for somebody to decide.

mod purge;

use super::job::find;
use crate::failure::Refusal;
use crate::output::counted;
use crate::pages::{Limit, Pages};
use crate::progress;
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::{parse_past, since};
use crate::values::id;
use anyhow::Context;
use jiff::Timestamp;
use jobplane_protocol::{
    DeadLetter, ExecutionId, JobId, RetriedResponse, RetryDeadLetters, RetryResponse, limits,
};
use std::process::ExitCode;

/// What can be done with dead letters.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List dead letters, the one that failed last first
    List(Limit),
    /// Run dead letters again, each as a new execution
    Retry {
        /// The executions that failed
        #[arg(required = true, value_name = "ID", value_parser = id::<ExecutionId>)]
        ids: Vec<ExecutionId>,
    },
    /// Run all dead letters again, the oldest first
    RetryAll(RetryAll),
    /// Take dead letters off the list for good; their history stays
    Purge(purge::Args),
}

/// Which to run again.
#[derive(Debug, clap::Args)]
pub(super) struct RetryAll {
    #[command(flatten)]
    which: Which,
    /// At most so many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// Which dead letters are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Only those of this job, by name or id
    #[arg(long)]
    job: Option<String>,
    /// Only those that failed before then: RFC 3339, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    before: Option<Timestamp>,
}

impl Which {
    async fn job_id(&self, session: &Session) -> anyhow::Result<Option<JobId>> {
        match &self.job {
            Some(job) => Ok(Some(find(&session.client, job).await?.id)),
            None => Ok(None),
        }
    }
}

pub(super) async fn run(command: Command, session: &Session) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(limit) => list(limit, session).await?,
        Command::Retry { ids } => retry(&ids, session).await?,
        Command::RetryAll(args) => retry_all(&args, session).await?,
        Command::Purge(args) => purge::run(&args, session).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(Limit { limit }: Limit, session: &Session) -> anyhow::Result<()> {
    let letters: Vec<DeadLetter> = Pages::of(&session.client, "/executions/dlq").first(limit).await?;
    session.output.show(&letters, || {
        let mut table = Table::new(&["EXECUTION", "JOB", "ATTEMPTS", "FAILED", "REASON"]);
        for letter in &letters {
            table.row([
                Cell::text(letter.execution_id),
                Cell::text(&letter.job_name),
                Cell::number(letter.attempts),
                Cell::text(since(letter.failed_at)),
                Cell::cut(&letter.reason),
            ]);
        }
        table.render(&session.output)
    })
}

async fn retry(ids: &[ExecutionId], session: &Session) -> anyhow::Result<()> {
    let mut retried: Vec<RetryResponse> = Vec::new();
    for id in ids {
        let answer = session.client.post(format!("/executions/dlq/{id}/retry")).send().await;
        retried
            .push(answer.with_context(|| format!("{id} is not retried; {} before it are", retried.len()))?);
    }
    session.output.show(&retried, || {
        let line = |one: &RetryResponse| format!("{} runs again as {}.", one.retried_from, one.execution_id);
        retried.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

/// A thousand at a time, until a call finds none: a short one may only have met another call. What was retried is a dead letter no
/// more, so the same command goes on where another stopped.
async fn retry_all(args: &RetryAll, session: &Session) -> anyhow::Result<()> {
    let job_id = args.which.job_id(session).await?;
    let wanted = args.limit.unwrap_or(u32::MAX);
    if wanted == 0 {
        return Err(Refusal::Usage("--limit 0 retries nothing".to_owned()).into());
    }
    let counter = progress::counter("dead letters retried");
    let mut total = RetriedResponse { retried: 0 };
    while total.retried < wanted {
        let limit = (wanted - total.retried).min(limits::MAX_PAGE);
        let request = RetryDeadLetters { job_id, failed_before: args.which.before, limit: Some(limit) };
        // Repeated after a lost answer, it would retry others and count them as these.
        let call = session.client.post("/executions/dlq/retry").json(&request).unrepeatable();
        let some: RetriedResponse = call
            .send()
            .await
            .with_context(|| format!("{} retried; the same command goes on", total.retried))?;
        total.retried += some.retried;
        counter.inc(some.retried.into());
        if some.retried == 0 {
            break;
        }
    }
    counter.finish_and_clear();
    session.output.show(&total, || format!("{} retried.", counted(total.retried.into(), "dead letter")))
}
