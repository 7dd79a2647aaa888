//! Lines of work: fair order, concurrency and rate limits, pausing, priorities, what an operator sees.

use futures_util::future::join_all;
use jobplane_tests::{Cell, text};
use reqwest::Method;
use serde_json::{Value, json};

async fn patch(cell: &Cell, path: &str, body: Value) {
    cell.call(Method::PATCH, path, &cell.admin, Some(body)).await.ok();
}

/// Dequeues, reports and dequeues again from many workers at once until nothing is left; gives back the most that any
/// look at the leases found running.
async fn drain_watching(cell: &Cell, of: &str) -> i64 {
    let most = std::sync::atomic::AtomicI64::new(0);
    join_all((0..16).map(|_| async {
        let mut empty = 0;
        while empty < 5 {
            let (lease, taken) = cell.dequeue(5).await;
            let seen = cell.number(&format!("select count(*) from leases where {of}")).await;
            most.fetch_max(seen, std::sync::atomic::Ordering::Relaxed);
            for execution in &taken {
                let id = text(&execution["execution_id"]);
                cell.result(&id, &lease, json!({"outcome": "succeeded"})).await.ok();
            }
            empty = if taken.is_empty() { empty + 1 } else { 0 };
        }
    }))
    .await;
    most.into_inner()
}

#[tokio::test]
async fn a_tenant_never_has_more_running_than_its_limit_and_uses_all_of_it() {
    let cell = Cell::new().await;
    patch(&cell, &format!("/tenants/{}", cell.tenant_id), json!({"max_running": 3})).await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 120).await;
    assert_eq!(cell.dequeue(100).await.1.len(), 3, "all of it");
    assert_eq!(cell.dequeue(100).await.1.len(), 0);
    let queue = cell.get("/queues", &cell.admin).await.ok()["items"][0].clone();
    assert_eq!((&queue["parked"], &queue["waiting"], &queue["running"]), (&json!(117), &json!(0), &json!(3)));
    cell.sql("update leases set expires_at = now() - interval '1 s'", &[]).await;
    cell.tick().await;
    cell.fall_due().await;
    assert!(drain_watching(&cell, "true").await <= 3);
    assert_eq!(cell.number("select count(*) from attempts where status = 'SUCCEEDED'").await, 120);
}

#[tokio::test]
async fn a_job_never_has_more_running_than_its_limit_and_holds_up_no_other_job() {
    let cell = Cell::new().await;
    let limited = cell.new_job(json!({"max_running": 2})).await;
    let free = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &limited, 60).await;
    cell.run_many(&cell.tenant, &free, 5).await;
    let (_, first) = cell.dequeue(10).await;
    let (_, second) = cell.dequeue(10).await;
    let of = |taken: &[Value], job: &str| taken.iter().filter(|e| e["job"]["id"] == job).count();
    let both = [first, second].concat();
    assert_eq!((of(&both, &limited), of(&both, &free)), (2, 5));
    cell.expire_leases().await;
    cell.fall_due().await;
    assert!(drain_watching(&cell, &format!("job_id = '{limited}'")).await <= 2);
    assert_eq!(cell.number("select count(*) from attempts where status = 'SUCCEEDED'").await, 65);
}

#[tokio::test]
async fn a_changed_limit_works_at_once_for_what_waits_already() {
    let cell = Cell::new().await;
    let path = format!("/tenants/{}", cell.tenant_id);
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 20).await;
    assert_eq!(cell.dequeue(4).await.1.len(), 4, "no limit yet");
    patch(&cell, &path, json!({"max_running": 4})).await;
    assert_eq!(cell.dequeue(10).await.1.len(), 0, "what ran before the limit counts");
    patch(&cell, &path, json!({"max_running": 6})).await;
    assert_eq!(cell.dequeue(10).await.1.len(), 2);
    patch(&cell, &path, json!({"max_running": null})).await;
    assert_eq!(cell.dequeue(10).await.1.len(), 10);
}

