//! The Python worker of `worker/examples`, which has nothing but the wire contract, held to what our own worker does.

use crate::volume::Dev;
use crate::worker::{ends_well, eventually, until};
use jobplane_tests::{Cell, Faults, Proxy, Worker, text};
use jobplane_worker::Client;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// A Python worker.
fn start(url: &str, token: &str, more: impl FnOnce(&mut Command)) -> Worker {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/examples/worker.py");
    Worker::of(Path::new("python3"), url, token, |command| {
        let quiet = command.arg(script).stdout(Stdio::null()).stderr(Stdio::null());
        more(quiet.env("JOBPLANE_KILL_GRACE_SECONDS", "1"));
    })
}

/// Asks for one execution of a new job: its id.
async fn ask(cell: &Cell, script: &str) -> String {
    cell.run(&cell.new_job(json!({"command": ["sh", "-c", script]})).await).await
}

/// A job that says in a file which process it is, waits for another file, and says in a third that it got so far.
struct Waiting(tempfile::TempDir);

impl Waiting {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self) -> String {
        let [pid, go, done] = ["pid", "go", "done"].map(|name| self.file(name).display().to_string());
        format!(
            "echo $$ > {pid}.new; mv {pid}.new {pid}; until [ -e {go} ]; do sleep 0.05; done; touch {done}"
        )
    }

    async fn has_begun(&self) {
        eventually("the job has not begun", || self.file("pid").exists()).await;
    }

    /// Looks until the job's process is gone.
    async fn is_gone(&self) {
        let process = Path::new("/proc").join(std::fs::read_to_string(self.file("pid")).unwrap().trim());
        eventually("the job is still there", || !process.exists()).await;
    }
}

async fn run(tenant: &Client, name: &str, script: &str) -> String {
    let job = json!({"name": name, "command": ["sh", "-c", script], "retry": {"max_attempts": 1}});
    let job: Value = tenant.post("/jobs").json(&job).send().await.unwrap();
    let path = format!("/jobs/{}/run", text(&job["id"]));
    let asked: Value = tenant.post(path).json(&json!({"input": {"n": 1}})).send().await.unwrap();
    text(&asked["execution_id"])
}

