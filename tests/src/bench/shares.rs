//! What each of several backlogged flows gets of the fleet, in every window of consecutive claims.

use super::fleet::{Ask, Fleet, Manner, Taken};
use super::load::{Tenant, ask, ask_one, fill_from, tenant};
use super::report::Report;
use super::stand::Stand;
use crate::Cell;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// Consecutive claims in which the shares must be right.
const WINDOW: usize = 10_000;
/// Windows' worth of claims that are watched.
const WINDOWS: usize = 3;
/// Dequeuers, each of which takes so many at once as fast as it can.
const FLEET: Manner = Manner { size: 4, pace: None, killed_in: 0 };
const LIMIT: usize = 100;
/// The weights of the priorities 0, 25, 50, 75 and 100.
const PRIORITIES: [(i64, f64); 5] = [(0, 1.0), (25, 2.0), (50, 4.0), (75, 8.0), (100, 16.0)];
/// What a tenant that uses every level gets beside one that uses the lowest, as the documentation says.
const GAIN: f64 = 31.0;

const EQUAL: &str = "one client / 16 clients: furthest from 1 : 1";
const WEIGHTS: &str = "weights 1 : 2 : 4: furthest from them";
const BULK: &str = "the same, each asked for by 4 bulk clients";
const LEVELS: &str = "priorities 0, 50, 100: furthest from 1 : 4 : 16";
const GAINED: &str = "every level against the lowest: times its share";

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let window = stand.size(WINDOW);
    report.parameter("shares", format!("any {window} of {} claims", WINDOWS * window));
    report.parameter("their fleet", format!("{} dequeuers of {LIMIT}", FLEET.size));
    let cell = stand.cell(60, 20).await;
    for round in 0..stand.rounds {
        stand.say("shares of backlogged tenants and priorities");
        let queue = format!("equal-{round}");
        report.figure(EQUAL, "%", 100.0 * from_clients(stand, &cell, &queue).await);
        for (what, clients) in [(WEIGHTS, 1), (BULK, 4)] {
            let queue = format!("weights-{clients}-{round}");
            report.figure(what, "%", 100.0 * by_weight(&cell, &queue, window, clients).await);
        }
        let queue = format!("levels-{round}");
        report.figure(LEVELS, "%", 100.0 * by_priority(&cell, &queue, window).await);
        let queue = format!("gain-{round}");
        report.figure(GAINED, "times", gain(&cell, &queue, window).await);
    }
    stand.discard(cell).await;
    report.at_most("backlogged shares are 1 : 1 within 5 %, 16 clients against one", EQUAL, 5.0);
    report.at_most("shares are within 5 % of the weights 1 : 2 : 4 over any 10,000 claims", WEIGHTS, 5.0);
    report.at_most("exact also when many clients of one tenant enqueue at once", BULK, 5.0);
    report.at_most("likewise priorities 0, 50, 100 of one tenant against their weights", LEVELS, 5.0);
    let gained = report.median(GAINED);
    report.require(
        "the most that a tenant gains by using every level is what the docs say",
        format!("{GAINED}: {gained:.1}, documented {GAIN}"),
        (gained / GAIN - 1.0).abs() <= 0.05,
    );
}

/// A tenant enqueues single rows from 16 clients, another in bulk from one, both into the same queue; then a fleet
/// takes from it. How far from half each got.
async fn from_clients(stand: &Stand, cell: &Arc<Cell>, queue: &str) -> f64 {
    let (rows, window) = (stand.size(6_000), stand.size(WINDOW));
    let job = json!({"queue": queue});
    let many = Arc::new(tenant(cell, json!({}), job.clone()).await);
    let one = tenant(cell, json!({}), job).await;
    let left = Arc::new(AtomicUsize::new(rows));
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let (cell, many, left) = (cell.clone(), many.clone(), left.clone());
        clients.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                ask_one(&cell, &many, json!({})).await;
            }
        });
    }
    for _ in 0..rows.div_ceil(50) {
        ask(cell, &one, vec![json!({}); 50]).await;
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every call is answered");
    }
    let taken = take(cell, queue, window).await;
    furthest(&taken, window, &[1.0, 1.0], |of| [many.id, one.id].iter().position(|&id| id == of.tenant))
}

