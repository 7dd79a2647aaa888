//! What a claim costs behind a thousand or five million waiting rows, half of them scheduled, or others' in front.

use super::fleet::{Ask, Taken};
use super::load::{Tenant, ask, fill, tenant};
use super::report::{Report, percentile};
use super::stand::Stand;
use crate::Cell;
use jobplane_protocol::limits;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How many wait.
const DEPTHS: [usize; 4] = [1_000, 100_000, 1_000_000, 5_000_000];
/// Rows that a worker may not take, in front of those that it may.
const IN_FRONT: usize = 100_000;
/// Claims of one row from each variant in a block; after it every backlog is made as deep as it was.
const BLOCK: usize = 200;
/// Claims of one variant before it is the next one's turn: what the machine does meanwhile befalls all alike. So few that
/// the once-a-second tick, which is done on the way of a claim, is in the 99th percentile of all of them.
const TURN: usize = 10;

/// What must hold, of the slowest of a group beside the fastest of the first.
const GROUPS: [(&str, &str); 3] = [
    ("waiting", "claim p50 and p99 at 1k, 100k, 1M and 5M waiting are within 1.5x of each other"),
    ("half scheduled", "the same with half of them scheduled for the future"),
    ("in front", "and with 100k rows of another queue or of tenants that this worker may not take in front"),
];

/// One thing to measure: a cell with its backlog, and how to claim there.
struct Variant {
    group: usize,
    name: String,
    cell: Arc<Cell>,
    tenant: Tenant,
    ask: Ask,
    held: Vec<Taken>,
    milliseconds: Vec<f64>,
}

impl Variant {
    fn new(group: usize, name: String, cell: Arc<Cell>, tenant: Tenant, ask: Ask) -> Self {
        Self { group, name, cell, tenant, ask, held: Vec::new(), milliseconds: Vec::new() }
    }
}

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let blocks = stand.size(10).max(2);
    report.parameter(
        "claims",
        format!("{blocks} blocks of {BLOCK} a round and variant, {TURN} in turn, 1 row each, 1 client"),
    );
    report.parameter("backlog", "kept: what a block took is asked for again after it");
    let mut variants = variants(stand, report).await;
    stand.say("vacuum and checkpoint after the fill");
    for variant in &variants {
        // What autovacuum does within minutes of such a fill.
        variant.cell.db.batch_execute("vacuum (analyze)").await.expect("it runs");
    }
    variants[0].cell.db.batch_execute("checkpoint").await.expect("it runs");
    for _ in 0..stand.rounds {
        stand.say("claims of every variant, in turn");
        for _ in 0..blocks {
            block(&mut variants).await;
        }
        figures(&mut variants, report);
    }
    for (group, line) in GROUPS {
        report.at_most(line, &ratio(group, "p50"), 1.5);
        report.at_most(line, &ratio(group, "p99"), 1.5);
    }
    for variant in variants {
        stand.discard(variant.cell).await;
    }
}

fn ratio(group: &str, percentile: &str) -> String {
    format!("{group}: slowest / fastest waiting, {percentile}")
}

/// Makes every cell and its backlog.
async fn variants(stand: &Stand, report: &mut Report) -> Vec<Variant> {
    let mut variants = Vec::new();
    // Not smaller than a block, which must not run dry.
    let depths = DEPTHS.map(|depth| stand.size(depth).max(DEPTHS[0]));
    for (group, depth) in depths.map(|depth| (0, depth)).into_iter().chain(depths.map(|depth| (1, depth))) {
        let name = format!("{depth} {}", GROUPS[group].0);
        stand.say(&format!("filling: {name}"));
        let cell = stand.cell(60, 16).await;
        let tenant = tenant(&cell, json!({}), json!({})).await;
        let mut took = Duration::ZERO;
        if group == 1 {
            let far = tomorrow(&cell).await;
            took += fill(&cell, &tenant, depth / 2, &json!({"scheduled_at": far})).await;
        }
        took += fill(&cell, &tenant, depth / (1 + group), &json!({})).await;
        report.parameter(&format!("fill {name}"), format!("{:.1} s", took.as_secs_f64()));
        let ask = Ask::new(&cell, 1);
        variants.push(Variant::new(group, name, cell, tenant, ask));
    }
    let in_front = stand.size(IN_FRONT);
    stand.say(&format!("filling: {in_front} in front"));
    variants.push(behind_another_queue(stand, in_front).await);
    variants.push(behind_another_tenant(stand, in_front).await);
    variants
}