#[tokio::test]
async fn a_rate_limit_admits_a_second_s_worth_and_says_when_to_come_back() {
    let cell = Cell::new().await;
    let body = json!({"name": "slow", "rate_limit_per_second": 2});
    let (_, key) = cell.new_tenant(body).await;
    let job = cell.new_job_of(&key, json!({})).await;
    let run = format!("/jobs/{job}/run");
    let mut refused = None;
    for _ in 0..20 {
        let reply = cell.post(&run, &key, json!({})).await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("twenty calls take less than ten seconds");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    refused.refused(429, "rate_limited");
    let waiting = cell.number("select count(*) from ready").await;
    cell.sql("update tenant_rates set full_at = full_at - make_interval(secs => $1)", &[&(wait as f64)])
        .await;
    cell.post(&run, &key, json!({})).await.ok();
    assert_eq!(
        cell.number("select count(*) from ready").await,
        waiting + 1,
        "a refused call left nothing behind"
    );
}

#[tokio::test]
async fn a_changed_rate_works_at_once() {
    let cell = Cell::new().await;
    let (id, key) = cell.new_tenant(json!({"name": "slow", "rate_limit_per_second": 1})).await;
    let job = cell.new_job_of(&key, json!({})).await;
    let run = format!("/jobs/{job}/run");
    let wait = async || {
        let refused = cell.post(&run, &key, json!({})).await;
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        refused.refused(429, "rate_limited");
        wait
    };
    // One call may be more than a second's worth; what is owed then flows off at the rate.
    cell.run_many(&key, &job, 1000).await;
    assert!(wait().await > 900);
    let tenant = format!("/tenants/{id}");
    patch(&cell, &tenant, json!({"weight": 2})).await;
    assert!(wait().await > 900, "another change leaves it as it was");
    patch(&cell, &tenant, json!({"rate_limit_per_second": 100_000})).await;
    cell.post(&run, &key, json!({})).await.ok();
    patch(&cell, &tenant, json!({"rate_limit_per_second": 1})).await;
    cell.run_many(&key, &job, 1000).await;
    assert!(wait().await > 900, "a lowered one too");
    patch(&cell, &tenant, json!({"rate_limit_per_second": null})).await;
    cell.post(&run, &key, json!({})).await.ok();
}

#[tokio::test]
async fn a_queue_or_tenant_that_is_listed_twice_is_refused() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run(&job).await;
    let (id, other) = (&cell.tenant_id, &uuid::Uuid::new_v4().to_string());
    for (field, twice, detail) in [
        ("queues", ["default", "other", "default"], "\"default\" is there twice".to_owned()),
        ("tenant_ids", [id, other, id], format!("{id} is there twice")),
    ] {
        let dequeue = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": 1, field: twice});
        let token = json!({"name": "twice", field: twice});
        for (path, key, body) in
            [("/internal/executions/dequeue", &cell.worker, dequeue), ("/worker-tokens", &cell.admin, token)]
        {
            let refused = cell.post(path, key, body).await.refused(422, "invalid_request");
            assert_eq!(refused["errors"], json!([{"field": field, "detail": detail}]), "{path}");
        }
    }
    assert_eq!(cell.number("select count(*) from leases").await, 0);
}

#[tokio::test]
async fn a_backlog_delays_another_tenant_s_first_row_by_about_one() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 1000).await;
    let (other_id, other) = cell.new_tenant(json!({"name": "other"})).await;
    let others = cell.new_job_of(&other, json!({})).await;
    cell.run_many(&other, &others, 1).await;
    let (_, taken) = cell.dequeue(3).await;
    assert!(taken.iter().any(|execution| execution["tenant_id"] == other_id), "among the next three");
}

#[tokio::test]
async fn shares_follow_weights_while_all_are_backlogged() {
    let cell = Cell::new().await;
    let (heavy_id, heavy) = cell.new_tenant(json!({"name": "heavy", "weight": 3})).await;
    for key in [&cell.tenant, &heavy] {
        let job = cell.new_job_of(key, json!({})).await;
        cell.run_many(key, &job, 400).await;
    }
    let (_, taken) = cell.dequeue(200).await;
    let heavy = taken.iter().filter(|execution| execution["tenant_id"] == heavy_id).count();
    assert!((148..=152).contains(&heavy), "{heavy} of 200, three quarters are 150");
}

