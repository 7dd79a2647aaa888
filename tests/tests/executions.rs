//! Asking for executions, cancelling them, reading their logs, and the dead letters.

use futures_util::future::join_all;
use jobplane_tests::{Cell, Reply, text};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn keyed(cell: &Cell, path: &str, key: &str, body: Value) -> Reply {
    let request = cell.request(Method::POST, path, &cell.tenant, Some(body.to_string().into_bytes()));
    cell.send(request.header("idempotency-key", key)).await
}

#[tokio::test]
async fn a_repeated_key_has_one_effect_and_the_same_answer() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let run = format!("/jobs/{job}/run");
    let first = keyed(&cell, &run, "a", json!({"input": 1})).await;
    assert_eq!(first.status, 201);
    let again = keyed(&cell, &run, "a", json!({"input": 1})).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    keyed(&cell, &run, "a", json!({"input": 2})).await.refused(422, "idempotency_key_reused");
    let bulk = json!({"runs": [{}, {}]});
    let many = keyed(&cell, &format!("/jobs/{job}/runs"), "b", bulk.clone()).await;
    let same = keyed(&cell, &format!("/jobs/{job}/runs"), "b", bulk).await;
    assert_eq!((many.status, same.status, &many.body), (201, 200, &same.body));
    assert_eq!(cell.number("select count(*) from executions").await, 3);
    cell.sql("update idempotency_keys set created_at = now() - interval '25 hours'", &[]).await;
    assert_eq!(keyed(&cell, &run, "a", json!({"input": 2})).await.status, 201);
}

#[tokio::test]
async fn concurrent_calls_with_one_key_make_one_execution() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let run = format!("/jobs/{job}/run");
    let replies = join_all((0..16).map(|_| keyed(&cell, &run, "k", json!({})))).await;
    assert!(replies.iter().all(|reply| reply.body == replies[0].body), "{replies:?}");
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    assert_eq!(cell.number("select count(*) from executions").await, 1);
}

#[tokio::test]
async fn a_call_that_is_repeated_at_once_costs_no_rate() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let limit = json!({"rate_limit_per_second": 1});
    cell.call(Method::PATCH, &format!("/tenants/{}", cell.tenant_id), &cell.admin, Some(limit)).await.ok();
    let run = format!("/jobs/{job}/run");
    for round in 0..15 {
        let key = format!("round {round}");
        cell.sql("delete from tenant_rates", &[]).await;
        let replies = join_all((0..4).map(|_| keyed(&cell, &run, &key, json!({})))).await;
        let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        statuses.sort();
        assert_eq!(statuses, [200, 200, 200, 201], "{replies:?}");
        assert!(replies.iter().all(|reply| reply.body == replies[0].body), "{replies:?}");
    }
    assert_eq!(cell.number("select count(*) from executions").await, 15);
    // What was refused is not remembered.
    cell.sql("update tenant_rates set full_at = now() + interval '1 hour'", &[]).await;
    keyed(&cell, &run, "refused", json!({})).await.refused(429, "rate_limited");
    cell.sql("delete from tenant_rates", &[]).await;
    assert_eq!(keyed(&cell, &run, "refused", json!({})).await.status, 201);
}

#[tokio::test]
async fn a_bulk_is_all_or_none() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let runs = format!("/jobs/{job}/runs");
    let bad = json!({"runs": [{}, {"priority": 7}]});
    let refused = cell.post(&runs, &cell.tenant, bad).await.refused(422, "invalid_request");
    assert_eq!(refused["errors"][0]["field"], "runs[1].priority");
    cell.post(&runs, &cell.tenant, json!({"runs": vec![json!({}); 1001]}))
        .await
        .refused(422, "invalid_request");
    cell.post(&runs, &cell.tenant, json!({"runs": []})).await.refused(422, "invalid_request");
    assert_eq!(cell.number("select count(*) from executions").await, 0);
}

#[tokio::test]
async fn a_scheduled_execution_waits_for_its_time() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).to_string();
    let asked = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"scheduled_at": at})).await.ok();
    assert_eq!(asked["status"], "SCHEDULED");
    cell.tick().await;
    assert_eq!(cell.dequeue(1).await.1.len(), 0);
    cell.fall_due().await;
    assert_eq!(cell.dequeue(1).await.1[0]["execution_id"], asked["execution_id"]);
}

