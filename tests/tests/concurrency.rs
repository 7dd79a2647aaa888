//! Limits on how many run at once: exact, in nobody's way, and nothing waits behind one for ever.

use futures_util::future::join_all;
use jobplane_tests::{Cell, text};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

async fn patch(cell: &Cell, path: &str, token: &str, body: Value) {
    cell.call(Method::PATCH, path, token, Some(body)).await.ok();
}

/// Changes the first tenant's limit.
async fn limit_tenant(cell: &Cell, limit: Option<u32>) {
    let path = format!("/tenants/{}", cell.tenant_id);
    patch(cell, &path, &cell.admin, json!({"max_running": limit})).await;
}

/// Ends what was taken, and says how many of it were this tenant's.
async fn finish(cell: &Cell, lease: &str, taken: &[Value], tenant_id: &str) -> usize {
    let results: Vec<_> = taken
        .iter()
        .map(|e| json!({"execution_id": e["execution_id"], "lease_id": lease, "outcome": "succeeded"}))
        .collect();
    if !results.is_empty() {
        cell.post("/internal/executions/results", &cell.worker, json!({"results": results})).await.ok();
    }
    taken.iter().filter(|execution| execution["tenant_id"] == tenant_id).count()
}

/// Takes and ends until an answer is empty; how many there were.
async fn drain(cell: &Cell) -> usize {
    let mut ended = 0;
    loop {
        let (lease, taken) = cell.dequeue(100).await;
        if taken.is_empty() {
            return ended;
        }
        finish(cell, &lease, &taken, "").await;
        ended += taken.len();
    }
}

#[tokio::test]
async fn a_limited_backlog_shrinks_nobody_s_claims() {
    let cell = Cell::new().await;
    limit_tenant(&cell, Some(1)).await;
    let limited = cell.new_job(json!({})).await;
    let (free_id, free) = cell.new_tenant(json!({"name": "free"})).await;
    let job = cell.new_job_of(&free, json!({})).await;
    cell.run_many(&cell.tenant, &limited, 500).await;
    cell.run_many(&free, &job, 500).await;
    for _ in 0..4 {
        let (lease, taken) = cell.dequeue(100).await;
        assert!(finish(&cell, &lease, &taken, &free_id).await >= 99, "{} were taken", taken.len());
    }
}

#[tokio::test]
async fn a_limit_set_behind_a_backlog_is_kept_and_holds_up_nobody() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 500).await;
    limit_tenant(&cell, Some(2)).await;
    let (free_id, free) = cell.new_tenant(json!({"name": "free"})).await;
    let others = cell.new_job_of(&free, json!({})).await;
    cell.run_many(&free, &others, 3).await;
    let (lease, taken) = cell.dequeue(10).await;
    assert_eq!(taken.len(), 5, "two of the limited, and those behind");
    assert_eq!(finish(&cell, &lease, &taken, &free_id).await, 3);
    let mut ended = 2;
    while ended < 500 {
        let (lease, taken) = cell.dequeue(100).await;
        assert_eq!(taken.len(), 2, "after {ended}");
        finish(&cell, &lease, &taken, "").await;
        ended += taken.len();
    }
}

#[tokio::test]
async fn a_paused_queue_holds_nothing_back_elsewhere() {
    let cell = Cell::new().await;
    limit_tenant(&cell, Some(2)).await;
    let held = cell.new_job(json!({"queue": "held"})).await;
    let served = cell.new_job(json!({})).await;
    patch(&cell, "/queues/held", &cell.admin, json!({"paused": true})).await;
    cell.run_many(&cell.tenant, &held, 10).await;
    cell.run_many(&cell.tenant, &served, 10).await;
    assert_eq!(drain(&cell).await, 10);
    patch(&cell, "/queues/held", &cell.admin, json!({"paused": false})).await;
    let body = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": 10, "queues": ["held"]});
    let taken = cell.post("/internal/executions/dequeue", &cell.worker, body).await.ok();
    assert_eq!(taken["executions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_job_at_its_limit_holds_up_no_other_job_of_its_limited_tenant() {
    let cell = Cell::new().await;
    limit_tenant(&cell, Some(5)).await;
    let narrow = cell.new_job(json!({"max_running": 1})).await;
    let wide = cell.new_job(json!({"max_running": 4})).await;
    cell.run_many(&cell.tenant, &narrow, 300).await;
    cell.run_many(&cell.tenant, &wide, 12).await;
    let mut taken = cell.dequeue(100).await.1;
    taken.extend(cell.dequeue(100).await.1);
    let of = |job: &String| taken.iter().filter(|execution| execution["job"]["id"] == json!(job)).count();
    assert_eq!((of(&narrow), of(&wide)), (1, 4));
}

#[tokio::test]
async fn an_urgent_run_of_a_limited_tenant_is_next() {
    let cell = Cell::new().await;
    limit_tenant(&cell, Some(1)).await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 50).await;
    let (lease, taken) = cell.dequeue(1).await;
    let urgent = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"priority": 100})).await.ok();
    let mut seen = Vec::new();
    finish(&cell, &lease, &taken, "").await;
    for _ in 0..2 {
        let (lease, taken) = cell.dequeue(1).await;
        seen.push(text(&taken[0]["execution_id"]));
        finish(&cell, &lease, &taken, "").await;
    }
    assert!(seen.contains(&text(&urgent["execution_id"])), "the next, or the one after");
}

