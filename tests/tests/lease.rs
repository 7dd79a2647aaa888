//! The lease protocol: what a worker may do, how often it may say it, and when it has lost the right.

use jobplane_tests::{Cell, seconds, text};
use serde_json::{Value, json};

fn ids(executions: &[Value]) -> Vec<String> {
    executions.iter().map(|execution| text(&execution["execution_id"])).collect()
}

#[tokio::test]
async fn an_execution_runs_from_ask_to_result() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"command": ["echo", "hi"], "env": {"A": "1", "B": "1"}})).await;
    let run = json!({"input": {"n": 1.10}, "env": {"B": "2"}});
    let asked = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, run).await;
    assert_eq!(asked.status, 201);
    let asked = asked.ok();
    assert_eq!(asked["status"], "PENDING");
    let id = text(&asked["execution_id"]);

    let (lease, taken) = cell.dequeue(10).await;
    assert_eq!(ids(&taken), [id.as_str()]);
    assert_eq!(
        (&taken[0]["attempt"], &taken[0]["tries"], &taken[0]["max_attempts"]),
        (&json!(1), &json!(0), &json!(5))
    );
    assert_eq!(taken[0]["job"]["command"], json!(["echo", "hi"]));
    assert_eq!(taken[0]["job"]["env"], json!({"A": "1", "B": "2"}));
    assert_eq!(taken[0]["input"].to_string(), r#"{"n":1.1}"#);
    assert_eq!(cell.execution(&id).await["status"], "RUNNING");

    let beat = cell.heartbeat(&id, &lease).await.ok();
    assert_eq!(beat["cancel_requested"], false);
    let done = cell
        .result(&id, &lease, json!({"outcome": "succeeded", "exit_code": 0, "result": {"ok": true}}))
        .await
        .ok();
    assert_eq!(done, json!({"status": "SUCCEEDED", "attempt": 1}));
    let seen = cell.execution(&id).await;
    assert_eq!(
        (&seen["status"], &seen["attempt"], &seen["tries"]),
        (&json!("SUCCEEDED"), &json!(1), &json!(1))
    );
    assert_eq!((&seen["result"], &seen["exit_code"]), (&json!({"ok": true}), &json!(0)));
    assert_eq!(seen["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(seen["attempts"][0]["outcome"], "succeeded");
    for hot in ["ready", "delayed", "leases"] {
        assert_eq!(cell.number(&format!("select count(*) from {hot}")).await, 0, "{hot}");
    }
}

#[tokio::test]
async fn a_lost_dequeue_response_replayed_gives_the_same_leases_and_spends_no_attempt() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 5).await;
    let (lease, taken) = cell.dequeue(3).await;
    let again = cell.dequeue_as(&lease, 3).await;
    assert_eq!(ids(&taken), ids(&again));
    assert_eq!(taken.len(), 3);
    assert!(again.iter().all(|execution| execution["attempt"] == 1 && execution["tries"] == 0));
    // What has ended since is not handed out again, and nothing new is.
    cell.result(&ids(&taken)[0], &lease, json!({"outcome": "succeeded"})).await.ok();
    assert_eq!(ids(&cell.dequeue_as(&lease, 3).await), ids(&taken)[1..]);
    assert_eq!(cell.number("select count(*) from ready").await, 2);
}

#[tokio::test]
async fn concurrent_dequeues_with_one_lease_id_take_once() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 100).await;
    for _ in 0..10 {
        let lease = uuid::Uuid::new_v4().to_string();
        let calls = (0..8).map(|_| cell.dequeue_as(&lease, 5));
        let answers = futures(calls).await;
        assert!(answers.iter().all(|answer| ids(answer) == ids(&answers[0])), "all the same");
        assert_eq!(answers[0].len(), 5);
    }
    assert_eq!(cell.number("select count(*) from leases").await, 50);
}

/// Runs all of them at once.
async fn futures<F: Future>(calls: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    futures_util::future::join_all(calls).await
}

#[tokio::test]
async fn a_lease_id_of_another_token_is_refused() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    let other = cell.new_worker_token(json!({"name": "other"})).await;
    let body = json!({"lease_id": lease, "worker_id": "w", "limit": 1});
    cell.post("/internal/executions/dequeue", &other, body).await.refused(409, "lease_id_taken");
}