#[tokio::test]
async fn calls_of_one_tenant_at_the_same_time_are_ranked_as_if_they_came_one_by_one() {
    let cell = Cell::new().await;
    let limited = cell.new_job(json!({"max_running": 1})).await;
    let free = cell.new_job(json!({})).await;
    // The limited job's window, which has ranks of its own.
    cell.run_many(&cell.tenant, &limited, 1).await;
    let counts = [1, 1, 1, 2, 5, 16, 17, 100];
    let asking = [&limited, &free].into_iter().flat_map(|job| {
        counts.map(|count| {
            let cell = &cell;
            async move {
                for _ in 0..5 {
                    cell.run_many(&cell.tenant, job, count).await;
                }
            }
        })
    });
    join_all(asking).await;
    for line in ["ready where line is null", "parked"] {
        let ranks = cell.number(&format!("select count(distinct rank) from {line}")).await;
        assert_eq!(ranks, 5 * counts.iter().sum::<usize>() as i64, "no place is taken twice: {line}");
    }
}

#[tokio::test]
async fn an_urgent_row_is_next_in_line_the_moment_it_arrives() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 500).await;
    cell.dequeue(100).await;
    let urgent = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"priority": 100})).await.ok();
    let (_, taken) = cell.dequeue(100).await;
    assert!(taken.iter().any(|execution| execution["execution_id"] == urgent["execution_id"]));
}

#[tokio::test]
async fn a_tenant_gains_what_its_levels_weigh_and_twice_that_with_rows_that_fall_due() {
    for (queue, due, gain) in [("asked", false, 31), ("due", true, 62)] {
        let cell = Cell::new().await;
        let job = cell.new_job(json!({"queue": queue})).await;
        let (modest_id, modest) = cell.new_tenant(json!({"name": "modest"})).await;
        let modest_job = cell.new_job_of(&modest, json!({"queue": queue})).await;
        let runs = format!("/jobs/{job}/runs");
        let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
        for (priority, weight) in [(0, 1), (25, 2), (50, 4), (75, 8), (100, 16)] {
            let mut run = json!({"priority": priority});
            let ask = async |run: &Value| {
                let body = json!({"runs": vec![run; 12 * weight]});
                cell.post(&runs, &cell.tenant, body).await.ok();
            };
            ask(&run).await;
            if due {
                run["scheduled_at"] = json!(soon);
                ask(&run).await;
            }
        }
        cell.run_many(&modest, &modest_job, 50).await;
        cell.fall_due().await;
        let body = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": 10 * (gain + 1), "queues": [queue]});
        let taken = cell.post("/internal/executions/dequeue", &cell.worker, body).await.ok();
        let taken = taken["executions"].as_array().unwrap();
        assert_eq!(taken.len(), 10 * (gain + 1));
        let modestly = taken.iter().filter(|execution| execution["tenant_id"] == modest_id).count();
        assert!((9..=11).contains(&modestly), "{queue}: {modestly} where 10 are its share");
    }
}

#[tokio::test]
async fn a_retry_that_falls_due_does_not_go_behind_its_tenant_s_backlog() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    cell.run_many(&cell.tenant, &job, 1000).await;
    cell.result(&id, &lease, json!({"outcome": "failed"})).await.ok();
    cell.fall_due().await;
    let (_, taken) = cell.dequeue(3).await;
    assert!(taken.iter().any(|execution| execution["execution_id"] == json!(id)));
}

