//! What is left of executions when they have ended or failed: lists by time, dead letters, the lines of each attempt.

use futures_util::future::join_all;
use jobplane_tests::{Cell, text};
use reqwest::Method;
use serde_json::{Value, json};

fn lines(texts: &[&str]) -> Value {
    let line = |text: &&str| json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": text});
    texts.iter().map(line).collect()
}

#[tokio::test]
async fn a_list_by_time_holds_what_was_asked_for_from_one_to_before_the_other() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let mut ids = Vec::new();
    // Ids are made of the database's clock: three that lie days apart.
    for days in [3, 2, 1] {
        let id: uuid::Uuid = cell
            .db
            .query_one("select uuid7(now() - make_interval(days => $1))", &[&days])
            .await
            .unwrap()
            .get(0);
        let run = uuid::Uuid::parse_str(&cell.run(&job).await).unwrap();
        cell.sql(
            "update executions set id = $1, created_at = now() - make_interval(days => $2) where id = $3",
            &[&id, &days, &run],
        )
        .await;
        cell.sql("update ready set execution_id = $1 where execution_id = $2", &[&id, &run]).await;
        ids.push(id.to_string());
    }
    let at = |id: &String| {
        let path = format!("/executions/{id}");
        let cell = &cell;
        async move { text(&cell.get(&path, &cell.tenant).await.ok()["created_at"]) }
    };
    let middle: jiff::Timestamp = at(&ids[1]).await.parse().unwrap();
    let hour = jiff::SignedDuration::from_hours(1);
    let list = |query: String| {
        let cell = &cell;
        async move {
            let page = cell.get(&format!("/executions?{query}"), &cell.tenant).await.ok();
            page["items"].as_array().unwrap().iter().map(|item| text(&item["id"])).collect::<Vec<_>>()
        }
    };
    let (before, after) = (middle - hour, middle + hour);
    assert_eq!(list(format!("created_after={before}")).await, [ids[2].clone(), ids[1].clone()]);
    assert_eq!(list(format!("created_before={after}")).await, [ids[1].clone(), ids[0].clone()]);
    assert_eq!(list(format!("created_after={before}&created_before={after}")).await, [ids[1].clone()]);
    assert!(list(format!("created_after={after}&created_before={before}")).await.is_empty());
    assert_eq!(list(format!("created_after={before}&status=PENDING&limit=1")).await, [ids[2].clone()]);
}

#[tokio::test]
async fn concurrent_retries_of_one_dead_letter_make_one_execution() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 1}})).await;
    let ids = cell.run_many(&cell.tenant, &job, 5).await;
    let (lease, _) = cell.dequeue(5).await;
    for id in &ids {
        cell.result(id, &lease, json!({"outcome": "failed"})).await.ok();
    }
    for id in &ids {
        let path = format!("/executions/dlq/{id}/retry");
        let replies = join_all((0..8).map(|_| cell.post(&path, &cell.tenant, json!({})))).await;
        // A retry that finds another at it may ask to be repeated: then it has the same answer.
        let first = cell.post(&path, &cell.tenant, json!({})).await.ok();
        for reply in replies {
            assert!(reply.status == 503 || reply.body == first, "{reply:?}");
        }
    }
    assert_eq!(cell.number("select count(*) from executions").await, 10);
}

#[tokio::test]
async fn a_dead_letter_of_a_deleted_job_is_not_retried_and_keeps_its_place() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 1}})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    cell.result(&id, &lease, json!({"outcome": "failed"})).await.ok();
    cell.call(Method::DELETE, &format!("/jobs/{job}"), &cell.tenant, None).await.ok();
    cell.post(&format!("/executions/dlq/{id}/retry"), &cell.tenant, json!({}))
        .await
        .refused(404, "job_not_found");
    assert_eq!(cell.post("/executions/dlq/retry", &cell.tenant, json!({})).await.ok()["retried"], 0);
    let dead = cell.get("/executions/dlq", &cell.tenant).await.ok();
    assert_eq!(dead["items"][0]["execution_id"], json!(id));
    let path = format!("/jobs/{job}");
    assert!(cell.get(&path, &cell.tenant).await.ok()["deleted_at"].is_string());
    let change = Some(json!({"timeout_seconds": 1}));
    cell.call(Method::PATCH, &path, &cell.tenant, change).await.refused(404, "job_not_found");
    cell.call(Method::DELETE, &path, &cell.tenant, None).await.refused(404, "job_not_found");
    assert_eq!(cell.get("/jobs", &cell.tenant).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn each_attempt_s_lines_begin_at_zero_and_are_read_in_order() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let path = format!("/internal/executions/{id}/logs");
    for (outcome, texts) in [("failed", ["a", "b"]), ("released", ["c", "d"]), ("succeeded", ["e", "f"])] {
        let (lease, _) = cell.dequeue(1).await;
        for (seq, line) in texts.iter().enumerate() {
            let body = json!({"lease_id": lease, "first_seq": seq, "lines": lines(&[line])});
            assert_eq!(cell.post(&path, &cell.worker, body).await.ok()["next_seq"], json!(seq + 1));
        }
        let page = cell.get(&format!("/executions/{id}/logs"), &cell.tenant).await.ok();
        assert_eq!(page["finished"], false, "while it runs there may be more");
        cell.result(&id, &lease, json!({"outcome": outcome})).await.ok();
        cell.fall_due().await;
    }
    let page = cell.get(&format!("/executions/{id}/logs"), &cell.tenant).await.ok();
    let seen: Vec<_> = page["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["attempt"].as_i64().unwrap(), line["seq"].as_i64().unwrap(), text(&line["text"])))
        .collect();
    let wanted = [(1, 0, "a"), (1, 1, "b"), (2, 0, "c"), (2, 1, "d"), (3, 0, "e"), (3, 1, "f")];
    assert_eq!(seen, wanted.map(|(attempt, seq, line)| (attempt, seq, line.to_owned())));
    assert_eq!(page["finished"], true);
}