#[tokio::test]
async fn cancel_in_every_state() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let cancel = |id: String| {
        let cell = &cell;
        async move { cell.post(&format!("/executions/{id}/cancel"), &cell.tenant, json!({})).await }
    };
    // Pending: at once.
    let pending = cell.run(&job).await;
    assert_eq!(cancel(pending.clone()).await.ok(), json!({"status": "CANCELLED"}));
    let seen = cell.execution(&pending).await;
    assert_eq!((&seen["status"], &seen["attempts"][0]["attempt"]), (&json!("CANCELLED"), &json!(0)));
    cancel(pending).await.refused(409, "already_finished");
    // Scheduled: at once.
    let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).to_string();
    let asked = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"scheduled_at": at})).await.ok();
    assert_eq!(cancel(text(&asked["execution_id"])).await.ok()["status"], "CANCELLED");
    // Retrying: at once, with its attempt kept.
    let retrying = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    cell.result(&retrying, &lease, json!({"outcome": "failed"})).await.ok();
    assert_eq!(cell.execution(&retrying).await["status"], "RETRYING");
    cancel(retrying.clone()).await.ok();
    let seen = cell.execution(&retrying).await;
    assert_eq!(
        (&seen["status"], &seen["attempt"], &seen["tries"]),
        (&json!("CANCELLED"), &json!(1), &json!(1))
    );
    // Running: its worker is told, and reports.
    let running = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    assert_eq!(cancel(running.clone()).await.ok(), json!({"status": "RUNNING"}));
    assert_eq!(cell.execution(&running).await["cancel_requested"], true);
    assert_eq!(cell.heartbeat(&running, &lease).await.ok()["cancel_requested"], true);
    let done = cell.result(&running, &lease, json!({"outcome": "cancelled"})).await.ok();
    assert_eq!(done["status"], "CANCELLED");
    // Running, and its worker dies.
    let dying = cell.run(&job).await;
    cell.dequeue(1).await;
    cancel(dying.clone()).await.ok();
    cell.expire_leases().await;
    assert_eq!(cell.execution(&dying).await["status"], "CANCELLED");
    // Ended.
    let ended = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    cell.result(&ended, &lease, json!({"outcome": "succeeded"})).await.ok();
    cancel(ended).await.refused(409, "already_finished");
    for hot in ["ready", "delayed", "leases"] {
        assert_eq!(cell.number(&format!("select count(*) from {hot}")).await, 0, "{hot}");
    }
}

#[tokio::test]
async fn a_cancel_that_races_a_dequeue_finds_the_execution() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    for _ in 0..10 {
        let ids = cell.run_many(&cell.tenant, &job, 8).await;
        let cancels = ids
            .iter()
            .map(|id| cell.post(format!("/executions/{id}/cancel").leak(), &cell.tenant, json!({})));
        let (cancelled, _) = tokio::join!(join_all(cancels), join_all((0..8).map(|_| cell.dequeue(2))));
        for reply in cancelled {
            assert!(["CANCELLED", "RUNNING"].contains(&text(&reply.ok()["status"]).as_str()));
        }
    }
    let lost = "select count(*) from executions e where not exists (select from leases l where l.execution_id = e.id)
        and not exists (select from attempts a where a.execution_id = e.id)";
    assert_eq!(cell.number(lost).await, 0);
}

#[tokio::test]
async fn dead_letters_are_listed_retried_once_and_deleted() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 1}})).await;
    let ids = cell.run_many(&cell.tenant, &job, 4).await;
    let (lease, _) = cell.dequeue(4).await;
    for id in &ids {
        cell.result(id, &lease, json!({"outcome": "failed", "error": "boom"})).await.ok();
    }
    let page = cell.get("/executions/dlq?limit=3", &cell.tenant).await.ok();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(page["items"][0]["reason"], "failed on attempt 1 of 1: boom");
    let next = text(&page["next_cursor"]);
    let rest = cell.get(&format!("/executions/dlq?limit=3&cursor={next}"), &cell.tenant).await.ok();
    assert_eq!((rest["items"].as_array().map(Vec::len), &rest["next_cursor"]), (Some(1), &Value::Null));

    let retry = format!("/executions/dlq/{}/retry", ids[0]);
    let twice =
        [cell.post(&retry, &cell.tenant, json!({})).await, cell.post(&retry, &cell.tenant, json!({})).await];
    assert_eq!((twice[0].status, &twice[0].body), (201, &twice[1].body));
    assert_eq!(cell.execution(&text(&twice[0].body["execution_id"])).await["retried_from"], json!(ids[0]));
    let delete =
        |id: &str| cell.call(Method::DELETE, format!("/executions/dlq/{id}").leak(), &cell.tenant, None);
    assert_eq!(delete(&ids[1]).await.status, 204);
    delete(&ids[1]).await.refused(404, "dead_letter_not_found");
    let many = cell.post("/executions/dlq/retry", &cell.tenant, json!({"job_id": job})).await.ok();
    assert_eq!(many, json!({"retried": 2}));
    assert_eq!(cell.get("/executions/dlq", &cell.tenant).await.ok()["items"], json!([]));
    cell.tick().await;
    assert_eq!(cell.dequeue(10).await.1.len(), 3);
}

