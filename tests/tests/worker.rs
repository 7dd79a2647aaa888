//! The worker as a process of its own against a real control plane: what it does when all is well, and when not.

use jobplane_tests::{Cell, Worker, text};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(5);

/// A worker of this cell's, with its standard error there.
fn start(cell: &Cell, stderr: Stdio) -> Worker {
    Worker::start(&cell.url, &cell.worker, |command| {
        command.env("JOBPLANE_KILL_GRACE_SECONDS", "1").env("SECRET_OF_THE_WORKER", "hidden").stderr(stderr);
    })
}

/// Looks until an execution is in this state.
pub(crate) async fn until(cell: &Cell, id: &str, status: &str) -> Value {
    let began = Instant::now();
    loop {
        let seen = cell.execution(id).await;
        if seen["status"] == status {
            return seen;
        }
        assert!(began.elapsed() < LIMIT, "{id} is not {status}: {seen}");
        tokio::time::sleep(PAUSE).await;
    }
}

pub(crate) async fn shell(cell: &Cell, script: &str, more: Value) -> String {
    let mut job = json!({"command": ["sh", "-c", script]});
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let job = cell.new_job(job).await;
    let asked = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"input": {"n": 1}})).await.ok();
    text(&asked["execution_id"])
}

#[tokio::test]
async fn each_way_that_a_job_can_end_has_its_outcome() {
    let cell = Cell::new().await;
    let none = || json!({});
    let good = shell(&cell, r#"cat "$JOBPLANE_INPUT" > "$JOBPLANE_OUTPUT_DIR/result.json""#, none()).await;
    let env = shell(
        &cell,
        r#"test -z "$SECRET_OF_THE_WORKER$JOBPLANE_WORKER_TOKEN" && test "$JOBPLANE_ATTEMPT" = 1"#,
        none(),
    )
    .await;
    let bad = shell(&cell, "echo why >&2; exit 3", json!({"retry": {"max_attempts": 1}})).await;
    let slow =
        shell(&cell, "trap '' TERM; sleep 600", json!({"timeout_seconds": 1, "retry": {"max_attempts": 1}}))
            .await;
    let garbage = shell(&cell, r#"echo '{' > "$JOBPLANE_OUTPUT_DIR/result.json""#, none()).await;
    let daemon = shell(&cell, "sleep 600 & echo started", none()).await;
    let killed = shell(&cell, "kill -9 $$", json!({"retry": {"max_attempts": 1}})).await;
    let job = cell.new_job(json!({"command": ["/no/such/program"]})).await;
    let absent = cell.run(&job).await;
    let _worker = start(&cell, Stdio::null());
    assert_eq!(until(&cell, &good, "SUCCEEDED").await["result"], json!({"n": 1}));
    until(&cell, &env, "SUCCEEDED").await;
    let bad = until(&cell, &bad, "FAILED").await;
    assert_eq!((&bad["exit_code"], &bad["error"]), (&json!(3), &json!("exit code 3: why")));
    let garbage = until(&cell, &garbage, "FAILED").await;
    assert!(text(&garbage["error"]).starts_with("result.json is not JSON"), "{garbage}");
    assert_eq!(garbage["tries"], 1, "not tried again");
    until(&cell, &daemon, "SUCCEEDED").await;
    assert_eq!(until(&cell, &killed, "FAILED").await["error"], "killed by SIGKILL");
    assert_eq!(until(&cell, &absent, "FAILED").await["tries"], 1);
    assert_eq!(until(&cell, &slow, "FAILED").await["attempts"][0]["outcome"], "timed_out");
}

#[tokio::test]
async fn lines_arrive_in_order_whatever_they_hold() {
    let cell = Cell::new().await;
    let script =
        r"i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; printf 'a\377b\n'; printf 'no end'";
    let id = shell(&cell, script, json!({})).await;
    let _worker = start(&cell, Stdio::null());
    until(&cell, &id, "SUCCEEDED").await;
    let (mut read, mut after) = (Vec::new(), String::new());
    loop {
        let page = cell.get(&format!("/executions/{id}/logs?limit=1000{after}"), &cell.tenant).await.ok();
        read.extend(page["lines"].as_array().unwrap().iter().map(|line| text(&line["text"])));
        if page["finished"] == true {
            break;
        }
        after = format!("&after={}", text(&page["next"]));
    }
    let mut wanted: Vec<_> = (0..3000).map(|number| number.to_string()).collect();
    wanted.extend(["a\u{fffd}b".to_owned(), "no end".to_owned()]);
    assert_eq!(read, wanted);
}

/// The most memory that a worker had while a job printed a gigabyte, in kB.
async fn peak_of_a_gigabyte(script: &str) -> u32 {
    let cell = Cell::new().await;
    let id = shell(&cell, script, json!({})).await;
    let worker = start(&cell, Stdio::null());
    until(&cell, &id, "SUCCEEDED").await;
    let peak = worker.memory("VmHWM");
    let logs = cell.get(&format!("/executions/{id}/logs?limit=1"), &cell.tenant).await.ok();
    assert_eq!(logs["lines"].as_array().unwrap().len(), 1);
    eprintln!("peak of the worker's memory: {peak} kB");
    peak
}

#[tokio::test]
async fn a_job_that_prints_a_gigabyte_succeeds_and_its_worker_stays_small() {
    let kilobytes = peak_of_a_gigabyte(r#"yes "$(printf %0999d 0)" | head -c 1000000000"#).await;
    assert!(kilobytes < 100_000, "{kilobytes} kB");
}

#[tokio::test]
async fn a_job_that_prints_a_gigabyte_in_one_line_succeeds_and_its_worker_stays_small() {
    let kilobytes = peak_of_a_gigabyte(r"head -c 1000000000 /dev/zero | tr '\0' x").await;
    assert!(kilobytes < 100_000, "{kilobytes} kB");
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_gives_back_what_it_runs_unspent() {
    let cell = Cell::new().await;
    let id = shell(&cell, "sleep 600", json!({})).await;
    let mut worker = start(&cell, Stdio::null());
    until(&cell, &id, "RUNNING").await;
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    let seen = until(&cell, &id, "PENDING").await;
    assert_eq!((&seen["tries"], &seen["attempts"][0]["outcome"]), (&json!(0), &json!("released")));
    assert!(worker.process.wait().unwrap().success());
}

/// What a job holds for as long as any process of it lives, and the directory that it had.
pub(crate) struct Trace(pub(crate) tempfile::TempDir);

impl Trace {
    /// The beginning of a script whose every process leaves this trace, the one that it leaves behind in a session
    /// of its own too.
    pub(crate) fn script(&self) -> String {
        let path = self.0.path().display();
        format!(
            "exec 9> {path}/lock; flock 9; pwd > {path}/new; mv {path}/new {path}/pwd; setsid sleep 600 & "
        )
    }

    /// Whether the job has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.path().join("pwd").exists()
    }

    /// Waits until no process of the job is left, nor its directory.
    pub(crate) async fn is_gone(&self) {
        let pwd = std::fs::read_to_string(self.0.path().join("pwd")).unwrap();
        let lock = std::fs::File::open(self.0.path().join("lock")).unwrap();
        eventually("a process of the job is left", || lock.try_lock().is_ok()).await;
        let directory = Path::new(pwd.trim()).parent().unwrap();
        eventually("the directory of the job is left", || !directory.exists()).await;
    }
}

pub(crate) async fn eventually(otherwise: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{otherwise}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a worker that was asked to has ended, and well.
pub(crate) async fn ends_well(mut worker: Worker) {
    eventually("the worker does not end", || worker.process.try_wait().unwrap().is_some()).await;
    let ended = worker.process.wait().unwrap();
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn a_worker_killed_with_sigkill_loses_nothing_and_leaves_nothing() {
    let cell = Cell::new().await;
    let trace = Trace(tempfile::tempdir().unwrap());
    let script = format!(r#"test "$JOBPLANE_ATTEMPT" = 2 && exit; {} sleep 600"#, trace.script());
    let id = shell(&cell, &script, json!({})).await;
    let worker = start(&cell, Stdio::null());
    eventually("the job has not begun", || trace.has_begun()).await;
    drop(worker);
    trace.is_gone().await;
    cell.expire_leases().await;
    cell.fall_due().await;
    let _next = start(&cell, Stdio::null());
    let seen = until(&cell, &id, "SUCCEEDED").await;
    assert_eq!((&seen["tries"], &seen["attempts"][0]["outcome"]), (&json!(2), &json!("expired")));
}

#[tokio::test]
async fn a_job_that_kills_its_warden_fails_and_leaves_nothing() {
    let cell = Cell::new().await;
    let trace = Trace(tempfile::tempdir().unwrap());
    let script = format!("{} kill -9 $PPID; sleep 600", trace.script());
    let id = shell(&cell, &script, json!({"retry": {"max_attempts": 1}})).await;
    let other = shell(&cell, "true", json!({})).await;
    let _worker = start(&cell, Stdio::null());
    assert_eq!(until(&cell, &id, "FAILED").await["error"], "the job's warden was killed");
    trace.is_gone().await;
    until(&cell, &other, "SUCCEEDED").await;
}

#[tokio::test]
async fn a_job_that_kills_its_worker_is_a_dead_letter_when_its_tries_are_spent_and_harms_no_other() {
    let cell = Cell::new().await;
    let trace = Trace(tempfile::tempdir().unwrap());
    // Its parent is the warden, and the warden's the worker.
    let script = format!(r#"{} kill -9 "$(cut -d' ' -f4 /proc/$PPID/stat)"; sleep 600"#, trace.script());
    let id = shell(&cell, &script, json!({"retry": {"max_attempts": 2}})).await;
    let others = cell.run_many(&cell.tenant, &cell.new_job(json!({})).await, 5).await;
    for attempt in 1..=2 {
        let mut worker = start(&cell, Stdio::null());
        eventually("the worker lives", || worker.process.try_wait().unwrap().is_some()).await;
        trace.is_gone().await;
        cell.expire_leases().await;
        cell.fall_due().await;
        assert_eq!(cell.execution(&id).await["tries"], attempt);
    }
    let _worker = start(&cell, Stdio::null());
    for other in others {
        until(&cell, &other, "SUCCEEDED").await;
    }
    let seen = until(&cell, &id, "FAILED").await;
    assert!(
        seen["attempts"].as_array().unwrap().iter().all(|attempt| attempt["outcome"] == "expired"),
        "{seen}"
    );
    let letters = cell.get("/executions/dlq", &cell.tenant).await.ok();
    let letters = letters["items"].as_array().unwrap();
    assert_eq!((letters.len(), text(&letters[0]["execution_id"])), (1, id));
    assert!(text(&letters[0]["reason"]).starts_with("lease expired on attempt 2 of 2"), "{}", letters[0]);
}

#[tokio::test]
async fn a_worker_whose_log_nobody_reads_any_more_goes_on_working() {
    let cell = Cell::new().await;
    let mut worker = start(&cell, Stdio::piped());
    // As when a log collector restarts: every write fails from now on.
    drop(worker.process.stderr.take());
    for id in cell.run_many(&cell.tenant, &cell.new_job(json!({})).await, 3).await {
        until(&cell, &id, "SUCCEEDED").await;
    }
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = worker.process.wait().unwrap();
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn a_worker_on_a_machine_without_certificate_authorities_works_over_plain_http() {
    let cell = Cell::new().await;
    let id = cell.run(&cell.new_job(json!({})).await).await;
    let _worker = Worker::start(&cell.url, &cell.worker, |command| {
        command.env("SSL_CERT_FILE", "/dev/null").env_remove("SSL_CERT_DIR");
    });
    until(&cell, &id, "SUCCEEDED").await;
}