#[tokio::test]
async fn queues_are_served_in_the_order_listed_and_a_paused_one_not_at_all() {
    let cell = Cell::new().await;
    let first = cell.new_job(json!({"queue": "first"})).await;
    let second = cell.new_job(json!({"queue": "second"})).await;
    cell.run_many(&cell.tenant, &second, 3).await;
    cell.run_many(&cell.tenant, &first, 3).await;
    let dequeue = |queues: Value| {
        let lease = uuid::Uuid::new_v4().to_string();
        let body = json!({"lease_id": lease, "worker_id": "w", "limit": 2, "queues": queues});
        let cell = &cell;
        async move {
            cell.post("/internal/executions/dequeue", &cell.worker, body).await.ok()["executions"].clone()
        }
    };
    let queues =
        |taken: &Value| taken.as_array().unwrap().iter().map(|e| text(&e["queue"])).collect::<Vec<_>>();
    assert_eq!(queues(&dequeue(json!(["first", "second"])).await), ["first", "first"]);
    assert_eq!(queues(&dequeue(json!(["first", "second"])).await), ["first", "second"]);
    patch(&cell, "/queues/second", json!({"paused": true})).await;
    assert!(queues(&dequeue(json!(["first", "second"])).await).is_empty());
    patch(&cell, "/queues/second", json!({"paused": false})).await;
    assert_eq!(queues(&dequeue(json!(["second"])).await), ["second", "second"]);
}

#[tokio::test]
async fn a_priority_above_the_tenant_s_highest_is_refused_not_clamped() {
    let cell = Cell::new().await;
    let (_, key) = cell.new_tenant(json!({"name": "low", "max_priority": 25})).await;
    let job = cell.new_job_of(&key, json!({"priority": 25})).await;
    let refused = cell.post(&format!("/jobs/{job}/run"), &key, json!({"priority": 50})).await;
    assert_eq!(refused.refused(422, "invalid_request")["errors"][0]["field"], "priority");
    let body = json!({"name": "high", "command": ["true"], "priority": 50});
    cell.post("/jobs", &key, body).await.refused(422, "invalid_request");
    let odd = cell.post(&format!("/jobs/{job}/run"), &key, json!({"priority": 10})).await;
    odd.refused(422, "invalid_request");
    assert_eq!(cell.number("select count(*) from executions").await, 0);
}

#[tokio::test]
async fn a_job_above_a_lowered_highest_priority_still_runs_at_the_highest() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"priority": 100})).await;
    cell.run(&job).await;
    let (lease, taken) = cell.dequeue(1).await;
    let dead = text(&taken[0]["execution_id"]);
    cell.result(&dead, &lease, json!({"outcome": "failed", "retryable": false})).await.ok();
    patch(&cell, &format!("/tenants/{}", cell.tenant_id), json!({"max_priority": 25})).await;
    let plain = cell.run(&job).await;
    let retried = cell.post(&format!("/executions/dlq/{dead}/retry"), &cell.tenant, json!({})).await.ok();
    for id in [plain, text(&retried["execution_id"])] {
        assert_eq!(cell.execution(&id).await["priority"], 25);
    }
    let refused = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"priority": 50})).await;
    assert_eq!(refused.refused(422, "invalid_request")["errors"][0]["field"], "priority");
}

#[tokio::test]
async fn a_tenant_that_asks_again_each_time_it_is_served_has_its_share_and_no_more() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 100).await;
    let (other_id, other) = cell.new_tenant(json!({"name": "other"})).await;
    let others = cell.new_job_of(&other, json!({})).await;
    let (mut of_other, mut waiting) = (0, false);
    for _ in 0..60 {
        if !waiting {
            cell.run_many(&other, &others, 1).await;
        }
        let (_, taken) = cell.dequeue(1).await;
        waiting = taken[0]["tenant_id"] != other_id;
        of_other += u32::from(!waiting);
    }
    assert!((15..=31).contains(&of_other), "{of_other} of 60");
}

#[tokio::test]
async fn a_mark_does_not_pass_what_its_own_claim_sees_waiting() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let scoped = cell.new_worker_token(json!({"name": "scoped", "tenant_ids": [cell.tenant_id]})).await;
    for (token, marks) in [(&cell.worker, "queues"), (&scoped, "tenant_queues")] {
        cell.run_many(&cell.tenant, &job, 30).await;
        let claim = async || {
            cell.sql(&format!("update {marks} set advanced_at = now() - interval '1 second'"), &[]).await;
            let body = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": 1});
            cell.post("/internal/executions/dequeue", token, body).await.ok();
        };
        claim().await;
        // As if these were ranked before the first claim and committed now.
        cell.sql("update ready set rank = rank / 64", &[]).await;
        claim().await;
        let behind = format!(
            "select count(*) from ready r join {marks} m on r.rank < m.scan_from where r.queue_id = 1"
        );
        assert_eq!(cell.number(&behind).await, 0, "{marks}");
        cell.sql("delete from ready", &[]).await;
    }
}