#[tokio::test]
async fn two_hundred_concurrent_dequeues_never_hand_one_execution_to_two_leases() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 1000).await;
    let answers = futures((0..200).map(|_| cell.dequeue(5))).await;
    let mut all: Vec<_> = answers.iter().flat_map(|(_, taken)| ids(taken)).collect();
    let handed_out = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), handed_out, "one execution, one lease");
    assert_eq!(cell.number("select count(*) from leases").await, handed_out as i64);
    assert_eq!(cell.number("select count(*) from ready").await, 1000 - handed_out as i64);
}

#[tokio::test]
async fn a_late_word_is_taken_while_nobody_recorded_the_end_and_fenced_once_another_took_over() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"retry": {"backoff_seconds": 0}})).await;
    let (late, fenced) = (cell.run(&job).await, cell.run(&job).await);
    let (lease, _) = cell.dequeue(2).await;
    // Expired, but no tick has seen it: a late heartbeat renews, a late result counts.
    cell.sql("update leases set expires_at = now() - interval '10 seconds'", &[]).await;
    cell.heartbeat(&late, &lease).await.ok();
    cell.sql("update leases set expires_at = now() - interval '10 seconds'", &[]).await;
    cell.result(&late, &lease, json!({"outcome": "succeeded"})).await.ok();

    cell.expire_leases().await;
    cell.fall_due().await;
    let (second, taken) = cell.dequeue(1).await;
    assert_eq!((ids(&taken), &taken[0]["attempt"]), (vec![fenced.clone()], &json!(2)));
    cell.heartbeat(&fenced, &lease).await.refused(409, "lease_lost");
    cell.result(&fenced, &lease, json!({"outcome": "succeeded"})).await.refused(409, "lease_lost");
    let line = json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": "late"});
    let body = json!({"lease_id": lease, "first_seq": 0, "lines": [line]});
    cell.post(&format!("/internal/executions/{fenced}/logs"), &cell.worker, body)
        .await
        .refused(409, "lease_lost");
    cell.result(&fenced, &second, json!({"outcome": "succeeded"})).await.ok();
    let seen = cell.execution(&fenced).await;
    assert_eq!((&seen["status"], &seen["tries"]), (&json!("SUCCEEDED"), &json!(2)));
    assert_eq!(seen["attempts"][0]["outcome"], "expired");
}

#[tokio::test]
async fn a_repeated_result_has_one_effect_and_the_same_answer() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    let body = json!({"outcome": "failed", "error": "no", "exit_code": 3});
    let first = cell.result(&id, &lease, body.clone()).await.ok();
    assert_eq!(first["status"], "RETRYING");
    assert!(first["next_attempt_at"].is_string());
    assert_eq!(cell.result(&id, &lease, body.clone()).await.ok(), first);
    // Whatever has happened since.
    cell.fall_due().await;
    let (second, _) = cell.dequeue(1).await;
    cell.result(&id, &second, json!({"outcome": "succeeded"})).await.ok();
    assert_eq!(cell.result(&id, &lease, body).await.ok(), first);
    assert_eq!(cell.execution(&id).await["attempts"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn an_id_that_never_existed_is_not_found() {
    let cell = Cell::new().await;
    let (id, lease) = (uuid::Uuid::now_v7().to_string(), uuid::Uuid::new_v4().to_string());
    cell.heartbeat(&id, &lease).await.refused(404, "execution_not_found");
    cell.result(&id, &lease, json!({"outcome": "succeeded"})).await.refused(404, "execution_not_found");
}

#[tokio::test]
async fn a_released_attempt_is_not_spent_and_the_next_worker_has_it_at_once() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 1}})).await;
    cell.run_many(&cell.tenant, &job, 3).await;
    let (lease, taken) = cell.dequeue(1).await;
    let id = ids(&taken)[0].clone();
    assert_eq!(cell.result(&id, &lease, json!({"outcome": "released"})).await.ok()["status"], "PENDING");
    let (_, next) = cell.dequeue(1).await;
    assert_eq!(ids(&next), [id.as_str()], "in front of what waited behind it");
    assert_eq!((&next[0]["attempt"], &next[0]["tries"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn a_job_that_kills_its_worker_is_dead_lettered_after_max_attempts() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 3, "backoff_seconds": 0}})).await;
    let id = cell.run(&job).await;
    for attempt in 1..=3 {
        let (_, taken) = cell.dequeue(1).await;
        assert_eq!((ids(&taken), &taken[0]["attempt"]), (vec![id.clone()], &json!(attempt)));
        cell.expire_leases().await;
        cell.fall_due().await;
    }
    assert_eq!(cell.dequeue(1).await.1.len(), 0);
    assert_eq!(cell.execution(&id).await["status"], "FAILED");
    let dead = cell.get("/executions/dlq", &cell.tenant).await.ok();
    let reason = text(&dead["items"][0]["reason"]);
    assert!(reason.starts_with("lease expired on attempt 3 of 3"), "{reason}");
}