#[tokio::test]
async fn what_is_parked_can_be_seen_and_cancelled() {
    let cell = Cell::new().await;
    limit_tenant(&cell, Some(1)).await;
    let job = cell.new_job(json!({})).await;
    let ids = cell.run_many(&cell.tenant, &job, 5).await;
    assert_eq!(cell.number("select count(*) from parked").await, 4);
    assert_eq!(cell.execution(&ids[4]).await["status"], "PENDING");
    assert_eq!(cell.get("/tenant", &cell.tenant).await.ok()["waiting"], 5);
    let cancelled = cell.post(&format!("/executions/{}/cancel", ids[4]), &cell.tenant, json!({})).await.ok();
    assert_eq!(cancelled["status"], "CANCELLED");
    assert_eq!(drain(&cell).await, 4);
}

#[tokio::test]
async fn claims_under_many_limits_never_wait_for_each_other() {
    let cell = Cell::new().await;
    limit_tenant(&cell, Some(60)).await;
    for _ in 0..12 {
        let job = cell.new_job(json!({"max_running": 20})).await;
        cell.run_many(&cell.tenant, &job, 50).await;
    }
    let ended = join_all((0..12).map(|_| drain(&cell))).await;
    // Whoever met only what others had in hand stopped early; the last one finds the rest.
    assert_eq!(ended.into_iter().sum::<usize>() + drain(&cell).await, 600);
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(cell.number(sql).await, 0);
}

/// One step of a random life under limits.
async fn step(cell: &Cell, dice: &mut StdRng, jobs: &[String], leases: &mut Vec<(String, Vec<Value>)>) {
    let limit = [None, Some(1), Some(2), Some(7)][dice.random_range(0..4)];
    let job = &jobs[dice.random_range(0..jobs.len())];
    match dice.random_range(0..10) {
        0 => limit_tenant(cell, limit).await,
        1 => patch(cell, &format!("/jobs/{job}"), &cell.tenant, json!({"max_running": limit})).await,
        2 => patch(cell, "/queues/default", &cell.admin, json!({"paused": dice.random_bool(0.5)})).await,
        3 | 4 => drop(cell.run_many(&cell.tenant, job, dice.random_range(1..20)).await),
        5 => {
            let sql = "select execution_id::text from (select execution_id from parked union all
                       select execution_id from ready) x order by random() limit 1";
            if let Some(row) = cell.db.query_opt(sql, &[]).await.unwrap() {
                let path = format!("/executions/{}/cancel", row.get::<_, String>(0));
                cell.post(&path, &cell.tenant, json!({})).await.ok();
            }
        }
        6 | 7 if !leases.is_empty() => {
            let (lease, taken) = leases.swap_remove(dice.random_range(0..leases.len()));
            finish(cell, &lease, &taken, "").await;
        }
        8 => cell.expire_leases().await,
        _ => leases.push(cell.dequeue(dice.random_range(1..10)).await),
    }
}

#[tokio::test]
async fn nothing_is_stranded_whatever_happens_to_limits() {
    let seed = rand::random();
    eprintln!("seed: {seed}");
    let (cell, mut dice) = (Cell::new().await, StdRng::seed_from_u64(seed));
    let retry = json!({"max_attempts": 100, "backoff_seconds": 0});
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(cell.new_job(json!({"retry": retry})).await);
    }
    let mut leases = Vec::new();
    for _ in 0..300 {
        step(&cell, &mut dice, &jobs, &mut leases).await;
    }
    // Limits stay as they are; what waits still gets its turn.
    patch(&cell, "/queues/default", &cell.admin, json!({"paused": false})).await;
    cell.expire_leases().await;
    cell.fall_due().await;
    drain(&cell).await;
    for table in ["ready", "parked", "delayed", "leases"] {
        assert_eq!(cell.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    let ended = cell
        .number("select count(*) from attempts where status in ('SUCCEEDED', 'CANCELLED', 'FAILED')")
        .await;
    assert_eq!(ended, cell.number("select count(*) from executions").await);
}