/// Executions of this job that have failed for good.
async fn dead(cell: &Cell, job: &str, count: usize) -> Vec<String> {
    let ids = cell.run_many(&cell.tenant, job, count).await;
    let (lease, taken) = cell.dequeue(1000).await;
    assert_eq!(taken.len(), count);
    for id in &ids {
        cell.result(id, &lease, json!({"outcome": "failed", "retryable": false})).await.ok();
    }
    ids
}

#[tokio::test]
async fn concurrent_retries_of_one_dead_letter_answer_the_same_execution() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let ids = dead(&cell, &job, 10).await;
    let mut made = BTreeSet::new();
    for id in &ids {
        let path = format!("/executions/dlq/{id}/retry");
        let replies = join_all((0..16).map(|_| cell.post(&path, &cell.tenant, json!({})))).await;
        let all: BTreeSet<_> = replies.into_iter().map(|reply| text(&reply.ok()["execution_id"])).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        made.extend(all);
    }
    assert_eq!((made.len(), cell.number("select count(*) from executions").await), (10, 20));
}

#[tokio::test]
async fn a_retry_waits_for_another_call_that_has_its_dead_letter_in_hand() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = dead(&cell, &job, 1).await.remove(0);
    cell.db.batch_execute("begin; select from dead_letters for update").await.unwrap();
    let path = format!("/executions/dlq/{id}/retry");
    let let_go = async {
        while cell.number("select count(*) from pg_locks where not granted").await == 0 {
            tokio::task::yield_now().await;
        }
        cell.db.batch_execute("rollback").await.unwrap();
    };
    let (reply, ()) = tokio::join!(cell.post(&path, &cell.tenant, json!({})), let_go);
    assert_eq!(reply.ok()["retried_from"], json!(id));
}

#[tokio::test]
async fn a_dead_letter_s_retry_goes_where_its_job_goes_now() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"queue": "default"})).await;
    let ids = dead(&cell, &job, 2).await;
    let moved = json!({"queue": "moved"});
    cell.call(Method::PATCH, &format!("/jobs/{job}"), &cell.tenant, Some(moved)).await.ok();
    let one = cell.post(&format!("/executions/dlq/{}/retry", ids[0]), &cell.tenant, json!({})).await.ok();
    assert_eq!(cell.execution(&text(&one["execution_id"])).await["queue"], "moved");
    cell.post("/executions/dlq/retry", &cell.tenant, json!({})).await.ok();
    cell.fall_due().await;
    let body = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": 9, "queues": ["moved"]});
    let taken = cell.post("/internal/executions/dequeue", &cell.worker, body).await.ok();
    assert_eq!(taken["executions"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_retry_is_asked_for_within_the_rate_limit_and_a_refused_one_changes_nothing() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let ids = dead(&cell, &job, 3).await;
    let limit = json!({"rate_limit_per_second": 1});
    cell.call(Method::PATCH, &format!("/tenants/{}", cell.tenant_id), &cell.admin, Some(limit)).await.ok();
    let one = format!("/executions/dlq/{}/retry", ids[0]);
    let first = cell.post(&one, &cell.tenant, json!({})).await.ok();
    cell.sql("update tenant_rates set full_at = now() + interval '1 hour'", &[]).await;
    let again = cell.post(&one, &cell.tenant, json!({})).await.ok();
    assert_eq!(again, first, "asked again it makes nothing, and costs nothing");
    let before = cell.rows("true").await;
    let other = format!("/executions/dlq/{}/retry", ids[1]);
    for path in [other.as_str(), "/executions/dlq/retry"] {
        let refused = cell.post(path, &cell.tenant, json!({})).await;
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3_590..=3_602).contains(&wait), "{wait}");
        refused.refused(429, "rate_limited");
    }
    assert_eq!(cell.rows("true").await, before);
    cell.sql("delete from tenant_rates", &[]).await;
    let many = cell.post("/executions/dlq/retry", &cell.tenant, json!({})).await.ok();
    assert_eq!(many, json!({"retried": 2}), "one call may be more than a second's worth");
}