/// Three tenants of the weights 1, 2 and 4.
async fn by_weight(cell: &Arc<Cell>, queue: &str, window: usize, clients: usize) -> f64 {
    let weights = [1.0, 2.0, 4.0];
    let mut tenants: Vec<Tenant> = Vec::new();
    for weight in weights {
        let tenant = tenant(cell, json!({"weight": weight as i64}), json!({"queue": queue})).await;
        let count = enough(window, weight / 7.0);
        fill_from(cell, &tenant, count, &json!({}), clients, window / 10).await;
        tenants.push(tenant);
    }
    let taken = take(cell, queue, WINDOWS * window).await;
    furthest(&taken, window, &weights, |of| tenants.iter().position(|tenant| tenant.id == of.tenant))
}

/// One tenant's rows of three priorities.
async fn by_priority(cell: &Arc<Cell>, queue: &str, window: usize) -> f64 {
    let levels = [PRIORITIES[0], PRIORITIES[2], PRIORITIES[4]];
    let tenant = tenant(cell, json!({}), json!({"queue": queue})).await;
    for (priority, weight) in levels {
        let count = enough(window, weight / 21.0);
        fill_from(cell, &tenant, count, &json!({"priority": priority}), 1, window / 10).await;
    }
    let taken = take(cell, queue, WINDOWS * window).await;
    let weights = levels.map(|(_, weight)| weight);
    furthest(&taken, window, &weights, |of| levels.iter().position(|&(level, _)| level == of.priority))
}

/// A tenant that uses every level beside one that uses the lowest: how many times the other's share it gets.
async fn gain(cell: &Arc<Cell>, queue: &str, window: usize) -> f64 {
    let job = json!({"queue": queue});
    let greedy = tenant(cell, json!({}), job.clone()).await;
    let modest = tenant(cell, json!({}), job).await;
    let total = GAIN + 1.0;
    for (priority, weight) in PRIORITIES {
        let count = enough(window, weight / total);
        fill_from(cell, &greedy, count, &json!({"priority": priority}), 1, window / 10).await;
    }
    fill_from(cell, &modest, enough(window, 1.0 / total), &json!({}), 1, window / 10).await;
    let taken = take(cell, queue, WINDOWS * window).await;
    let greedily = taken.iter().filter(|of| of.tenant == greedy.id).count();
    greedily as f64 / (taken.len() - greedily) as f64
}

/// Rows that a flow needs so that it is backlogged to the end.
fn enough(window: usize, share: f64) -> usize {
    (1.2 * share * (WINDOWS * window) as f64) as usize + 200
}

/// Lets a fleet take so many: which they were, in order.
async fn take(cell: &Arc<Cell>, queue: &str, count: usize) -> Vec<Taken> {
    let fleet = Fleet::start(cell, &Ask::new(cell, LIMIT).of(queue), FLEET);
    fleet.reach(count).await;
    let mut taken = fleet.stop().await;
    taken.truncate(count);
    taken
}

/// How far the share of any flow in any window is from what its weight gives it, as a fraction of that.
fn furthest(taken: &[Taken], window: usize, weights: &[f64], flow: impl Fn(&Taken) -> Option<usize>) -> f64 {
    let flows: Vec<_> = taken.iter().map(|of| flow(of).expect("nobody else is in this queue")).collect();
    let total: f64 = weights.iter().sum();
    let mut furthest: f64 = 0.0;
    for window in flows.windows(window).step_by(window / 20) {
        for (flow, weight) in weights.iter().enumerate() {
            let got = window.iter().filter(|&&of| of == flow).count() as f64 / window.len() as f64;
            furthest = furthest.max((got / (weight / total) - 1.0).abs());
        }
    }
    furthest
}