async fn tomorrow(cell: &Cell) -> String {
    let sql = "select to_char(now() + interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    cell.db.query_one(sql, &[]).await.expect("the clock is read").get(0)
}

/// A worker that may only take from the default queue, while another was filled first.
async fn behind_another_queue(stand: &Stand, in_front: usize) -> Variant {
    let cell = stand.cell(60, 16).await;
    let tenant_of = async |queue: &str| tenant(&cell, json!({}), json!({"queue": queue})).await;
    let (other, tenant) = (tenant_of("other").await, tenant_of("default").await);
    fill(&cell, &other, in_front, &json!({})).await;
    fill(&cell, &tenant, DEPTHS[0], &json!({})).await;
    let token = cell.new_worker_token(json!({"name": "scoped", "queues": ["default"]})).await;
    let ask = Ask { token, ..Ask::new(&cell, 1) };
    let name = format!("{in_front} of another queue in front");
    Variant::new(2, name, cell, tenant, ask)
}

/// A worker that may only take one tenant's rows, all but a few of which have the greater part of another's in front:
/// at the highest weight and priority a hundred thousand rows lie within seven steps of the tenant's own.
async fn behind_another_tenant(stand: &Stand, in_front: usize) -> Variant {
    let cell = stand.cell(60, 16).await;
    let other = tenant(&cell, json!({"weight": limits::MAX_WEIGHT}), json!({})).await;
    let tenant = tenant(&cell, json!({}), json!({})).await;
    fill(&cell, &other, in_front, &json!({"priority": 100})).await;
    fill(&cell, &tenant, DEPTHS[0], &json!({})).await;
    let token = cell.new_worker_token(json!({"name": "scoped", "tenant_ids": [tenant.id]})).await;
    let ask = Ask { token, ..Ask::new(&cell, 1) };
    let name = format!("{in_front} of another tenant in front");
    Variant::new(2, name, cell, tenant, ask)
}

/// One block of claims of every variant, in turn. The first turns are not counted: the caches are cold.
async fn block(variants: &mut [Variant]) {
    for turn in 0..=BLOCK / TURN {
        for variant in &mut *variants {
            for _ in 0..TURN {
                let (taken, took) = variant.ask.dequeue(&variant.cell).await;
                assert_eq!(taken.len(), 1, "{}: the backlog ran dry", variant.name);
                variant.held.extend(taken);
                if turn > 0 {
                    variant.milliseconds.push(took.as_secs_f64() * 1e3);
                }
            }
        }
    }
    for variant in variants {
        let held = std::mem::take(&mut variant.held);
        variant.ask.succeed(&variant.cell, &held).await;
        ask(&variant.cell, &variant.tenant, vec![json!({}); held.len()]).await;
    }
}

/// What one round measured.
fn figures(variants: &mut [Variant], report: &mut Report) {
    for (percent, name) in [(50, "p50"), (99, "p99")] {
        let of: Vec<_> = variants.iter().map(|v| (v.group, percentile(&v.milliseconds, percent))).collect();
        for (variant, (_, value)) in variants.iter().zip(&of) {
            report.figure(format!("{}, {name}", variant.name), "ms", *value);
        }
        let within = |group: usize| of.iter().filter(move |(of, _)| *of == group).map(|&(_, value)| value);
        let fastest = within(0).fold(f64::MAX, f64::min);
        for (group, (label, _)) in GROUPS.iter().enumerate() {
            report.figure(ratio(label, name), "", within(group).fold(0.0, f64::max) / fastest);
        }
    }
    for variant in variants {
        variant.milliseconds.clear();
    }
}