#[tokio::test]
async fn a_list_stays_right_while_rows_are_added_and_filters_by_state() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let mut wanted = cell.run_many(&cell.tenant, &job, 25).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = cell.get(&format!("/executions?limit=10{cursor}"), &cell.tenant).await.ok();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| text(&item["id"])));
        cell.run(&job).await;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    wanted.reverse();
    assert_eq!(seen, wanted, "newest first, each once, none of those added since");
    cell.dequeue(2).await;
    let running = cell.get("/executions?status=RUNNING", &cell.tenant).await.ok();
    assert_eq!(running["items"].as_array().map(Vec::len), Some(2));
    let none = cell.get("/executions?queue=elsewhere", &cell.tenant).await.ok();
    assert_eq!((&none["items"], &none["next_cursor"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn a_filtered_list_shows_each_row_once_while_rows_are_added() {
    let cell = Cell::new().await;
    let (old, new) = (cell.new_job(json!({})).await, cell.new_job(json!({})).await);
    // Of the older job so many that the last row which a call may examine is in their middle.
    let made = "with made as (
        insert into executions (id, tenant_id, job_id, queue_id, priority, created_at)
        select uuid7(now() - interval '1 minute' + n * interval '1 us'), $1::text::uuid,
          (case when n <= 600 then $2::text else $3::text end)::uuid, 1, 0, now()
        from generate_series(1, 10200) n returning id)
      insert into attempts (execution_id, attempt, outcome, status, tries, finished_at)
      select id, 0, 'cancelled', 'CANCELLED', 0, now() from made";
    assert_eq!(cell.sql(made, &[&cell.tenant_id, &old, &new]).await, 10_200);
    for _ in 0..4 {
        let done = std::sync::atomic::AtomicBool::new(false);
        let adding = async {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                cell.run(&new).await;
            }
        };
        let paging = async {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let path = format!("/executions?job_id={old}&limit=1000{cursor}");
                let page = cell.get(&path, &cell.tenant).await.ok();
                seen.extend(page["items"].as_array().unwrap().iter().map(|item| text(&item["id"])));
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            seen
        };
        let (seen, ()) = tokio::join!(paging, adding);
        let each: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), each.len()), (600, 600));
    }
}

#[tokio::test]
async fn an_execution_that_is_in_no_place_spoils_no_list() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let ids = cell.run_many(&cell.tenant, &job, 3).await;
    cell.sql("delete from ready where execution_id = $1::text::uuid", &[&ids[1]]).await;
    let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = cell.get(&format!("/executions?limit=1{cursor}"), &cell.tenant).await.ok();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| text(&item["id"])));
        pages += 1;
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!((seen, pages), (vec![ids[2].clone(), ids[0].clone()], 4));
    cell.get(&format!("/executions/{}", ids[1]), &cell.tenant).await.refused(500, "internal");
}

#[tokio::test]
async fn a_deleted_job_runs_no_more_and_its_name_is_free() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"name": "once"})).await;
    let id = cell.run(&job).await;
    cell.post("/jobs", &cell.tenant, json!({"name": "once", "command": ["true"]}))
        .await
        .refused(409, "name_taken");
    assert_eq!(cell.call(Method::DELETE, &format!("/jobs/{job}"), &cell.tenant, None).await.status, 204);
    cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({})).await.refused(404, "job_not_found");
    assert_eq!(cell.execution(&id).await["job_name"], "once");
    cell.new_job(json!({"name": "once"})).await;
    assert_eq!(cell.dequeue(1).await.1[0]["execution_id"], json!(id), "what waited is still done");
}

#[tokio::test]
async fn a_job_is_changed_field_by_field() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"max_running": 3, "env": {"A": "1"}, "image": "i"})).await;
    let path = format!("/jobs/{job}");
    let change = json!({"max_running": null, "timeout_seconds": 9, "image": null});
    let changed = cell.call(Method::PATCH, &path, &cell.tenant, Some(change)).await.ok();
    assert_eq!(
        (&changed["max_running"], &changed["timeout_seconds"], &changed["image"]),
        (&Value::Null, &json!(9), &Value::Null)
    );
    assert_eq!(changed["env"], json!({"A": "1"}));
    let nothing = json!({"command": null});
    cell.call(Method::PATCH, &path, &cell.tenant, Some(nothing)).await.refused(422, "invalid_request");
    let unknown = json!({"colour": "red"});
    let refused =
        cell.call(Method::PATCH, &path, &cell.tenant, Some(unknown)).await.refused(422, "invalid_request");
    assert!(text(&refused["errors"][0]["detail"]).contains("colour"), "{refused}");
}

