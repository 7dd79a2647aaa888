//! `jobplane run` and `jobplane submit`: what is asked for, and that it is asked for once.

use super::Shell;
use jobplane_tests::text;
use serde_json::json;

impl Shell {
    /// A job `j` to run.
    async fn with_job() -> Self {
        let shell = Self::new().await;
        shell.cell.new_job(json!({"name": "j"})).await;
        shell
    }

    /// How many executions there are.
    async fn asked(&self) -> i64 {
        self.cell.number("select count(*) from executions").await
    }

    /// The input of an execution as it stands in its document.
    async fn input_of(&self, id: &str) -> String {
        let document = self.run(&format!("status -o json {}", id.trim())).await.ok();
        let (_, rest) = document.split_once("\"input\":").unwrap();
        rest.split_once(",\"result\"").unwrap().0.to_owned()
    }
}

#[tokio::test]
async fn an_input_comes_from_the_line_a_file_or_standard_input_and_keeps_its_digits() {
    let shell = Shell::with_job().await;
    shell.file("in.json", "{\"n\":1.10}\n");
    let given = shell.run("run j --input {\"n\":1.10}").await.ok();
    let filed = shell.run("run j --input @in.json").await.ok();
    let piped = shell.fed("run j --input -", "{\"n\":1.10}").await.ok();
    let submitted = shell.fed("submit -i - -- true", "{\"n\":1.10}").await.ok();
    for id in [given, filed, piped, submitted] {
        assert_eq!(shell.input_of(&id).await, "{\"n\":1.10}");
    }
}

#[tokio::test]
async fn an_input_that_is_not_json_asks_for_nothing() {
    let shell = Shell::with_job().await;
    assert!(shell.run("run j --input text").await.refused(2).contains("--input '\"text\"'"));
    assert!(shell.fed("run j --input -", "{").await.refused(2).contains("standard input is not JSON"));
    shell.run("run j --input @nowhere").await.refused(1);
    assert_eq!(shell.asked().await, 0);
}

#[tokio::test]
async fn only_the_id_is_on_standard_output() {
    let shell = Shell::with_job().await;
    let ran = shell.run("run j").await;
    assert!(ran.stderr.contains("jobplane logs --follow"), "{ran:?}");
    let id = ran.ok();
    assert_eq!(shell.cell.execution(id.trim()).await["status"], "PENDING");
}

#[tokio::test]
async fn priority_and_variables_reach_the_worker() {
    let shell = Shell::with_job().await;
    shell.run("run j --priority 75 -e A=1 -e B=2").await.ok();
    let taken = shell.cell.dequeue(1).await.1;
    assert_eq!((&taken[0]["priority"], &taken[0]["job"]["env"]), (&json!(75), &json!({"A": "1", "B": "2"})));
}

#[tokio::test]
async fn what_is_scheduled_waits_for_its_time() {
    let shell = Shell::with_job().await;
    let asked = shell.run("run j --schedule 10m -o json").await.json();
    assert_eq!(asked["status"], "SCHEDULED");
    assert!(shell.cell.dequeue(1).await.1.is_empty());
    let status = shell.run(&format!("status {}", text(&asked["execution_id"]))).await.ok();
    assert!(status.lines().any(|line| line.starts_with("Scheduled  in ")), "{status}");
    assert_eq!(shell.run("run j --schedule 2020-01-01T00:00:00Z -o json").await.json()["status"], "PENDING");
    assert!(shell.run("run j --schedule yesterday").await.refused(2).contains("RFC 3339"));
}

#[tokio::test]
async fn an_idempotency_key_asks_once() {
    let shell = Shell::with_job().await;
    let first = shell.run("run j --idempotency-key k --input 1").await.ok();
    assert_eq!(shell.run("run j --idempotency-key k --input 1").await.ok(), first);
    let error = shell.run("run j --idempotency-key k --input 2").await.refused(1);
    assert!(error.contains("Idempotency-Key"), "{error}");
    assert_eq!(shell.asked().await, 1);
}

#[tokio::test]
async fn each_line_of_a_file_is_an_execution_and_the_file_again_doubles_none() {
    let shell = Shell::with_job().await;
    shell.file("runs.jsonl", "{\"input\":1}\n\n{\"priority\":25}\n{}\n");
    let asked = shell.run("run j --bulk runs.jsonl -o json").await.json();
    let ids = asked["execution_ids"].as_array().unwrap();
    assert_eq!((ids.len(), shell.asked().await), (3, 3));
    assert_eq!(shell.cell.execution(&text(&ids[1])).await["priority"], 25);
    assert_eq!(shell.run("run j --bulk runs.jsonl -o json").await.json(), asked);
    assert_eq!(shell.asked().await, 3);
    let again = shell.run("run j --bulk runs.jsonl --idempotency-key again").await.ok();
    assert_eq!((again.as_str(), shell.asked().await), ("Asked for 3 executions of job j.\n", 6));
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_is_sent() {
    let shell = Shell::with_job().await;
    shell.file("runs.jsonl", &("{}\n".repeat(1_500) + "{\"imput\":1}\n"));
    let error = shell.run("run j --bulk runs.jsonl").await.refused(2);
    assert!(error.contains("runs.jsonl: nothing was sent: line 1501: unknown field `imput`"), "{error}");
    shell.file("empty.jsonl", "\n");
    assert!(shell.run("run j --bulk empty.jsonl").await.refused(2).contains("empty.jsonl holds no lines"));
    assert_eq!(shell.asked().await, 0);
}

#[tokio::test]
async fn bare_inputs_come_from_standard_input_by_the_thousand() {
    let shell = Shell::with_job().await;
    let lines: String = (0..1_001).map(|number| format!("{number}\n")).collect();
    let asked = shell.fed("run j --bulk - --inputs -o json", &lines).await.json();
    let ids = asked["execution_ids"].as_array().unwrap();
    assert_eq!((ids.len(), shell.asked().await), (1_001, 1_001));
    assert_eq!(shell.input_of(&text(&ids[1_000])).await, "1000");
}

#[tokio::test]
async fn the_same_command_submitted_again_is_the_same_job() {
    let shell = Shell::new().await;
    for _ in 0..2 {
        shell.run("submit -e A=1 -- /bin/echo hello").await.ok();
    }
    let jobs = shell.run("job list -o json").await.json();
    assert_eq!((jobs.as_array().unwrap().len(), shell.asked().await), (1, 2));
    assert!(text(&jobs[0]["name"]).starts_with("echo-"));
    shell.run("submit -e A=2 -- /bin/echo hello").await.ok();
    assert_eq!(shell.run("job list -o json").await.json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_submitted_name_must_mean_what_it_meant() {
    let shell = Shell::new().await;
    shell.run("submit -n j -- true").await.ok();
    let error = shell.run("submit -n j -q gpu -- false").await.refused(2);
    assert!(error.contains("another command, queue") && error.contains("jobplane job update"), "{error}");
    assert!(shell.run("submit").await.refused(2).contains("jobplane submit -- echo hello"));
    assert_eq!(shell.asked().await, 1);
}
