//! `jobplane dlq purge`: takes dead letters off the list.

use super::Which;
use crate::failure::Refusal;
use crate::output::counted;
use crate::pages::Pages;
use crate::progress;
use crate::session::Session;
use crate::values::id;
use jobplane_protocol::{DeadLetter, ErrorCode, ExecutionId, limits};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal, Write};

/// Which to take away.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    /// Only these executions [default: all]
    #[arg(value_name = "ID", value_parser = id::<ExecutionId>, conflicts_with_all = ["job", "before"])]
    ids: Vec<ExecutionId>,
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: &Args, session: &Session) -> anyhow::Result<()> {
    confirm(args)?;
    let purged = if args.ids.is_empty() {
        purge_list(&args.which, session).await?
    } else {
        let mut purged = 0;
        for id in &args.ids {
            purged += delete(*id, session).await?;
        }
        purged
    };
    session.output.show(&json!({ "purged": purged }), || {
        format!("{} taken off the list.", counted(purged, "dead letter"))
    })
}

/// Asks on the terminal; where there is none, nobody can agree.
fn confirm(args: &Args) -> anyhow::Result<()> {
    if args.yes {
        return Ok(());
    }
    let what = what(args);
    if !io::stdin().is_terminal() {
        return Err(Refusal::Usage(format!("this takes {what} off the list: confirm with --yes")).into());
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "Take {what} off the list? They cannot be retried any more. [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => anyhow::bail!("nothing was taken away"),
    }
}

fn what(args: &Args) -> String {
    if !args.ids.is_empty() {
        return counted(args.ids.len() as u64, "dead letter");
    }
    let job = args.which.job.as_ref().map(|job| format!(" of job {job}")).unwrap_or_default();
    let before = args.which.before.map(|time| format!(" that failed before {time}")).unwrap_or_default();
    format!("all dead letters{job}{before}")
}

/// Walks the whole list; its cursor stays right while what was passed is taken away.
async fn purge_list(which: &Which, session: &Session) -> anyhow::Result<u64> {
    let job = which.job_id(session).await?;
    let is_meant = |letter: &DeadLetter| {
        job.is_none_or(|job| letter.job_id == job)
            && which.before.is_none_or(|before| letter.failed_at < before)
    };
    let counter = progress::counter("dead letters taken off the list");
    let mut purged = 0;
    let mut pages = Pages::of(&session.client, "/executions/dlq");
    while let Some(letters) = pages.next::<DeadLetter>(limits::MAX_PAGE).await? {
        for letter in letters.iter().filter(|letter| is_meant(letter)) {
            purged += delete(letter.execution_id, session).await?;
            counter.inc(1);
        }
    }
    counter.finish_and_clear();
    Ok(purged)
}

/// Takes one away; 0 when somebody else already has.
async fn delete(id: ExecutionId, session: &Session) -> anyhow::Result<u64> {
    match session.client.delete(format!("/executions/dlq/{id}")).send::<()>().await {
        Ok(()) => Ok(1),
        Err(error) if error.code() == Some(ErrorCode::DeadLetterNotFound) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
