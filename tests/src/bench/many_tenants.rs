//! What an enqueue and a claim cost with ten thousand active tenants, beside one.

use super::fleet::Ask;
use super::load::{Tenant, ask, tenant};
use super::report::{Report, percentile};
use super::stand::Stand;
use crate::Cell;
use futures_util::{StreamExt, stream};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

const TENANTS: usize = 10_000;
/// Rows of one call, claimed or asked for.
const ROWS: usize = 10;
/// Calls of each kind in a block, and before it is the other side's turn.
const BLOCK: usize = 100;
const TURN: usize = 10;
/// Connections that make the tenants.
const MAKERS: usize = 8;
/// What is measured, of each side.
const COSTS: [&str; 2] = ["enqueue", "claim"];

/// One side: a cell and its tenants, all of which have rows waiting.
struct Side {
    name: &'static str,
    cell: Arc<Cell>,
    tenants: Vec<Tenant>,
    next: usize,
    milliseconds: [Vec<f64>; 2],
}

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let (count, blocks) = (stand.size(TENANTS), stand.size(10).max(3));
    report.parameter("tenants", format!("1 and {count}, with {} rows waiting on either side", count * ROWS));
    report.parameter(
        "calls",
        format!("of {ROWS} rows, 1 client, {blocks} blocks of {BLOCK} of each kind a round"),
    );
    let mut sides =
        [side(stand, "one tenant", 1, count).await, side(stand, "many tenants", count, count).await];
    for side in &sides {
        side.cell.db.batch_execute("vacuum (analyze)").await.expect("it runs");
    }
    for _ in 0..stand.rounds {
        stand.say("blocks of enqueues and claims, in turn");
        for _ in 0..blocks {
            block(&mut sides).await;
        }
        figures(&mut sides, report);
    }
    for cost in COSTS {
        let line = format!("{cost} cost with 10,000 active tenants is within 1.3x of one tenant");
        report.at_most(&line, &ratio(cost, "p50"), 1.3);
        report.at_most(&line, &ratio(cost, "mean"), 1.3);
    }
    for side in sides {
        stand.discard(side.cell).await;
    }
}

fn ratio(cost: &str, of: &str) -> String {
    format!("{cost}: many / one, {of}")
}

/// Makes a cell, its tenants and ten rows for each of `backlogs` of them, again and again if there are fewer.
async fn side(stand: &Stand, name: &'static str, tenants: usize, backlogs: usize) -> Side {
    stand.say(&format!("making {tenants} tenants and {} rows", backlogs * ROWS));
    let cell = stand.cell(60, 16).await;
    let made = stream::iter(0..tenants).map(|_| tenant(&cell, json!({}), json!({})));
    let tenants: Vec<_> = made.buffer_unordered(MAKERS).collect().await;
    stream::iter(0..backlogs)
        .for_each_concurrent(MAKERS, async |turn| {
            ask(&cell, &tenants[turn % tenants.len()], vec![json!({}); ROWS]).await;
        })
        .await;
    Side { name, cell, tenants, next: 0, milliseconds: Default::default() }
}

/// One block of both sides, in turn: as many claims as enqueues, so that as many wait as before. The first turns are not
/// counted: the caches are cold.
async fn block(sides: &mut [Side; 2]) {
    for turn in 0..=BLOCK / TURN {
        for side in &mut *sides {
            let (enqueues, claims) = side.turn().await;
            if turn > 0 {
                side.milliseconds[0].extend(enqueues);
                side.milliseconds[1].extend(claims);
            }
        }
    }
}

impl Side {
    /// What each of a few enqueues and claims took, in milliseconds.
    async fn turn(&mut self) -> (Vec<f64>, Vec<f64>) {
        let worker = Ask::new(&self.cell, ROWS);
        let (mut enqueues, mut claims, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURN {
            self.next = (self.next + 1) % self.tenants.len();
            let asked = Instant::now();
            ask(&self.cell, &self.tenants[self.next], vec![json!({}); ROWS]).await;
            enqueues.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        for _ in 0..TURN {
            let (taken, took) = worker.dequeue(&self.cell).await;
            assert_eq!(taken.len(), ROWS, "{}: the backlog ran dry", self.name);
            held.extend(taken);
            claims.push(took.as_secs_f64() * 1e3);
        }
        worker.succeed(&self.cell, &held).await;
        (enqueues, claims)
    }
}

/// What one round measured.
fn figures(sides: &mut [Side; 2], report: &mut Report) {
    for (kind, cost) in COSTS.into_iter().enumerate() {
        for name in ["p50", "mean", "p99"] {
            let [one, many] = [&sides[0], &sides[1]].map(|side| statistic(name, &side.milliseconds[kind]));
            report.figure(format!("{cost}, {}, {name}", sides[0].name), "ms", one);
            report.figure(format!("{cost}, {}, {name}", sides[1].name), "ms", many);
            report.figure(ratio(cost, name), "", many / one);
        }
    }
    for side in sides {
        side.milliseconds = Default::default();
    }
}

fn statistic(name: &str, of: &[f64]) -> f64 {
    match name {
        "p50" => percentile(of, 50),
        "p99" => percentile(of, 99),
        _ => of.iter().sum::<f64>() / of.len() as f64,
    }
}
