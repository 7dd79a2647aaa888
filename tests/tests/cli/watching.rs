//! `status --watch` and `logs --follow`: what happens to an execution, until it ends or somebody presses Ctrl-C.

use super::Shell;
use super::running::Running;
use jobplane_tests::text;
use serde_json::{Value, json};

#[tokio::test]
async fn ctrl_c_while_following_exits_with_130() {
    let shell = Shell::new().await;
    let id = shell.asked_for().await;
    let (_, lease) = shell.take().await;
    shell.log(&id, &lease, &[("stdout", "hello")]).await;
    let mut following = Running::start(&shell, &format!("logs -f {id}"));
    following.until("hello").await;
    following.interrupt();
    assert_eq!(following.end().await.0, Some(130));
}

#[tokio::test]
async fn watching_tells_each_state_and_ends_by_itself() {
    let shell = Shell::new().await;
    let line = format!("status --watch {}", shell.asked_for().await);
    let mut watching = Running::start(&shell, &line);
    watching.until("PENDING").await;
    let shown = watching.see_failure_and_success(&shell, "RETRYING in ").await;
    assert!(
        shown.iter().any(|line| line.starts_with("RETRYING in ") && line.ends_with(": why")),
        "{shown:?}"
    );
    assert!(shown.iter().any(|line| line == "Status     SUCCEEDED"), "{shown:?}");
}

#[tokio::test]
async fn watching_what_has_ended_exits_at_once_with_its_outcome() {
    let shell = Shell::new().await;
    let id = shell.asked_for().await;
    shell.run(&format!("cancel {id}")).await.ok();
    assert_eq!(shell.run(&format!("status --watch {id}")).await.code, Some(11));
    assert_eq!(shell.run(&format!("status {id}")).await.code, Some(0));
}

#[tokio::test]
async fn watching_as_json_is_a_document_a_line() {
    let shell = Shell::new().await;
    let line = format!("status --watch -o json {}", shell.asked_for().await);
    let mut watching = Running::start(&shell, &line);
    watching.until("PENDING").await;
    let shown = watching.see_failure_and_success(&shell, "\"RETRYING\"").await;
    let states: Vec<Value> = shown.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&states[0]["status"], &states.last().unwrap()["status"]),
        (&json!("PENDING"), &json!("SUCCEEDED"))
    );
}

#[tokio::test]
async fn following_ends_with_the_execution_and_shows_every_attempt() {
    let shell = Shell::new().await;
    let line = format!("logs --follow {}", shell.asked_for().await);
    let shown = Running::start(&shell, &line).see_failure_and_success(&shell, "first").await;
    assert_eq!(shown, ["first", "--- attempt 2 ---", "second"]);
}

#[tokio::test]
async fn following_as_json_is_a_document_a_line() {
    let shell = Shell::new().await;
    let line = format!("logs -f -o json {}", shell.asked_for().await);
    let shown = Running::start(&shell, &line).see_failure_and_success(&shell, "first").await;
    let lines = shown.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> = lines.map(|line| (line["attempt"].as_i64().unwrap(), text(&line["text"]))).collect();
    assert_eq!(told, [(1, "first".to_owned()), (2, "second".to_owned())]);
}
