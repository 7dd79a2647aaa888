//! How many claims pass before an urgent row, or a retry that fell due, is taken from behind a backlog.

use super::fleet::Ask;
use super::load::{Tenant, ask_one, tenant};
use super::report::Report;
use super::stand::Stand;
use crate::Cell;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const OWN: &str = "most claims until A's priority-100 row behind A";
const ANOTHERS: &str = "most claims until B's priority-100 row behind A";
const RETRY: &str = "most claims until A's retry that fell due behind A";
/// Claims after which a row is no longer looked for.
const ENOUGH: usize = 1_000;

/// One round: claims of a single row, so that every row in front shows.
pub(super) async fn measure(stand: &Stand, cell: &Arc<Cell>, a: &Tenant, report: &mut Report) {
    stand.say("urgent rows and retries behind A's backlog");
    let b = tenant(cell, json!({}), json!({})).await;
    let ask = Ask::new(cell, 1);
    let (mut own, mut anothers, mut retries) = (0, 0, 0);
    for _ in 0..stand.size(100) {
        own = own.max(until_taken(cell, &ask, ask_one(cell, a, json!({"priority": 100})).await).await);
        anothers =
            anothers.max(until_taken(cell, &ask, ask_one(cell, &b, json!({"priority": 100})).await).await);
    }
    for _ in 0..stand.size(20) {
        retries = retries.max(until_taken(cell, &ask, retry(cell, &ask, a).await).await);
    }
    report.figure(OWN, "claims", own as f64);
    report.figure(ANOTHERS, "claims", anothers as f64);
    report.figure(RETRY, "claims", retries as f64);
}

/// What must hold of it.
pub(super) fn check(report: &mut Report) {
    let urgent = "a priority-100 row behind a million is leased by the next claim or the one after";
    report.at_most(urgent, OWN, 2.0);
    report.at_most(urgent, ANOTHERS, 2.0);
    report.at_most("so is a retry that falls due behind its own tenant's million", RETRY, 2.0);
}

/// How many claims it takes until this row is taken. Others are done with at once.
async fn until_taken(cell: &Cell, ask: &Ask, id: Uuid) -> usize {
    for claims in 1..ENOUGH {
        let (taken, _) = ask.dequeue(cell).await;
        ask.succeed(cell, &taken).await;
        if taken.iter().any(|of| of.id == id) {
            return claims;
        }
    }
    ENOUGH
}

/// Fails one of A's executions so that it is to be retried at once, and waits until it is in line again.
async fn retry(cell: &Cell, ask: &Ask, a: &Tenant) -> Uuid {
    let failed = loop {
        let (taken, _) = ask.dequeue(cell).await;
        if taken.first().is_some_and(|of| of.tenant == a.id) {
            break taken;
        }
        ask.succeed(cell, &taken).await;
    };
    ask.report(cell, &failed, json!({"outcome": "failed", "retry_after_seconds": 0})).await;
    let id = failed[0].id;
    loop {
        // Claims of a queue where nothing waits do the tick when it is due, and take nothing.
        ask.clone().of("empty").dequeue(cell).await;
        let row = cell.db.query_opt("select 1 from ready where execution_id = $1", &[&id]).await;
        if row.expect("the statement runs").is_some() {
            return id;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
