//! What becomes of the throughput while a transaction is held open, so that no dead row can be removed.

use super::fleet::{Ask, Fleet, Manner, staggered};
use super::load::{Keeper, Tenant, ask, fill, tenant};
use super::report::{Report, median};
use super::stand::Stand;
use crate::{Cell, connect};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long the transaction is held open.
const HOLD: Duration = Duration::from_secs(300);
/// The control needs less to collapse.
const CONTROL_HOLD: Duration = Duration::from_secs(150);
/// Slices of the hold; the first and the last few are compared.
const SLICES: u32 = 20;
const COMPARED: usize = 4;
/// Full load: closed loops, no pause.
const FLEET: Manner = Manner { size: 4, pace: None, killed_in: 0 };
const LIMIT: usize = 100;
const BACKLOG: usize = 100_000;
/// Producers that are slower than the workers: calls of so many rows, so often.
const SLOW_ROWS: usize = 10;
const SLOW_EVERY: Duration = Duration::from_millis(40);
/// A lease that is as short as can be passes out of the tick's sight within the hold.
const LEASE_SECONDS: i32 = 5;

/// The watermark off: ranks are given as ever, and every claim begins to walk at the beginning.
const WATERMARK_OFF: &str = "
  create function no_watermark() returns trigger language plpgsql as
    $$ begin new.scan_from := 0; return new; end $$;
  create trigger no_watermark before update on queues for each row execute function no_watermark();
  update queues set scan_from = 0";

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Backlog,
    SlowProducers,
    Control,
}

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let hold = |full: Duration| if stand.quick { HOLD / 10 } else { full };
    report.parameter("hold", format!("{:.0?}; control {:.0?}", hold(HOLD), hold(CONTROL_HOLD)));
    report.parameter("compared", format!("medians of the first and last {COMPARED} of {SLICES} slices"));
    report.parameter("fleet", format!("{} dequeuers of {LIMIT}, closed loops", FLEET.size));
    report.parameter("backlog", format!("{BACKLOG}, kept by a producer"));
    report.parameter("slow producers", format!("{SLOW_ROWS} rows every {SLOW_EVERY:?}, nothing waits"));
    for _ in 0..stand.rounds {
        for (name, load, full) in [
            ("backlog", Load::Backlog, HOLD),
            ("slow producers", Load::SlowProducers, HOLD),
            ("watermark off", Load::Control, CONTROL_HOLD),
        ] {
            stand.say(&format!("a transaction held open: {name}"));
            let slices = under_hold(stand, load, hold(full)).await;
            let rates: Vec<_> = slices.iter().map(|slice| format!("{:.0}", slice.1)).collect();
            report.parameter(&format!("{name}, jobs/s"), rates.join(" "));
            for (what, unit, rate) in [
                ("claims", "calls/s", slices.iter().map(|s| s.0).collect::<Vec<_>>()),
                ("jobs", "jobs/s", slices.iter().map(|s| s.1).collect()),
            ] {
                let (first, last) = (median(&rate[..COMPARED]), median(&rate[rate.len() - COMPARED..]));
                report.figure(format!("{name}: {what} at the start"), unit, first);
                report.figure(format!("{name}: {what} at the end"), unit, last);
                report.figure(ratio(name, what), "", last / first);
            }
        }
    }
    for what in ["claims", "jobs"] {
        let line = "throughput at the end of the hold is at least 0.8x of the start, with a backlog";
        report.at_least(line, &ratio("backlog", what), 0.8);
        let line = "and with producers slower than the workers";
        report.at_least(line, &ratio("slow producers", what), 0.8);
    }
    // At a tenth of the hold the collapse has only begun: then it is enough that the control misses the line.
    let collapsed = if stand.quick { 0.8 } else { 0.5 };
    let line = "a control with the watermark off shows the collapse";
    report.at_most(line, &ratio("watermark off", "jobs"), collapsed);
}

fn ratio(name: &str, what: &str) -> String {
    format!("{name}: {what}, end / start")
}

/// Dequeues and jobs a second in each slice of the hold.
async fn under_hold(stand: &Stand, load: Load, hold: Duration) -> Vec<(f64, f64)> {
    let cell = stand.cell(LEASE_SECONDS, 16).await;
    let tenants = Arc::new(vec![tenant(&cell, json!({}), json!({})).await]);
    if load == Load::Control {
        cell.db.batch_execute(WATERMARK_OFF).await.expect("the watermark can be held back");
    }
    if load != Load::SlowProducers {
        fill(&cell, &tenants[0], BACKLOG, &json!({})).await;
    }
    let fleet = Fleet::start(&cell, &Ask::new(&cell, LIMIT), FLEET);
    let (keeper, producer) = match load {
        Load::SlowProducers => (None, Some(produce(&cell, &tenants))),
        _ => (Some(Keeper::start(&cell, &tenants, &fleet, 1_000)), None),
    };
    tokio::time::sleep(hold / 10).await;
    let holder = connect(&cell.database_url).await;
    // Held by a client that does nothing, which the database would otherwise put an end to.
    let begin = "set idle_in_transaction_session_timeout = 0;
                 begin isolation level repeatable read; select count(*) from queues";
    holder.batch_execute(begin).await.expect("a snapshot is taken");
    let mut slices = Vec::new();
    for _ in 0..SLICES {
        let (began, calls, jobs) = (Instant::now(), fleet.calls(), fleet.count());
        tokio::time::sleep(hold / SLICES).await;
        let seconds = began.elapsed().as_secs_f64();
        slices.push(((fleet.calls() - calls) as f64 / seconds, (fleet.count() - jobs) as f64 / seconds));
    }
    let sql = "select count(*) from pg_stat_activity where state = 'idle in transaction' and backend_xmin is not null
               and datname = current_database()";
    assert!(cell.number(sql).await >= 1, "the transaction was held to the end");
    drop(holder);
    drop(keeper);
    if let Some(producer) = producer {
        producer.abort();
    }
    fleet.stop().await;
    stand.discard(cell).await;
    slices
}

/// Asks for a few, however long the answers take.
fn produce(cell: &Arc<Cell>, tenants: &Arc<Vec<Tenant>>) -> JoinHandle<()> {
    let (cell, tenants) = (cell.clone(), tenants.clone());
    tokio::spawn(async move {
        let mut clock = staggered(SLOW_EVERY, Duration::ZERO);
        loop {
            clock.tick().await;
            ask(&cell, &tenants[0], vec![json!({}); SLOW_ROWS]).await;
        }
    })
}
