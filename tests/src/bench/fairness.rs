//! What a tenant waits while another has a million waiting, and what each gets of the fleet.

use super::fleet::{Ask, Fleet, Manner, staggered};
use super::load::{Tenant, ask_one, ask_steadily, fill, tenant};
use super::report::{Report, percentile};
use super::stand::Stand;
use super::{shares, urgent};
use crate::Cell;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Tenants that each ask for one a second: a percentile needs more than one tenant asks for in a minute.
const ASKING: usize = 10;
/// A fleet whose capacity is the same whatever waits, and below what the machine can do.
pub(super) const FLEET: Manner = Manner { size: 4, pace: Some(Duration::from_millis(40)), killed_in: 0 };
pub(super) const LIMIT: usize = 10;
/// Clients of the backlogged tenant, and how often each asks for a single row.
const CLIENTS: u32 = 16;
const EVERY: Duration = Duration::from_millis(200);

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let backlog = stand.size(1_000_000);
    let lasting = Duration::from_secs(stand.size(30) as u64).max(Duration::from_secs(5));
    let (alone, crowded) = (stand.cell(60, 16).await, stand.cell(60, 16).await);
    let a = Arc::new(tenant(&crowded, json!({}), json!({})).await);
    stand.say(&format!("A asks for {backlog}"));
    let filling = fill(&crowded, &a, backlog, &json!({})).await;
    report.parameter("A's backlog", format!("{backlog}, asked for in {:.0} s", filling.as_secs_f64()));
    report.parameter("tenants B", format!("{ASKING}, each asks for 1 a second for {lasting:.0?} a round"));
    report.parameter("fleet", format!("{} dequeuers of {LIMIT}, each every 40 ms", FLEET.size));
    report.parameter("A's clients", format!("{CLIENTS}, each asks for 1 row every {EVERY:?}"));
    let askers = [askers(&alone).await, askers(&crowded).await];
    for _ in 0..stand.rounds {
        stand.say("B waits: alone, behind A's backlog, while A's clients ask");
        let absent = waits(&alone, &askers[0], None, lasting).await;
        let present = waits(&crowded, &askers[1], None, lasting).await;
        let asking = waits(&crowded, &askers[1], Some(&a), lasting).await;
        for (percent, name) in [(50, "p50"), (99, "p99")] {
            let [absent, present, asking] =
                [&absent, &present, &asking].map(|waits| percentile(waits, percent));
            report.figure(format!("B's wait, A absent, {name}"), "ms", absent);
            report.figure(format!("B's wait behind A, {name}"), "ms", present);
            report.figure(format!("B's wait while A's clients ask, {name}"), "ms", asking);
            report.figure(format!("behind A / A absent, {name}"), "", present / absent);
            report.figure(format!("while A's clients ask / A absent, {name}"), "", asking / absent);
        }
        urgent::measure(stand, &crowded, &a, report).await;
    }
    for name in ["p50", "p99"] {
        let line = "B's wait is within 2x of the same with A absent";
        report.at_most(line, &format!("behind A / A absent, {name}"), 2.0);
        let line = "also when A enqueues single rows from 16 clients";
        report.at_most(line, &format!("while A's clients ask / A absent, {name}"), 2.0);
    }
    urgent::check(report);
    stand.discard(alone).await;
    stand.discard(crowded).await;
    shares::measure(stand, report).await;
}

/// The tenants that ask for one a second.
pub(super) async fn askers(cell: &Cell) -> Arc<Vec<Tenant>> {
    let mut tenants = Vec::new();
    for _ in 0..ASKING {
        tenants.push(tenant(cell, json!({}), json!({})).await);
    }
    Arc::new(tenants)
}

/// How long each execution took from asking until a dequeuer had it, in milliseconds.
async fn waits(
    cell: &Arc<Cell>,
    askers: &Arc<Vec<Tenant>>,
    clients_of: Option<&Arc<Tenant>>,
    lasting: Duration,
) -> Vec<f64> {
    let fleet = Fleet::start(cell, &Ask::new(cell, LIMIT), FLEET);
    // The first rounds find the connections cold.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut clients = JoinSet::new();
    for (tenant, place) in clients_of.into_iter().cycle().zip(0..CLIENTS) {
        let (cell, tenant) = (cell.clone(), tenant.clone());
        let mut clock = staggered(EVERY, EVERY * place / CLIENTS);
        clients.spawn(async move {
            loop {
                clock.tick().await;
                ask_one(&cell, &tenant, json!({})).await;
            }
        });
    }
    let asked = ask_steadily(cell, askers, lasting, Duration::ZERO).await;
    clients.shutdown().await;
    let waits = fleet.waits(&asked).await;
    fleet.stop().await;
    waits
}
