//! `jobplane job`: definitions made, shown, changed and deleted.

use super::Shell;
use jobplane_tests::text;
use serde_json::{Value, json};

#[tokio::test]
async fn every_flag_of_a_definition_arrives() {
    let shell = Shell::new().await;
    let line = "job create full --image img -e A=b=c -q gpu --priority 25 --time-limit 2h --max-running 3 \
                --max-attempts 4 --backoff 1m --backoff-factor 3 --backoff-cap 30m -o json -- prog -x y";
    shell.run(line).await.json();
    let job = shell.run("job show full -o json").await.json();
    assert_eq!(job["command"], json!(["prog", "-x", "y"]));
    assert_eq!((&job["image"], &job["env"]), (&json!("img"), &json!({"A": "b=c"})));
    assert_eq!((&job["queue"], &job["priority"]), (&json!("gpu"), &json!(25)));
    assert_eq!((&job["timeout_seconds"], &job["max_running"]), (&json!(7_200), &json!(3)));
    let retry = json!({"max_attempts": 4, "backoff_seconds": 60, "backoff_factor": 3.0, "backoff_cap_seconds": 1_800});
    assert_eq!(job["retry"], retry);
    let shown = shell.run(&format!("job show {}", text(&job["id"]))).await.ok();
    for line in ["Command      prog -x y", "Time limit   2h", "Backoff      1m, times 3, at most 30m"] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
}

#[tokio::test]
async fn what_is_not_named_stays_when_a_job_is_changed() {
    let shell = Shell::new().await;
    shell.run("job create j -e A=1 -e B=2 --max-running 3 --max-attempts 4 --backoff 1m -- prog").await.ok();
    let changed =
        shell.run("job update j --unset-env A -e C=3 --max-running none --max-attempts 9 -o json").await;
    let changed = changed.json();
    assert_eq!(changed["env"], json!({"B": "2", "C": "3"}));
    assert_eq!((&changed["max_running"], &changed["command"]), (&Value::Null, &json!(["prog"])));
    assert_eq!(
        (&changed["retry"]["max_attempts"], &changed["retry"]["backoff_seconds"]),
        (&json!(9), &json!(60))
    );
    let changed = shell.run("job update j --name k --image img --no-command -o json").await.json();
    assert_eq!((&changed["name"], &changed["command"]), (&json!("k"), &Value::Null));
    shell.run("job update k --no-image").await.refused(1);
    shell.run("job update k").await.refused(2);
}

#[tokio::test]
async fn a_deleted_job_takes_no_new_runs_and_leaves_its_history() {
    let shell = Shell::new().await;
    shell.run("job create j -- true").await.ok();
    let id = shell.run("run j").await.ok();
    assert_eq!(shell.run("job delete j").await.ok(), "Job j is deleted.\n");
    assert_eq!(shell.run("job list -o json").await.json(), json!([]));
    assert!(shell.run("run j").await.refused(4).contains("there is no job \"j\""));
    assert_eq!(shell.run(&format!("status -o json {}", id.trim())).await.json()["job_name"], "j");
}

#[tokio::test]
async fn jobs_are_listed_with_what_they_run() {
    let shell = Shell::new().await;
    shell.run("job create one -- echo a$b").await.ok();
    shell.run("job create two --image img").await.ok();
    let list = shell.run("job list").await.ok();
    let ends: Vec<_> = list.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    assert_eq!(ends, ["RUNS", "[img]", "'a$b'"]);
}

#[tokio::test]
async fn a_bad_definition_is_refused_before_anything_is_sent() {
    let shell = Shell::new().await;
    assert!(shell.run("job create j").await.refused(2).contains("a job needs a command or an image"));
    assert!(
        shell.run("job create j --max-attempts 0 -- true").await.refused(2).contains("retry.max_attempts")
    );
    assert!(shell.run("job create j -e A -- true").await.refused(2).contains("NAME=VALUE"));
}

#[tokio::test]
async fn a_taken_name_says_how_the_job_is_changed() {
    let shell = Shell::new().await;
    shell.run("job create j -- true").await.ok();
    assert!(shell.run("job create j -- false").await.refused(1).contains("jobplane job update j"));
}