#[tokio::test]
async fn a_worker_that_only_heartbeats_cannot_hold_an_execution_for_ever() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"timeout_seconds": 5, "retry": {"backoff_seconds": 0}})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    cell.sql("update leases set deadline_at = now() - interval '1 second', expires_at = now() - interval '1 second'", &[]).await;
    cell.heartbeat(&id, &lease).await.ok();
    cell.tick().await;
    cell.heartbeat(&id, &lease).await.refused(409, "lease_lost");
    assert_eq!(cell.execution(&id).await["attempts"][0]["outcome"], "deadline_exceeded");
}

/// Nobody has been heard for so many seconds, and every lease ran out meanwhile.
async fn silence(cell: &Cell, seconds: f64) {
    let ago = "now() - make_interval(secs => $1)";
    cell.sql("update leases set expires_at = now() - interval '1 second'", &[]).await;
    cell.sql(&format!("update workers set last_seen_at = {ago}"), &[&seconds]).await;
    cell.sql(&format!("update ticks set heard_at = {ago}"), &[&seconds]).await;
}

#[tokio::test]
async fn while_no_worker_is_heard_nothing_expires_and_then_not_before_a_whole_lease_has_passed() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    silence(&cell, 61.0).await;
    cell.tick().await;
    assert_eq!(cell.execution(&id).await["status"], "RUNNING", "the sweep alone ends nothing");
    // The first word of any worker's after the outage.
    cell.sql("update ticks set ticked_at = now() - interval '2 seconds'", &[]).await;
    assert!(cell.dequeue(1).await.1.is_empty());
    cell.tick().await;
    cell.heartbeat(&id, &lease).await.ok();
    cell.sql("update leases set expires_at = now() - interval '1 second'", &[]).await;
    cell.sql("update ticks set expire_not_until = now()", &[]).await;
    cell.tick().await;
    cell.heartbeat(&id, &lease).await.refused(409, "lease_lost");
}

#[tokio::test]
async fn a_worker_is_noted_often_enough_to_tell_an_outage_from_a_dead_worker() {
    for (lease_seconds, noted) in [(60, 0), (9, 1)] {
        let cell = Cell::with_leases_of(lease_seconds).await;
        let job = cell.new_job(json!({})).await;
        let id = cell.run(&job).await;
        let (lease, _) = cell.dequeue(1).await;
        let known = "select count(*) from workers where last_seen_at > now() - interval '9 seconds'";
        for heartbeat in [true, false] {
            cell.sql("update workers set last_seen_at = now() - interval '10 seconds'", &[]).await;
            if heartbeat {
                cell.heartbeat(&id, &lease).await.ok();
            } else {
                cell.dequeue(1).await;
            }
            assert_eq!(cell.number(known).await, noted, "{lease_seconds} s, by a heartbeat: {heartbeat}");
        }
    }
}

#[tokio::test]
async fn workers_silent_for_a_quarter_of_an_hour_are_taken_to_be_gone() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    cell.dequeue(1).await;
    silence(&cell, 901.0).await;
    cell.tick().await;
    assert_eq!(cell.execution(&id).await["status"], "RETRYING");
}

#[tokio::test]
async fn what_ran_out_before_the_workers_fell_silent_ends_although_they_come_in_bursts() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let ids = cell.run_many(&cell.tenant, &job, 2).await;
    cell.dequeue(1).await;
    silence(&cell, 120.0).await;
    cell.sql("update leases set expires_at = now() - interval '3 minutes'", &[]).await;
    // The next burst comes, and takes something that is spared.
    let (lease, _) = cell.dequeue(1).await;
    cell.sql(
        "update leases set expires_at = now() - interval '1 second' where lease_id = $1::text::uuid",
        &[&lease],
    )
    .await;
    cell.tick().await;
    assert_eq!(cell.execution(&ids[0]).await["status"], "RETRYING");
    assert_eq!(cell.execution(&ids[1]).await["status"], "RUNNING");
}