async fn get(tenant: &Client, path: String, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let seen: Value = tenant.get(&path).send().await.unwrap();
        if is_so(&seen) {
            return seen;
        }
        assert!(began.elapsed() < LIMIT, "{path}: {seen}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_python_worker_of_jobplane_dev_succeeds_fails_and_is_cancelled() {
    let flags = ["--workers", "0", "--lease-seconds", "5"];
    let mut dev = tokio::task::spawn_blocking(move || Dev::start(&flags)).await.unwrap();
    let tenant = dev.tenant();
    let good = "echo one; echo two >&2; cat $JOBPLANE_INPUT > $JOBPLANE_OUTPUT_DIR/result.json; printf end";
    let good = run(&tenant, "good", good).await;
    let bad = run(&tenant, "bad", "exit 3").await;
    let garbage = run(&tenant, "garbage", "echo { > $JOBPLANE_OUTPUT_DIR/result.json").await;
    let long = run(&tenant, "long", "echo begun; sleep 600").await;
    let worker = start(&text(&dev.access["url"]), &text(&dev.access["worker_token"]), |_| {});
    let ended = async |id: &str, status: &str| {
        get(&tenant, format!("/executions/{id}"), |seen| seen["status"] == status).await
    };
    assert_eq!(ended(&good, "SUCCEEDED").await["result"], json!({"n": 1}));
    assert_eq!(ended(&bad, "FAILED").await["exit_code"], 3);
    assert!(text(&ended(&garbage, "FAILED").await["error"]).starts_with("result.json: "));
    let logs = get(&tenant, format!("/executions/{good}/logs"), |logs| logs["finished"] == true).await;
    let lines: Vec<_> = logs["lines"].as_array().unwrap().iter().map(|line| text(&line["text"])).collect();
    assert_eq!(lines, ["one", "two", "end"]);
    get(&tenant, format!("/executions/{long}/logs"), |logs| logs["lines"] != json!([])).await;
    let cancel = tenant.post(format!("/executions/{long}/cancel")).json(&json!({}));
    cancel.send::<Value>().await.unwrap();
    assert_eq!(ended(&long, "CANCELLED").await["attempts"][0]["outcome"], "cancelled");
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
    assert!(tokio::task::spawn_blocking(move || dev.stop()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_cost_a_python_worker_no_attempt_and_no_line() {
    let cell = Cell::new().await;
    let (faults, seed) =
        (Faults { drop_before: 10, drop_after: 20, duplicate: 5, reset: 10, delay: 0 }, rand::random());
    eprintln!("seed of the faults: {seed}");
    let proxy = Proxy::start(&cell.url, faults, seed).await;
    let job = cell.new_job(json!({"command": ["sh", "-c", "echo one; echo two"]})).await;
    let ids = cell.run_many(&cell.tenant, &job, 40).await;
    let worker = start(&proxy.url, &cell.worker, |_| {});
    for id in &ids {
        let seen = until(&cell, id, "SUCCEEDED").await;
        assert_eq!(seen["attempts"].as_array().unwrap().len(), 1, "{seen}");
        let logs = cell.get(&format!("/executions/{id}/logs"), &cell.tenant).await.ok();
        let lines: Vec<_> =
            logs["lines"].as_array().unwrap().iter().map(|line| text(&line["text"])).collect();
        assert_eq!(lines, ["one", "two"]);
    }
    assert!(proxy.faulty() > 20, "{} faults are too few to tell", proxy.faulty());
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
}

#[tokio::test]
async fn a_python_worker_drains_on_sigterm_and_gives_back_what_does_not_end() {
    let cell = Cell::new().await;
    let job = Waiting::new();
    let id = ask(&cell, &job.script()).await;
    let worker = start(&cell.url, &cell.worker, |command| {
        command.env("JOBPLANE_DRAIN_SECONDS", "600").env("JOBPLANE_CONCURRENCY", "1");
    });
    job.has_begun().await;
    let later = ask(&cell, "true").await;
    worker.signal(Signal::SIGTERM);
    std::fs::write(job.file("go"), "").unwrap();
    ends_well(worker).await;
    assert_eq!(cell.execution(&id).await["status"], "SUCCEEDED");
    assert_eq!(cell.execution(&later).await["status"], "PENDING", "nothing new is taken");

    let (cell, job) = (Cell::new().await, Waiting::new());
    let id = ask(&cell, &job.script()).await;
    let worker = start(&cell.url, &cell.worker, |_| {});
    job.has_begun().await;
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
    job.is_gone().await;
    let seen = cell.execution(&id).await;
    assert_eq!((&seen["status"], &seen["tries"]), (&json!("PENDING"), &json!(0)));
}

#[tokio::test]
async fn a_python_worker_frozen_past_its_lease_ends_the_job_that_runs_elsewhere_and_reports_nothing() {
    let cell = Cell::with_leases_of(5).await;
    let job = Waiting::new();
    let id = ask(&cell, &format!("test $JOBPLANE_ATTEMPT = 2 && exit; {}", job.script())).await;
    let frozen = start(&cell.url, &cell.worker, |_| {});
    job.has_begun().await;
    frozen.signal(Signal::SIGSTOP);
    // While no worker at all is heard, no lease ends.
    let other = start(&cell.url, &cell.worker, |_| {});
    let began = Instant::now();
    while cell.execution(&id).await["attempts"] == json!([]) {
        assert!(began.elapsed() < LIMIT, "the lease does not end");
        cell.expire_leases().await;
        tokio::time::sleep(PAUSE).await;
    }
    cell.fall_due().await;
    let seen = until(&cell, &id, "SUCCEEDED").await;
    frozen.signal(Signal::SIGCONT);
    job.is_gone().await;
    assert!(!job.file("done").exists());
    let outcomes: Vec<_> =
        seen["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, ["expired", "succeeded"]);
    for worker in [frozen, other] {
        worker.signal(Signal::SIGTERM);
        ends_well(worker).await;
    }
    assert_eq!(cell.execution(&id).await["attempts"], seen["attempts"], "it has reported nothing");
}