#[tokio::test]
async fn a_mark_of_a_scoped_worker_that_went_away_holds_its_tenant_back_no_longer() {
    let cell = Cell::new().await;
    let (job, at) = (cell.new_job(json!({})).await, 1_i64 << 40);
    cell.sql(
        "insert into tenant_queues (queue_id, tenant_id, virtual_rank, advanced_at)
              values (1, $1::text::uuid, $2, now() - interval '2 minutes')",
        &[&cell.tenant_id, &at],
    )
    .await;
    cell.tick().await;
    let (_, other) = cell.new_tenant(json!({"name": "other"})).await;
    let others = cell.new_job_of(&other, json!({})).await;
    cell.run_many(&other, &others, 20).await;
    let id = cell.run(&job).await;
    assert!(cell.dequeue(3).await.1.iter().any(|taken| taken["execution_id"] == json!(id)));
}

#[tokio::test]
async fn a_row_committed_behind_the_watermark_is_found_by_the_tick() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    cell.sql("update queues set virtual_rank = 1000000000, scan_from = 1000000000", &[]).await;
    // Nobody looks behind yet.
    cell.sql("update ticks set stragglers_at = now() + interval '1 hour'", &[]).await;
    assert_eq!(cell.dequeue(1).await.1.len(), 0);
    cell.tick().await;
    assert_eq!(cell.dequeue(1).await.1[0]["execution_id"], json!(id));
}

#[tokio::test]
async fn the_operator_and_the_tenant_see_what_waits_and_runs() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 5).await;
    let later = json!({"scheduled_at": "2099-01-01T00:00:00Z"});
    cell.post(&format!("/jobs/{job}/run"), &cell.tenant, later).await.refused(422, "invalid_request");
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"scheduled_at": soon.to_string()}))
        .await
        .ok();
    let (_, taken) = cell.dequeue(2).await;
    let queue = cell.get("/queues", &cell.worker).await.ok()["items"][0].clone();
    assert_eq!((&queue["waiting"], &queue["delayed"], &queue["running"]), (&json!(3), &json!(1), &json!(2)));
    assert_eq!((&queue["exact"], &queue["paused"]), (&json!(true), &json!(false)));
    assert!(queue["oldest_waiting_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0));
    let me = cell.get("/tenant", &cell.tenant).await.ok();
    assert_eq!(
        (&me["waiting"], &me["delayed"], &me["running"], &me["exact"]),
        (&json!(3), &json!(1), &json!(2), &json!(true))
    );
    assert_eq!(me["tenant"]["id"], json!(cell.tenant_id));
    let workers = cell.get("/workers", &cell.admin).await.ok();
    assert_eq!(
        (&workers["items"][0]["worker_id"], &workers["items"][0]["running"]),
        (&json!("tester"), &json!(2))
    );
    let held: Vec<_> = workers["items"][0]["executions"].as_array().unwrap().iter().map(text).collect();
    assert!(taken.iter().all(|execution| held.contains(&text(&execution["execution_id"]))));
}

#[tokio::test]
async fn a_crowd_that_falls_due_at_once_leaves_every_tenant_its_turn() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let runs = vec![json!({"scheduled_at": at}); 800];
    cell.post(&format!("/jobs/{job}/runs"), &cell.tenant, json!({"runs": runs})).await.ok();
    for name in 0..9 {
        let (_, other) = cell.new_tenant(json!({"name": format!("other {name}")})).await;
        let others = cell.new_job_of(&other, json!({"queue": "elsewhere"})).await;
        cell.post(&format!("/jobs/{others}/run"), &other, json!({"scheduled_at": at})).await.ok();
    }
    let due = "update delayed set due_at = now() - case tenant_id when $1::text::uuid then interval '1 m' else '1 s' end";
    cell.sql(due, &[&cell.tenant_id]).await;
    cell.tick().await;
    let left = format!("select count(*) from delayed where tenant_id <> '{}'", cell.tenant_id);
    assert_eq!(cell.number(&left).await, 0, "the one row of each other tenant's is in line after one tick");
    assert_eq!(
        cell.number("select count(*) from delayed").await,
        309,
        "and what they leave of it is not lost"
    );
    // The latter is when the tick was.
    let again = "select count(*) from ticks where ticked_at < expired_until";
    assert_eq!(cell.number(again).await, 1, "the next one is due in less than a second");
    cell.tick().await;
    assert_eq!(cell.number(again).await, 0, "and when there is no more, in a second");
    assert_eq!(cell.number("select count(*) from delayed").await, 0);
    assert_eq!(cell.number("select count(*) from ready").await, 809);
}