#[tokio::test]
async fn a_lease_that_cannot_be_ended_keeps_nothing_else_from_happening() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    cell.dequeue(1).await;
    let recorded = "insert into attempts (execution_id, attempt, outcome, status, tries, lease_id, worker_id, started_at,
          finished_at)
        select execution_id, attempt, 'failed', 'RETRYING', 1, lease_id, worker_id, now(), now() from leases";
    cell.sql(recorded, &[]).await;
    cell.sql("update leases set expires_at = now() - interval '1 second'", &[]).await;
    let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"scheduled_at": at})).await.ok();
    cell.sql("update delayed set due_at = now() - interval '1 second'", &[]).await;
    // Nobody looks behind the marks, which would find it again.
    let tick = async || {
        let due = "update ticks set ticked_at = now() - interval '2 seconds', stragglers_at = now() + interval '50 minutes'";
        cell.sql(due, &[]).await;
        jobplane_functions::sweep(&cell.app).await.unwrap();
    };
    for _ in 0..3 {
        tick().await;
    }
    assert_eq!(cell.number("select count(*) from ready").await, 1, "what fell due is in line");
    assert_eq!(cell.execution(&id).await["status"], "RUNNING", "and the lease is not half ended");
    cell.sql("delete from attempts", &[]).await;
    tick().await;
    assert_eq!(cell.execution(&id).await["status"], "RETRYING", "it was not passed over for good");
}

#[tokio::test]
async fn a_clock_set_back_stops_nothing() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let ids = cell.run_many(&cell.tenant, &job, 2).await;
    cell.dequeue(1).await;
    let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"scheduled_at": at})).await.ok();
    cell.sql("update leases set expires_at = now() - interval '1 second'", &[]).await;
    cell.sql("update delayed set due_at = now() - interval '1 second'", &[]).await;
    let later = "now() + interval '1 hour'";
    cell.sql(&format!("update queues set due_from = {later}, due_until = {later}"), &[]).await;
    let ticks = format!(
        "update ticks set ticked_at = {later}, stragglers_at = {later}, expired_from = {later},
        expired_until = {later}"
    );
    cell.sql(&ticks, &[]).await;
    jobplane_functions::sweep(&cell.app).await.unwrap();
    assert_eq!(cell.execution(&ids[0]).await["status"], "RETRYING");
    assert_eq!(cell.number("select count(*) from ready").await, 2);
    assert_eq!(cell.number("select count(*) from queues where due_from > now()").await, 0);
}

#[tokio::test]
async fn batches_answer_item_by_item() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    cell.run_many(&cell.tenant, &job, 2).await;
    let (lease, taken) = cell.dequeue(2).await;
    let [one, two] = [ids(&taken)[0].clone(), ids(&taken)[1].clone()];
    let strange = uuid::Uuid::now_v7().to_string();
    let other = uuid::Uuid::new_v4().to_string();
    let beats = json!({"leases": [
        {"execution_id": one, "lease_id": lease, "progress": {"done": 1}},
        {"execution_id": two, "lease_id": other},
        {"execution_id": "nonsense", "lease_id": lease},
        {"execution_id": strange, "lease_id": lease},
    ]});
    let beats = cell.post("/internal/executions/heartbeats", &cell.worker, beats).await.ok();
    let states: Vec<_> = beats["results"].as_array().unwrap().iter().map(|r| text(&r["state"])).collect();
    assert_eq!(states, ["held", "lost", "lost", "lost"]);
    assert_eq!(cell.execution(&one).await["progress"], json!({"done": 1}));
    let results = json!({"results": [
        {"execution_id": one, "lease_id": lease, "outcome": "succeeded"},
        {"execution_id": two, "lease_id": other, "outcome": "succeeded"},
        {"execution_id": two, "lease_id": lease, "outcome": "exploded"},
        {"execution_id": strange, "lease_id": lease, "outcome": "succeeded"},
        {"execution_id": two, "lease_id": lease, "outcome": "succeeded", "error": "a\u{0}b"},
    ]});
    let answer = cell.post("/internal/executions/results", &cell.worker, results).await.ok();
    let answer = answer["results"].as_array().unwrap();
    assert_eq!(answer[0]["status"], "SUCCEEDED");
    let codes: Vec<_> = answer[1..].iter().map(|r| text(&r["error_code"])).collect();
    assert_eq!(codes, ["lease_lost", "invalid_request", "execution_not_found", "invalid_request"]);
    assert_eq!(answer[2]["execution_id"], json!(two));
    assert_eq!(cell.execution(&two).await["status"], "RUNNING");
}

