//! `jobplane list`, `status`, `logs`, `cancel` and `whoami`: finding executions and stopping them.

use super::{Shell, WRITTEN_AT};
use jobplane_tests::text;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Shell {
    /// The ids that a list shows.
    async fn listed(&self, filters: &str) -> Vec<String> {
        let list = self.run(&format!("list -o json{filters}")).await.json();
        list.as_array().unwrap().iter().map(|one| text(&one["id"])).collect()
    }
}

#[tokio::test]
async fn a_list_is_filtered_by_state_job_queue_and_time() {
    let shell = Shell::new().await;
    let plain = shell.cell.new_job(json!({"name": "plain"})).await;
    let other = shell.cell.new_job(json!({"name": "other", "queue": "gpu"})).await;
    let (first, second) = (shell.cell.run(&plain).await, shell.cell.run(&other).await);
    let (lease, _) = shell.cell.dequeue(1).await;
    shell.cell.result(&first, &lease, json!({"outcome": "succeeded"})).await.ok();
    let between = text(&shell.cell.execution(&second).await["created_at"]);
    assert_eq!(shell.listed("").await, [second.clone(), first.clone()], "newest first");
    for (filters, found) in [
        (" --status succeeded".to_owned(), vec![&first]),
        (" --status PENDING".to_owned(), vec![&second]),
        (" --status failed".to_owned(), vec![]),
        (" --job plain".to_owned(), vec![&first]),
        (format!(" --job {other}"), vec![&second]),
        (" --queue gpu".to_owned(), vec![&second]),
        (" --queue gpu --job plain".to_owned(), vec![]),
        (format!(" --until {between}"), vec![&first]),
        (" --since 1h".to_owned(), vec![&second, &first]),
        (" --until 1h".to_owned(), vec![]),
    ] {
        assert_eq!(shell.listed(&filters).await.iter().collect::<Vec<_>>(), found, "{filters}");
    }
    shell.run("list --job nosuch").await.refused(4);
    assert!(shell.run("list --status done").await.refused(2).contains("succeeded, failed, cancelled"));
}

#[tokio::test]
async fn pages_are_followed_up_to_the_limit_and_what_is_left_out_is_said() {
    let shell = Shell::new().await;
    let job = shell.cell.new_job(json!({"name": "j"})).await;
    let mut ids: BTreeSet<_> =
        shell.cell.run_many(&shell.cell.tenant, &job, 1_000).await.into_iter().collect();
    ids.extend(shell.cell.run_many(&shell.cell.tenant, &job, 3).await);
    assert_eq!(shell.listed(" --limit 5000").await.into_iter().collect::<BTreeSet<_>>(), ids);
    assert_eq!(shell.listed(" --limit 1001").await.len(), 1_001);
    let whole = shell.run("list --limit 1003").await;
    assert!(whole.stderr.is_empty(), "{}", whole.stderr);
    let some = shell.run("list").await;
    assert_eq!(some.stderr, "There are more than the 100 shown; see --limit.\n");
    assert_eq!(some.ok().lines().count(), 101);
}

#[tokio::test]
async fn a_status_shows_input_result_and_attempts() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    let id = shell.run("run j --input {\"n\":1.10}").await.ok();
    let (lease, _) = shell.cell.dequeue(1).await;
    shell
        .cell
        .result(id.trim(), &lease, json!({"outcome": "succeeded", "exit_code": 0, "result": [2]}))
        .await
        .ok();
    let shown = shell.run(&format!("status {}", id.trim())).await.ok();
    for part in ["Status     SUCCEEDED\n", "\n\nInput\n{\"n\":1.10}\n\nResult\n[2]\n\nATTEMPT  OUTCOME "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let attempt: Vec<_> = shown.lines().last().unwrap().split_whitespace().take(3).collect();
    assert_eq!(attempt, ["1", "succeeded", "tester"]);
}

#[tokio::test]
async fn what_is_no_id_is_said_in_words() {
    let shell = Shell::new().await;
    assert!(shell.run("status resize").await.refused(2).contains("\"resize\" is not an id"));
    let unknown = uuid::Uuid::now_v7();
    for command in ["status", "logs", "logs -f", "status -w", "cancel", "dlq retry"] {
        shell.run(&format!("{command} {unknown}")).await.refused(4);
    }
}

#[tokio::test]
async fn lines_come_through_a_pipe_as_they_were_written() {
    let shell = Shell::new().await;
    let job = shell.cell.new_job(json!({"name": "j"})).await;
    let id = shell.cell.run(&job).await;
    let (lease, _) = shell.cell.dequeue(1).await;
    shell.log(&id, &lease, &[("stdout", "\u{1b}[31mred"), ("stderr", "")]).await;
    let at = WRITTEN_AT;
    assert_eq!(shell.run(&format!("logs {id}")).await.ok(), "\u{1b}[31mred\n\n");
    assert_eq!(shell.run(&format!("logs -t {id}")).await.ok(), format!("{at} \u{1b}[31mred\n{at} \n"));
    let read = shell.run(&format!("logs -o json {id}")).await.json();
    assert_eq!((&read[0]["text"], &read[1]["stream"]), (&json!("\u{1b}[31mred"), &json!("stderr")));
}

#[tokio::test]
async fn a_waiting_execution_is_cancelled_at_once_and_a_running_one_is_told() {
    let shell = Shell::new().await;
    let job = shell.cell.new_job(json!({"name": "j"})).await;
    let running = shell.cell.run(&job).await;
    let (lease, _) = shell.cell.dequeue(1).await;
    let waiting = shell.cell.run(&job).await;
    let told = shell.run(&format!("cancel {waiting} {running}")).await.ok();
    assert_eq!(told.lines().next(), Some(format!("{waiting} is cancelled.").as_str()));
    assert!(told.contains(&format!("{running} runs; its worker is told at the next heartbeat")), "{told}");
    assert_eq!(shell.cell.heartbeat(&running, &lease).await.ok()["cancel_requested"], true);
    let status = shell.run(&format!("status {running}")).await.ok();
    assert!(status.contains("RUNNING, asked to cancel"), "{status}");
}

#[tokio::test]
async fn one_that_cannot_be_cancelled_does_not_keep_the_others_from_it() {
    let shell = Shell::new().await;
    let job = shell.cell.new_job(json!({"name": "j"})).await;
    let (ended, waiting) = (shell.cell.run(&job).await, shell.cell.run(&job).await);
    shell.run(&format!("cancel {ended}")).await.ok();
    assert!(shell.run(&format!("cancel {ended}")).await.refused(1).contains("has ended"));
    let ran = shell.run(&format!("cancel {ended} {waiting} -o json")).await;
    assert!(ran.code == Some(1) && ran.stderr.contains(&ended), "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told[0], json!({"execution_id": ended, "error_code": "already_finished"}));
    assert_eq!(told[1], json!({"execution_id": waiting, "status": "CANCELLED"}));
}

#[tokio::test]
async fn whoami_tells_the_tenant_and_where_the_key_came_from() {
    let shell = Shell::new().await;
    let job = shell.cell.new_job(json!({"name": "j"})).await;
    shell.cell.run(&job).await;
    let me = shell.run("whoami").await.ok();
    for line in [
        "Tenant           first",
        "Waiting          1",
        "Key              from the environment (JOBPLANE_TOKEN)",
    ] {
        assert!(me.lines().any(|told| told == line), "{line}: {me}");
    }
}
