//! What the others notice when a million rows of one tenant fall due at the same second.

use super::fairness::{FLEET, LIMIT, askers};
use super::fleet::{Ask, Fleet};
use super::load::{Tenant, ahead, ask_steadily, fill, tenant};
use super::report::{Report, percentile};
use super::stand::Stand;
use crate::Cell;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows that are asked for first, to see how long all of them will take.
const SAMPLE: usize = 20_000;
/// How far ahead the tenants C schedule each of theirs.
const AHEAD: Duration = Duration::from_secs(2);
/// How long after they fell due all rows must be in line, at the very most.
const MOVE_LIMIT: Duration = Duration::from_secs(600);

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let count = stand.size(1_000_000);
    let lasting = Duration::from_secs(stand.size(30) as u64).max(Duration::from_secs(6));
    report.parameter("A schedules", format!("{count} rows for one second"));
    report.parameter("tenants B", format!("10, each asks for 1 a second for {lasting:.0?} before and after"));
    report.parameter("tenants C", format!("10, each schedules 1 a second for {AHEAD:?} later"));
    report.parameter("fleet", format!("{} dequeuers of {LIMIT}, each every 40 ms", FLEET.size));
    for _ in 0..stand.rounds {
        let cell = stand.cell(60, 16).await;
        let (a, b, c) = (tenant(&cell, json!({}), json!({})).await, askers(&cell).await, askers(&cell).await);
        stand.say("A schedules its rows");
        let due = schedule(&cell, &a, count, lasting + AHEAD + Duration::from_secs(3)).await;
        let fleet = Fleet::start(&cell, &Ask::new(&cell, LIMIT), FLEET);
        tokio::time::sleep(Duration::from_secs(1)).await;
        stand.say("before they fall due");
        let before = both(&cell, &fleet, &b, &c, lasting).await;
        assert!(Instant::now() < due, "A's rows fell due too early: the machine is slower than it was");
        tokio::time::sleep_until(due.into()).await;
        stand.say("after they fell due");
        let ((), after) = tokio::join!(in_line(&cell, due, report), both(&cell, &fleet, &b, &c, lasting));
        for (who, before, after) in [("B", &before.0, &after.0), ("C", &before.1, &after.1)] {
            for (percent, name) in [(50, "p50"), (99, "p99")] {
                let [before, after] = [before, after].map(|waits| percentile(waits, percent));
                report.figure(format!("{who}'s wait before, {name}"), "ms", before);
                report.figure(format!("{who}'s wait after, {name}"), "ms", after);
                report.figure(format!("{who}: after / before, {name}"), "", after / before);
            }
        }
        fleet.stop().await;
        stand.discard(cell).await;
    }
    for name in ["p50", "p99"] {
        let line = "a million rows due at the same second leave B's wait as it was (within 2x)";
        report.at_most(line, &format!("B: after / before, {name}"), 2.0);
        let line =
            "due rows are moved tenant by tenant: C's, due behind A's million, wait as before (within 2x)";
        report.at_most(line, &format!("C: after / before, {name}"), 2.0);
    }
}

/// Schedules all of A's rows for the same time, which is a while after the last was asked for: that time.
async fn schedule(cell: &Arc<Cell>, a: &Tenant, count: usize, spare: Duration) -> Instant {
    let later = Duration::from_secs(3600);
    let sample = fill(cell, a, SAMPLE.min(count / 2), &json!({"scheduled_at": ahead(later)})).await;
    let needed = sample.mul_f64(1.5 * count as f64 / SAMPLE.min(count / 2) as f64) + spare;
    let due = Instant::now() + needed;
    fill(cell, a, count, &json!({"scheduled_at": ahead(needed)})).await;
    due
}

/// How long B's and C's rows wait while each asks for one a second.
async fn both(
    cell: &Arc<Cell>,
    fleet: &Fleet,
    b: &Arc<Vec<Tenant>>,
    c: &Arc<Vec<Tenant>>,
    lasting: Duration,
) -> (Vec<f64>, Vec<f64>) {
    let (b, c) =
        tokio::join!(ask_steadily(cell, b, lasting, Duration::ZERO), ask_steadily(cell, c, lasting, AHEAD));
    tokio::time::sleep(AHEAD).await;
    (fleet.waits(&b).await, fleet.waits(&c).await)
}

/// Waits until all of A's rows are in line.
async fn in_line(cell: &Cell, due: Instant, report: &mut Report) {
    let sql =
        "select count(*) from (select from delayed where due_at <= now() - interval '3 seconds' limit 1) x";
    tokio::time::sleep(Duration::from_secs(3)).await;
    while cell.number(sql).await > 0 && due.elapsed() < MOVE_LIMIT {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    report.figure("until all of A's rows were in line", "s", due.elapsed().as_secs_f64());
}
