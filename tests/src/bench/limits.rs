//! Whether concurrency limits are exact while workers die, how soon their places come back, and what they cost.

use super::fleet::{Ask, Fleet, Manner, Taken};
use super::history::History;
use super::load::{Keeper, Tenant, fill, tenant};
use super::report::Report;
use super::stand::Stand;
use crate::Cell;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TENANTS: usize = 50;
const DEQUEUERS: u32 = 64;
/// Rows that wait of each tenant, all the time.
const BACKLOG: usize = 2_000;
/// What one dequeue asks for.
const BATCH: usize = 5;
/// The shortest that there is, so that dead workers are found out within a run.
const LEASE: Duration = Duration::from_secs(5);
/// The once-a-second tick finds expired leases; a claim must come after it.
const GRAIN: Duration = Duration::from_secs(2);
/// One dequeue in so many is a worker's last: it never reports.
const KILLED_IN: u32 = 40;

const ABOVE: &str = "instants above a limit";
const REACHED: &str = "tenants that were seen at their limit";
const REFILL: &str = "from the kills until every limit was full again";
const RATIO: &str = "limited / unlimited throughput";

/// A tenant's limit: 5 to 15, 10 on average, so that all of them together are more than the fleet has in its hands.
fn limit(place: usize) -> usize {
    5 + place % 11
}

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let seconds = Duration::from_secs(stand.size(30) as u64).max(Duration::from_secs(5));
    report.parameter(
        "tenants",
        format!("{TENANTS}, limits 5 to 15; every fifth has one job limited to 3 as well"),
    );
    report.parameter(
        "fleet",
        format!("{DEQUEUERS} dequeuers of {BATCH} over as many connections, jobs of no length"),
    );
    report.parameter("phase", format!("{seconds:.0?} of throughput and as much of kills a round"));
    report.parameter("kills", format!("1 dequeue in {KILLED_IN} is never reported; leases of {LEASE:?}"));
    let (free, bound) = (Side::new(stand, false).await, Side::new(stand, true).await);
    for _ in 0..stand.rounds {
        stand.say("throughput without and with limits");
        let (unlimited, limited) = (free.throughput(seconds).await, bound.throughput(seconds).await);
        report.figure("unlimited", "jobs/s", unlimited.0);
        report.figure("limited", "jobs/s", limited.0);
        report.figure(RATIO, "", limited.0 / unlimited.0);
        report.figure("unlimited, taken by a dequeue", "", unlimited.1);
        report.figure("limited, taken by a dequeue", "", limited.1);
        stand.say("workers killed at random");
        let killed = bound.killing(seconds).await;
        report.figure("executions whose worker was killed", "", killed as f64);
        stand.say("capacity after the kills");
        report.figure(REFILL, "s", bound.refill().await.as_secs_f64());
        let history = History::of(&bound.cell).await;
        report.figure("leases in the history", "", history.leases as f64);
        report.figure(REACHED, "", history.reached as f64);
        report.figure(ABOVE, "", history.above as f64);
    }
    report.at_most("a history check finds no instant above any limit", ABOVE, 0.0);
    report.at_least("and it sees what runs at once: every tenant at its limit", REACHED, TENANTS as f64);
    report.at_most(
        "after the kills capacity is back to the full limit within one lease (and two ticks)",
        REFILL,
        (LEASE + GRAIN).as_secs_f64(),
    );
    report.at_least("throughput of limited tenants is at least 0.4x of unlimited", RATIO, 0.4);
    stand.discard(free.cell).await;
    stand.discard(bound.cell).await;
}

/// A cell with the same tenants and backlogs, limited or not.
struct Side {
    cell: Arc<Cell>,
    tenants: Arc<Vec<Tenant>>,
}

impl Side {
    async fn new(stand: &Stand, limited: bool) -> Self {
        let cell = stand.cell(LEASE.as_secs() as i32, DEQUEUERS as usize).await;
        let mut tenants = Vec::new();
        for place in 0..TENANTS {
            let (of_tenant, of_job) = match limited {
                true => (json!({"max_running": limit(place)}), of_job(place)),
                false => (json!({}), json!({})),
            };
            let tenant = tenant(&cell, of_tenant, of_job).await;
            fill(&cell, &tenant, BACKLOG, &json!({})).await;
            tenants.push(tenant);
        }
        Self { cell, tenants: Arc::new(tenants) }
    }

    /// Jobs a second that the fleet takes and reports, and how many a dequeue brings.
    async fn throughput(&self, lasting: Duration) -> (f64, f64) {
        let fleet = self.fleet(0);
        let _keeper = Keeper::start(&self.cell, &self.tenants, &fleet, 100);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (before, calls, began) = (fleet.count(), fleet.calls(), Instant::now());
        tokio::time::sleep(lasting).await;
        let taken = (fleet.count() - before) as f64;
        let (rate, size) = (taken / began.elapsed().as_secs_f64(), taken / (fleet.calls() - calls) as f64);
        fleet.stop().await;
        (rate, size)
    }

    /// Lets workers die at random: how many executions they took with them.
    async fn killing(&self, lasting: Duration) -> usize {
        let fleet = self.fleet(KILLED_IN);
        let _keeper = Keeper::start(&self.cell, &self.tenants, &fleet, 100);
        tokio::time::sleep(lasting).await;
        let abandoned = fleet.abandoned();
        fleet.stop().await;
        abandoned
    }

    fn fleet(&self, killed_in: u32) -> Fleet {
        let manner = Manner { size: DEQUEUERS, pace: None, killed_in };
        Fleet::start(&self.cell, &Ask::new(&self.cell, BATCH), manner)
    }

    /// Takes and holds as much as it can, and nobody else is there: how long until every tenant has as many as it may.
    async fn refill(&self) -> Duration {
        let (ask, began) = (Ask::new(&self.cell, 100), Instant::now());
        let mut held: Vec<Taken> = Vec::new();
        let mut heartbeat = Instant::now();
        while !self.is_full(&held) && began.elapsed() < 6 * LEASE {
            held.extend(ask.dequeue(&self.cell).await.0);
            if heartbeat.elapsed() > LEASE / 3 {
                ask.renew(&self.cell, &held).await;
                heartbeat = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let took = began.elapsed();
        ask.succeed(&self.cell, &held).await;
        took
    }

    fn is_full(&self, held: &[Taken]) -> bool {
        self.tenants.iter().enumerate().all(|(place, tenant)| {
            let may = limit(place)
                .min(of_job(place)["max_running"].as_u64().map_or(usize::MAX, |may| may as usize));
            held.iter().filter(|of| of.tenant == tenant.id).count() >= may
        })
    }
}

/// Every fifth tenant's job has a limit of its own.
fn of_job(place: usize) -> Value {
    if place.is_multiple_of(5) { json!({"max_running": 3}) } else { json!({}) }
}
