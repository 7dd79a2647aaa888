//! How work is asked for: backlogs in bulk, and single executions at a steady rate.

use super::fleet::Fleet;
use crate::{Cell, text};
use futures_util::{StreamExt, stream};
use jobplane_protocol::limits::MAX_BATCH;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Connections that fill a backlog.
const FILLERS: usize = 4;

/// A tenant with one job.
pub(super) struct Tenant {
    pub(super) id: Uuid,
    pub(super) key: String,
    pub(super) job: String,
}

/// Makes a tenant and its job.
pub(super) async fn tenant(cell: &Cell, mut tenant: Value, job: Value) -> Tenant {
    tenant["name"] = json!(format!("tenant-{}", Uuid::new_v4()));
    let (id, key) = cell.new_tenant(tenant).await;
    let job = cell.new_job_of(&key, job).await;
    Tenant { id: id.parse().expect("a UUID"), key, job }
}

/// Asks for many executions in bulk calls from a few clients at once: how long it took.
pub(super) async fn fill(cell: &Cell, tenant: &Tenant, count: usize, run: &Value) -> Duration {
    let began = Instant::now();
    fill_from(cell, tenant, count, run, FILLERS, MAX_BATCH).await;
    began.elapsed()
}

/// Asks for many executions in calls of so many, from so many clients at once.
pub(super) async fn fill_from(
    cell: &Cell,
    tenant: &Tenant,
    count: usize,
    run: &Value,
    clients: usize,
    batch: usize,
) {
    let batches = (0..count).step_by(batch).map(|from| batch.min(count - from));
    stream::iter(batches)
        .for_each_concurrent(clients, async |batch| {
            ask(cell, tenant, vec![run.clone(); batch]).await;
        })
        .await;
}

/// Asks for some executions in one call: their ids.
pub(super) async fn ask(cell: &Cell, tenant: &Tenant, runs: Vec<Value>) -> Vec<Uuid> {
    let path = format!("/jobs/{}/runs", tenant.job);
    let answer = cell.post(&path, &tenant.key, json!({"runs": runs})).await.ok();
    answer["execution_ids"].as_array().expect("ids").iter().map(uuid).collect()
}

/// Asks for one execution: its id.
pub(super) async fn ask_one(cell: &Cell, tenant: &Tenant, run: Value) -> Uuid {
    let answer = cell.post(&format!("/jobs/{}/run", tenant.job), &tenant.key, run).await.ok();
    uuid(&answer["execution_id"])
}

/// The UUID in a JSON string.
pub(super) fn uuid(value: &Value) -> Uuid {
    text(value).parse().expect("a UUID")
}

/// Lets each of these tenants ask for one execution a second, evenly spread and however long the answers take, to start
/// at once or so much later: when each was to start.
pub(super) async fn ask_steadily(
    cell: &Arc<Cell>,
    tenants: &Arc<Vec<Tenant>>,
    lasting: Duration,
    later: Duration,
) -> HashMap<Uuid, Instant> {
    let step = Duration::from_secs(1) / u32::try_from(tenants.len()).expect("a few");
    let mut clock = tokio::time::interval(step);
    let began = Instant::now();
    let mut calls = Vec::new();
    for turn in 0.. {
        clock.tick().await;
        if began.elapsed() >= lasting {
            break;
        }
        let (cell, tenants) = (cell.clone(), tenants.clone());
        calls.push(tokio::spawn(async move {
            let from = Instant::now() + later;
            let run = if later.is_zero() { json!({}) } else { json!({"scheduled_at": ahead(later)}) };
            (ask_one(&cell, &tenants[turn % tenants.len()], run).await, from)
        }));
    }
    let mut asked = HashMap::new();
    for call in calls {
        asked.extend([call.await.expect("the call is answered")]);
    }
    asked
}

/// The time so much from now. The database runs on the same machine, by the same clock.
pub(super) fn ahead(later: Duration) -> String {
    (jiff::Timestamp::now() + later).to_string()
}

/// Keeps the backlogs of tenants as they are while a fleet takes from them; ends with this value.
pub(super) struct Keeper(JoinHandle<()>);

impl Keeper {
    /// Asks for what the fleet took, in calls of so many, of each tenant as much as was its own.
    pub(super) fn start(cell: &Arc<Cell>, tenants: &Arc<Vec<Tenant>>, fleet: &Fleet, batch: usize) -> Self {
        let (cell, tenants, taken) = (cell.clone(), tenants.clone(), fleet.taken());
        Self(tokio::spawn(async move {
            let mut owed: HashMap<Uuid, usize> = HashMap::new();
            let mut seen = 0;
            loop {
                for of in &taken.lock().expect("no dequeuer panics with it")[seen..] {
                    *owed.entry(of.tenant).or_default() += 1;
                    seen += 1;
                }
                for tenant in tenants.iter() {
                    let owed = owed.entry(tenant.id).or_default();
                    while *owed >= batch {
                        ask(&cell, tenant, vec![json!({}); batch]).await;
                        *owed -= batch;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}
