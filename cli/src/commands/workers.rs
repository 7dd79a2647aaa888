//! `jobplane workers`: who was heard from, when, and what it runs.

use crate::pages::{Limit, Pages};
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::since;
use jobplane_protocol::Worker;
use std::process::ExitCode;

pub(super) async fn run(Limit { limit }: Limit, session: &Session) -> anyhow::Result<ExitCode> {
    let workers: Vec<Worker> = Pages::of(&session.client, "/workers").first(limit).await?;
    session.output.show(&workers, || {
        let mut table = Table::new(&["WORKER", "RUNNING", "LAST SEEN", "TOKEN"]);
        for worker in &workers {
            table.row([
                Cell::text(&worker.worker_id),
                Cell::number(worker.running),
                Cell::text(since(worker.last_seen_at)),
                Cell::text(worker.token_id),
            ]);
        }
        table.render(&session.output)
    })?;
    Ok(ExitCode::SUCCESS)
}
