//! `jobplane dlq` with letters on the list.

use super::Shell;
use jobplane_tests::text;
use serde_json::json;

impl Shell {
    /// Makes a job of one try and lets this many executions of it fail: their ids.
    pub(super) async fn failed(&self, job: &str, count: usize) -> Vec<String> {
        let job = self.cell.new_job(json!({"name": job, "retry": {"max_attempts": 1}})).await;
        let ids = self.cell.run_many(&self.cell.tenant, &job, count).await;
        let (lease, taken) = self.cell.dequeue(1_000).await;
        assert_eq!(taken.len(), count);
        for id in &ids {
            let result = json!({"outcome": "failed", "exit_code": 3, "error": "exit code 3: why"});
            self.cell.result(id, &lease, result).await.ok();
        }
        ids
    }

    /// The executions on the list, the one that failed last first.
    pub(super) async fn letters(&self) -> Vec<String> {
        let list = self.run("dlq list -o json").await.json();
        list.as_array().unwrap().iter().map(|letter| text(&letter["execution_id"])).collect()
    }
}

#[tokio::test]
async fn dead_letters_are_listed_with_their_reason_last_failed_first() {
    let shell = Shell::new().await;
    let (first, last) = (shell.failed("a", 1).await, shell.failed("b", 1).await);
    assert_eq!(shell.letters().await, [last[0].clone(), first[0].clone()]);
    let list = shell.run("dlq list").await.ok();
    assert!(list.lines().nth(1).unwrap().ends_with("failed on attempt 1 of 1: exit code 3: why"), "{list}");
    let one = shell.run("dlq list --limit 1").await;
    assert!(one.stderr.contains("--limit"), "{one:?}");
    assert_eq!(one.ok().lines().count(), 2);
}

#[tokio::test]
async fn a_letter_that_is_retried_runs_anew_and_only_once() {
    let shell = Shell::new().await;
    let ids = shell.failed("a", 2).await;
    let retried = shell.run(&format!("dlq retry {} {} -o json", ids[0], ids[1])).await.json();
    assert_eq!(retried[0]["retried_from"], json!(ids[0]));
    let new = text(&retried[0]["execution_id"]);
    assert_eq!(shell.cell.execution(&new).await["status"], "PENDING");
    let again = shell.run(&format!("dlq retry {}", ids[0])).await.ok();
    assert_eq!(again, format!("{} runs again as {new}.\n", ids[0]));
    assert!(shell.letters().await.is_empty());
    assert!(shell.run(&format!("status {new}")).await.ok().contains(&format!("Retry of   {}", ids[0])));
}

#[tokio::test]
async fn a_retry_that_fails_tells_how_many_went_before() {
    let shell = Shell::new().await;
    let ids = shell.failed("a", 1).await;
    let other = uuid::Uuid::now_v7();
    let error = shell.run(&format!("dlq retry {} {other}", ids[0])).await.refused(4);
    assert!(error.contains(&format!("{other} is not retried; 1 before it")), "{error}");
}

#[tokio::test]
async fn retry_all_keeps_to_its_job_its_limit_and_its_time() {
    let shell = Shell::new().await;
    let (ours, others) = (shell.failed("a", 3).await, shell.failed("b", 1).await);
    assert_eq!(shell.run("dlq retry-all --before 1h").await.ok(), "0 dead letters retried.\n");
    assert_eq!(shell.run("dlq retry-all --job a --limit 1").await.ok(), "1 dead letter retried.\n");
    assert_eq!(
        shell.letters().await,
        [&others[..], &[ours[2].clone(), ours[1].clone()]].concat(),
        "oldest first"
    );
    assert_eq!(shell.run("dlq retry-all --job a -o json").await.json(), json!({"retried": 2}));
    assert_eq!(shell.letters().await, others);
    assert_eq!(shell.run("dlq retry-all").await.ok(), "1 dead letter retried.\n");
    shell.run("dlq retry-all --limit 0").await.refused(2);
    shell.run("dlq retry-all --job nosuch").await.refused(4);
}

#[tokio::test]
async fn nothing_is_purged_that_nobody_confirmed() {
    let shell = Shell::new().await;
    shell.failed("a", 1).await;
    assert!(shell.run("dlq purge").await.refused(2).contains("--yes"));
    assert_eq!(shell.letters().await.len(), 1);
}

#[tokio::test]
async fn what_is_purged_is_off_the_list_and_stays_in_the_history() {
    let shell = Shell::new().await;
    let (ours, others) = (shell.failed("a", 3).await, shell.failed("b", 2).await);
    let purged = shell.run(&format!("dlq purge --yes {}", ours[0])).await.ok();
    assert_eq!(purged, "1 dead letter taken off the list.\n");
    assert_eq!(shell.run("dlq purge --yes --before 1h -o json").await.json(), json!({"purged": 0}));
    assert_eq!(shell.run("dlq purge --yes --job a -o json").await.json(), json!({"purged": 2}));
    assert_eq!(shell.letters().await.len(), others.len());
    assert_eq!(shell.run("dlq purge --yes").await.ok(), "2 dead letters taken off the list.\n");
    assert!(shell.letters().await.is_empty());
    assert_eq!(shell.run("list --status failed -o json").await.json().as_array().unwrap().len(), 5);
    shell.run(&format!("dlq retry {}", ours[0])).await.refused(4);
}
