//! `jobplane logs`: what an execution wrote.

use crate::session::Session;
use crate::tail::{Lines, Tail};
use crate::values::id;
use crate::watch::{Pace, bounded};
use jobplane_protocol::{ExecutionId, StoredLogLine};
use std::process::ExitCode;

/// Whose logs to show, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The execution
    #[arg(value_name = "ID", value_parser = id::<ExecutionId>)]
    id: ExecutionId,
    /// Go on until the execution has ended
    #[arg(long, short)]
    follow: bool,
    /// Begin each line with its time
    #[arg(long, short)]
    timestamps: bool,
}

pub(super) async fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    if args.follow {
        return bounded(args.id, None, follow(args, session)).await;
    }
    let mut tail = Tail::of(&session.client, args.id);
    let mut lines = Lines::on(session.output, args.timestamps);
    let mut all: Vec<StoredLogLine> = Vec::new();
    loop {
        let more = tail.next().await?;
        let is_last = tail.is_finished() || more.is_empty();
        if session.output.is_json() {
            all.extend(more);
        } else {
            more.iter().try_for_each(|line| session.output.print_line(&lines.text(line)))?;
        }
        if is_last {
            break;
        }
    }
    session.output.show(&all, String::new)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints lines as they come until the execution has ended; as JSON, each is a document on its own line.
async fn follow(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let output = &session.output;
    let mut tail = Tail::of(&session.client, args.id);
    let mut lines = Lines::on(session.output, args.timestamps);
    let mut pace = Pace::fresh();
    loop {
        let more = tail.next().await?;
        for line in &more {
            if output.is_json() { output.json_line(line)? } else { output.print_line(&lines.text(line))? }
        }
        if tail.is_finished() {
            return Ok(ExitCode::SUCCESS);
        }
        if more.is_empty() {
            pace.wait().await;
        } else {
            pace = Pace::fresh();
        }
    }
}