#[tokio::test]
async fn a_worker_scoped_to_tenants_takes_theirs_in_fair_order_behind_a_mark_of_their_own() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 50).await;
    let (mine_id, mine) = cell.new_tenant(json!({"name": "mine"})).await;
    let (second_id, second) = cell.new_tenant(json!({"name": "second"})).await;
    let (job, seconds) = (cell.new_job_of(&mine, json!({})).await, cell.new_job_of(&second, json!({})).await);
    cell.run_many(&mine, &job, 20).await;
    cell.run_many(&second, &seconds, 20).await;
    let token = cell.new_worker_token(json!({"name": "scoped", "tenant_ids": [mine_id, second_id]})).await;
    let take = async |limit: u32| {
        cell.sql("update tenant_queues set advanced_at = now() - interval '1 second'", &[]).await;
        let body = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": limit});
        let taken = cell.post("/internal/executions/dequeue", &token, body).await.ok();
        taken["executions"].as_array().unwrap().clone()
    };
    for _ in 0..3 {
        let taken = take(10).await;
        let of_mine = taken.iter().filter(|execution| execution["tenant_id"] == json!(mine_id)).count();
        assert_eq!((taken.len(), of_mine), (10, 5));
    }
    let marks = "select count(*) from tenant_queues where scan_from > 0";
    assert_eq!(cell.number(marks).await, 2);
    let behind = "select count(*) from queues q join ready r on r.queue_id = q.id and r.rank < q.scan_from";
    assert_eq!(cell.number(behind).await, 0, "others' rows are not behind the queue's mark");
    let urgent = cell.post(&format!("/jobs/{job}/run"), &mine, json!({"priority": 100})).await.ok();
    assert_eq!(take(2).await.iter().filter(|e| e["execution_id"] == urgent["execution_id"]).count(), 1);
    assert_eq!((take(100).await.len(), take(100).await.len()), (9, 0));
    assert_eq!(cell.dequeue(100).await.1.len(), 50);
}

#[tokio::test]
async fn what_a_scoped_worker_gives_back_is_first_in_line_for_the_next_one() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 50).await;
    let token = cell.new_worker_token(json!({"name": "scoped", "tenant_ids": [cell.tenant_id]})).await;
    let take = async |limit: u32| {
        cell.sql("update tenant_queues set advanced_at = now() - interval '1 second'", &[]).await;
        let body = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": limit});
        cell.post("/internal/executions/dequeue", &token, body).await.ok()
    };
    for _ in 0..3 {
        take(10).await;
    }
    let held = take(1).await;
    let id = text(&held["executions"][0]["execution_id"]);
    // Marks that no claim moves follow what is left.
    cell.tick().await;
    // Nobody looks behind the marks meanwhile.
    cell.sql("update ticks set stragglers_at = now() + interval '1 hour'", &[]).await;
    cell.result(&id, &text(&held["lease_id"]), json!({"outcome": "released"})).await.ok();
    assert_eq!(take(1).await["executions"][0]["execution_id"], json!(id));
}
