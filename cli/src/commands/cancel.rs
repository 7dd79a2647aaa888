//! `jobplane cancel`: stops executions that wait or run.

use crate::failure;
use crate::output::{error_text, printable, say};
use crate::session::Session;
use crate::values::id;
use jobplane_protocol::{CancelResponse, ErrorCode, ExecutionId, Status};
use serde::Serialize;
use std::process::ExitCode;

/// Which to cancel.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The executions
    #[arg(required = true, value_name = "ID", value_parser = id::<ExecutionId>)]
    ids: Vec<ExecutionId>,
}

/// What became of one of them.
#[derive(Serialize)]
struct Cancelled {
    execution_id: ExecutionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
}

/// Cancels each; one that cannot be cancelled does not keep the others from it.
pub(super) async fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for id in &args.ids {
        let answer = session.client.post(format!("/executions/{id}/cancel")).send::<CancelResponse>().await;
        let (status, error_code) = match answer {
            Ok(CancelResponse { status }) => (Some(status), None),
            Err(error) if error.code().is_some() && args.ids.len() > 1 => {
                say(&error_text(&printable(&format!("{id}: {error}")), None));
                (None, error.code())
            }
            Err(error) => return Err(error.into()),
        };
        all.push(Cancelled { execution_id: *id, status, error_code });
    }
    session.output.show(&all, || all.iter().filter_map(told).collect::<Vec<_>>().join("\n"))?;
    let failed = all.iter().any(|one| one.error_code.is_some());
    Ok(if failed { ExitCode::from(failure::ERROR) } else { ExitCode::SUCCESS })
}

fn told(one: &Cancelled) -> Option<String> {
    let id = one.execution_id;
    one.status.map(|status| match status {
        Status::Cancelled => format!("{id} is cancelled."),
        _ => format!("{id} runs; its worker is told at the next heartbeat, and stops it."),
    })
}