fn lines(texts: &[&str]) -> Value {
    let line = |text: &&str| json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": text});
    texts.iter().map(line).collect()
}

#[tokio::test]
async fn log_chunks_are_stored_once_in_order_and_fenced() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    let path = format!("/internal/executions/{id}/logs");
    let send = |first_seq: i64, texts: &'static [&'static str]| {
        let body = json!({"lease_id": lease, "first_seq": first_seq, "lines": lines(texts)});
        let (cell, path) = (&cell, &path);
        async move { cell.post(path, &cell.worker, body).await }
    };
    let first = send(0, &["a", "b\u{0}c", "ü"]).await;
    assert_eq!((first.status, &first.body), (202, &json!({"next_seq": 3})));
    assert_eq!(
        send(0, &["a", "b\u{0}c", "ü"]).await.ok(),
        json!({"next_seq": 3}),
        "a repeated chunk is stored once"
    );
    assert_eq!(send(5, &["x"]).await.refused(409, "log_gap")["next_seq"], 3);
    assert_eq!(send(0, &["z"]).await.refused(409, "log_gap")["next_seq"], 3);
    let same = join_all((0..8).map(|_| send(3, &["d"]))).await;
    assert!(same.iter().all(|reply| reply.status == 202), "{same:?}");
    cell.result(&id, &lease, json!({"outcome": "succeeded"})).await.ok();
    send(4, &["late"]).await.ok();
    cell.sql("update attempts set finished_at = now() - interval '61 seconds'", &[]).await;
    send(5, &["too late"]).await.refused(409, "lease_lost");

    let (mut read, mut after) = (Vec::new(), String::new());
    loop {
        let page = cell.get(&format!("/executions/{id}/logs?limit=2{after}"), &cell.tenant).await.ok();
        read.extend(page["lines"].as_array().unwrap().iter().map(|line| text(&line["text"])));
        after = format!("&after={}", text(&page["next"]));
        if page["finished"] == true {
            break;
        }
    }
    assert_eq!(read, ["a", "b\u{0}c", "ü", "d", "late"]);
}

#[tokio::test]
async fn a_log_chunk_that_others_keep_overtaking_is_to_be_sent_again() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    // As it looks to a call that finds another one's chunk in its way each time, and never sees it.
    let overtake = "create function overtake() returns trigger language plpgsql as 'begin return null; end';
        create trigger overtake before insert on log_chunks for each row execute function overtake()";
    cell.db.batch_execute(overtake).await.unwrap();
    let body = json!({"lease_id": lease, "first_seq": 0, "lines": lines(&["a"])});
    let path = format!("/internal/executions/{id}/logs");
    let refused = cell.post(&path, &cell.worker, body.clone()).await;
    assert_eq!(refused.headers["retry-after"], "1");
    refused.refused(503, "unavailable");
    cell.db.batch_execute("drop trigger overtake on log_chunks").await.unwrap();
    assert_eq!(cell.post(&path, &cell.worker, body).await.ok(), json!({"next_seq": 1}));
}

#[tokio::test]
async fn an_execution_s_log_ends_with_a_truncation_line_at_its_limit() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    let big = "x".repeat(250_000);
    let path = format!("/internal/executions/{id}/logs");
    for seq in 0..45 {
        let body = json!({"lease_id": lease, "first_seq": seq, "lines": lines(&[&big])});
        let taken = cell.post(&path, &cell.worker, body).await;
        assert_eq!((taken.status, &taken.body), (202, &json!({"next_seq": seq + 1})));
    }
    let kept = cell.number("select sum(octet_length(lines)) from log_chunks").await;
    assert!(kept < 11_000_000, "{kept}");
    let last: String = cell
        .db
        .query_one("select lines from log_chunks order by first_seq desc limit 1", &[])
        .await
        .unwrap()
        .get(0);
    assert!(last.contains("the log ends here"), "{last}");
    let over = json!({"lease_id": lease, "first_seq": 45, "lines": lines(&[&"x".repeat(262_145)])});
    cell.post(&path, &cell.worker, over).await.refused(413, "log_chunk_too_large");
}