#[tokio::test]
async fn a_held_lease_is_renewed_whatever_else_is_wrong_with_its_heartbeat() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    let beat = async |item: &Value| {
        cell.sql("update leases set expires_at = now() - interval '1 hour'", &[]).await;
        let beats = json!({"leases": [item]});
        let answer = cell.post("/internal/executions/heartbeats", &cell.worker, beats).await.ok();
        let renewed = cell.number("select count(*) from leases where expires_at > now()").await == 1;
        (answer["results"][0].clone(), renewed)
    };
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    for mut item in [json!({"extra": 1}), json!({"progress": deep}), json!({"progress": 1, "extra": "\u{0}"})]
    {
        item["execution_id"] = json!(id);
        item["lease_id"] = json!(lease);
        let expected = json!({"execution_id": id, "state": "held", "error_code": "invalid_request"});
        assert_eq!(beat(&item).await, (expected, true));
    }
    assert_eq!(cell.execution(&id).await["progress"], Value::Null, "what is refused is not kept");
    let none = [
        json!({"execution_id": id}),
        json!({"execution_id": id, "lease_id": 7, "extra": 1}),
        json!([id, lease]),
    ];
    for item in &none {
        let (result, renewed) = beat(item).await;
        assert_eq!((&result["state"], renewed), (&json!("lost"), false), "it names no lease");
    }
}

#[tokio::test]
async fn a_dequeue_that_found_nothing_may_take_something_when_it_is_repeated() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let lease = uuid::Uuid::new_v4().to_string();
    assert_eq!(cell.dequeue_as(&lease, 1).await.len(), 0);
    let first = cell.run(&job).await;
    assert_eq!(ids(&cell.dequeue_as(&lease, 1).await), [first.as_str()]);
    cell.run(&job).await;
    assert_eq!(ids(&cell.dequeue_as(&lease, 1).await), [first.as_str()], "and from then on the same");
}

#[tokio::test]
async fn a_dequeue_stops_at_its_byte_budget_and_hands_out_at_least_one() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let input = "x".repeat(250_000);
    for _ in 0..3 {
        let runs = vec![json!({"input": input}); 8];
        cell.post(&format!("/jobs/{job}/runs"), &cell.tenant, json!({"runs": runs})).await.ok();
    }
    let (_, taken) = cell.dequeue(1000).await;
    assert_eq!(taken.len(), 10, "ten of 250,002 bytes are the first to reach 2,500,000");
    assert_eq!(cell.dequeue(1000).await.1.len(), 10);
    assert_eq!(cell.dequeue(1000).await.1.len(), 4);
}

#[tokio::test]
async fn retries_back_off_exponentially_within_their_jitter() {
    let cell = Cell::new().await;
    let job = cell
        .new_job(json!({"retry": {"backoff_seconds": 10, "backoff_factor": 3.0, "backoff_cap_seconds": 50}}))
        .await;
    let id = cell.run(&job).await;
    for expected in [10.0, 30.0, 50.0, 50.0] {
        let (lease, _) = cell.dequeue(1).await;
        let decided = cell.result(&id, &lease, json!({"outcome": "failed"})).await.ok();
        let seen = cell.execution(&id).await;
        let wait = seconds(
            &seen["attempts"].as_array().unwrap().last().unwrap()["finished_at"],
            &decided["next_attempt_at"],
        );
        assert!((expected * 0.8..=expected * 1.2).contains(&wait), "{wait} for {expected}");
        cell.fall_due().await;
    }
}

#[tokio::test]
async fn a_worker_may_name_its_own_wait_and_refuse_a_retry() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let (a, b) = (cell.run(&job).await, cell.run(&job).await);
    let (lease, _) = cell.dequeue(2).await;
    let decided = cell.result(&a, &lease, json!({"outcome": "failed", "retry_after_seconds": 7})).await.ok();
    let wait = seconds(&cell.execution(&a).await["attempts"][0]["finished_at"], &decided["next_attempt_at"]);
    assert_eq!(wait.round(), 7.0);
    let decided = cell.result(&b, &lease, json!({"outcome": "timed_out", "retryable": false})).await.ok();
    assert_eq!(decided["status"], "FAILED");
}
