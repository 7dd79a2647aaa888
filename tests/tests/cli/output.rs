//! What is true of every command's output: JSON is JSON and alone, and a pipe gets no control sequences.

use super::{Shell, ran};
use jobplane_tests::text;
use serde_json::{Value, json};

impl Shell {
    /// One execution that failed for good, one that runs and one that waits, all of job `j`: the first's id.
    async fn busy(&self) -> String {
        let job = self.cell.new_job(json!({"name": "j", "retry": {"max_attempts": 1}})).await;
        let id = self.cell.run(&job).await;
        let (lease, _) = self.cell.dequeue(1).await;
        self.log(&id, &lease, &[("stderr", "hello")]).await;
        self.cell.result(&id, &lease, json!({"outcome": "failed", "error": "why"})).await.ok();
        self.cell.run(&job).await;
        self.cell.dequeue(1).await;
        self.cell.run(&job).await;
        id
    }
}

/// Every command that ends by itself, in an order in which each works. `ID` stands for an execution that failed.
const TENANT: [&str; 18] = [
    "whoami",
    "job create k -- true",
    "job list",
    "job show k",
    "job update k --priority 25",
    "run k",
    "run k --schedule 1h --input [1]",
    "run k --bulk runs.jsonl",
    "submit -- echo hello",
    "job delete k",
    "list",
    "status ID",
    "logs -t ID",
    "logs -f ID",
    "dlq list",
    "dlq retry ID",
    "dlq retry-all",
    "dlq purge --yes",
];
const ADMIN: [&str; 13] = [
    "tenant create acme",
    "tenant list",
    "tenant show acme",
    "tenant update acme --weight 2",
    "key create acme ci",
    "key list acme",
    "worker-token create fleet",
    "worker-token list",
    "queues",
    "queues pause default",
    "queues resume default",
    "workers",
    "profile list",
];

#[tokio::test]
async fn every_command_answers_json_and_nothing_else() {
    let shell = Shell::new().await;
    let id = shell.busy().await;
    shell.file("runs.jsonl", "{}\n");
    for line in TENANT {
        let answer = shell.run(&format!("-o json {}", line.replace("ID", &id))).await.json();
        assert!(answer.is_object() || answer.is_array(), "{line}: {answer}");
    }
    for line in ADMIN {
        let answer = shell.admin(&format!("-o json {line}")).await.json();
        assert!(answer.is_object() || answer.is_array(), "{line}: {answer}");
    }
    let waiting = shell.run("list --status pending -o json").await.json();
    let line = format!("-o json cancel {}", text(&waiting[0]["id"]));
    assert_eq!(shell.run(&line).await.json()[0]["status"], "CANCELLED");
    let ran = shell.run(&format!("-o json status -w {id}")).await;
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["status"], "FAILED");
}

#[tokio::test]
async fn a_pipe_gets_neither_colour_nor_control_sequences() {
    let shell = Shell::new().await;
    let id = shell.busy().await;
    shell.file("runs.jsonl", "{}\n");
    let mut outputs = Vec::new();
    for line in TENANT.into_iter().chain(["status -w ID", "run nosuch", "nosuch", "--help"]) {
        outputs.push((line, shell.run(&line.replace("ID", &id)).await));
    }
    for line in ADMIN {
        outputs.push((line, shell.admin(line).await));
    }
    for (line, ran) in outputs {
        assert!(!ran.stdout.is_empty() || !ran.stderr.is_empty(), "{line}");
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!ran.stdout.contains(steers) && !ran.stderr.contains(steers), "{line}: {ran:?}");
    }
}

#[tokio::test]
async fn every_shell_has_its_completions_without_a_controller() {
    let shell = Shell::new().await;
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ran(shell.bare(&format!("completions {name}"))).await.ok();
        assert!(script.contains("retry-all"), "{name}");
    }
}
