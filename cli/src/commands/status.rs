//! `jobplane status`: one execution, whole, now or until it ends.

mod show;

use crate::failure::EXIT_CODES;
use crate::session::Session;
use crate::time::parse_duration;
use crate::values::id;
use crate::watch::{bounded, exit_code, now, states};
use jobplane_protocol::{Execution, ExecutionId};
use show::show;
use std::process::ExitCode;
use std::time::Duration;

/// Which to show.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub(super) struct Args {
    /// The execution
    #[arg(value_name = "ID", value_parser = id::<ExecutionId>)]
    id: ExecutionId,
    /// Go on until the execution has ended, and exit with its outcome
    #[arg(long, short)]
    watch: bool,
    /// Watch no longer than this, such as 10m; then exit with 124
    #[arg(long, requires = "watch", value_parser = parse_duration, value_name = "DURATION")]
    timeout: Option<Duration>,
}

pub(super) async fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    if args.watch {
        return bounded(args.id, args.timeout, watch(args.id, session)).await;
    }
    let execution: Execution = session.client.get(format!("/executions/{}", args.id)).send().await?;
    show(&execution, session)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells every change of state; as JSON, each is a document on its own line.
async fn watch(id: ExecutionId, session: &Session) -> anyhow::Result<ExitCode> {
    let output = &session.output;
    let ended = states(session, id, |execution| match output.is_json() {
        true => output.json_line(execution),
        false if execution.status.is_final() => show(execution, session),
        false => output.print_line(&now(execution)),
    });
    Ok(exit_code(ended.await?.status))
}
