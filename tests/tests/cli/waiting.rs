//! `--wait`: the lines and the result of what was asked for, and its outcome as the exit code.

use super::Shell;
use super::running::Running;
use jobplane_tests::Worker;
use serde_json::json;
use std::process::Stdio;

#[tokio::test]
async fn what_succeeds_shows_its_lines_and_its_result_and_exits_with_0() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    let good = json!({"outcome": "succeeded", "exit_code": 0, "result": {"n": 1}});
    let (ran, _) = tokio::join!(shell.run("run j --wait"), shell.end("hello", good));
    assert!(ran.stderr.contains("SUCCEEDED in "), "{ran:?}");
    assert_eq!(ran.ok(), "hello\n{\"n\":1}\n");
}

#[tokio::test]
async fn what_fails_says_why_and_exits_with_10() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j", "retry": {"max_attempts": 1}})).await;
    let bad = json!({"outcome": "failed", "exit_code": 3, "error": "exit code 3: why"});
    let (ran, _) = tokio::join!(shell.run("run j --wait"), shell.end("hello", bad));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(10), "hello\n"));
    assert!(ran.stderr.trim_end().ends_with(": exit code 3: why"), "{ran:?}");
}

#[tokio::test]
async fn what_is_cancelled_exits_with_11() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    let (ran, _) =
        tokio::join!(shell.run("run j --wait"), shell.end("hello", json!({"outcome": "cancelled"})));
    assert_eq!(ran.code, Some(11), "{ran:?}");
    assert!(ran.stderr.contains("CANCELLED in "), "{ran:?}");
}

#[tokio::test]
async fn waiting_as_json_prints_the_ended_execution_and_nothing_else() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    let (ran, id) = tokio::join!(
        shell.run("run j --wait -o json"),
        shell.end("hello", json!({"outcome": "succeeded", "result": [1]}))
    );
    let shown = ran.json();
    assert_eq!(
        (&shown["id"], &shown["status"], &shown["result"]),
        (&json!(id), &json!("SUCCEEDED"), &json!([1]))
    );
}

#[tokio::test]
async fn an_attempts_lines_come_before_the_news_of_its_end() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    let shown = Running::start(&shell, "run j --wait").see_failure_and_success(&shell, "RETRYING in ").await;
    let told = ["first", "RETRYING", "--- attempt 2 ---", "second", "SUCCEEDED"];
    let order = shown.iter().filter_map(|line| told.iter().find(|word| line.starts_with(**word)));
    assert_eq!(order.collect::<Vec<_>>(), told.iter().collect::<Vec<_>>(), "{shown:?}");
}

#[tokio::test]
async fn a_wait_that_is_too_long_exits_with_124_and_the_execution_goes_on() {
    let shell = Shell::new().await;
    let id = shell.asked_for().await;
    for line in [format!("status --watch --timeout 0 {id}"), "run j --wait --timeout 0".to_owned()] {
        let ran = shell.run(&line).await;
        assert_eq!(ran.code, Some(124), "{ran:?}");
        assert!(ran.stderr.contains("jobplane status --watch "), "{ran:?}");
    }
    let ran = shell.run("run j --wait --timeout 0 -o json").await;
    let seen: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &seen["status"]), (Some(124), &json!("PENDING")), "what a script goes on with");
    assert_eq!(shell.cell.execution(&id).await["status"], "PENDING");
    shell.run("run j --timeout 1m").await.refused(2);
}

#[tokio::test]
async fn ctrl_c_while_waiting_exits_with_130_and_the_execution_goes_on() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    let mut waiting = Running::start(&shell, "run j --wait");
    let (id, _) = shell.take().await;
    waiting.until("RUNNING on tester").await;
    waiting.interrupt();
    let (code, shown) = waiting.end().await;
    assert_eq!(code, Some(130), "{shown:?}");
    assert!(shown.last().unwrap().ends_with(&format!("jobplane status --watch {id}")), "{shown:?}");
    let seen = shell.cell.execution(&id).await;
    assert_eq!((&seen["status"], &seen["cancel_requested"]), (&json!("RUNNING"), &json!(false)));
}

#[tokio::test]
async fn a_submitted_command_runs_on_a_real_worker_and_its_outcome_comes_back() {
    let shell = Shell::new().await;
    let _worker = Worker::start(&shell.cell.url, &shell.cell.worker, |command| {
        command.stderr(Stdio::null());
    });
    assert_eq!(shell.run("submit --wait -- echo hello").await.ok(), "hello\n");
    let bad = shell.run("submit --wait --max-attempts 1 -- false").await;
    assert_eq!(bad.code, Some(10), "{bad:?}");
    let copy = json!(["sh", "-c", r#"cat "$JOBPLANE_INPUT" > "$JOBPLANE_OUTPUT_DIR/result.json""#]);
    shell.cell.new_job(json!({"name": "copy", "command": copy})).await;
    assert_eq!(shell.run("run copy --wait --input {\"n\":1.10}").await.ok(), "{\"n\":1.10}\n");
}
