//! A worker that is stopped, killed, frozen or cut off in every phase of its work, and what becomes of that work.

use crate::worker::{Trace, ends_well, eventually, shell, until};
use jobplane_tests::{Cell, Faults, Proxy, Worker, program, text};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Stdio;

/// Ends at once in its second attempt.
const UNLESS_FIRST: &str = r#"test "$JOBPLANE_ATTEMPT" = 2 && exit;"#;
/// Ten minutes pass, for the control plane.
const TEN_MINUTES: &str = "
  update ticks set ticked_at = ticked_at - interval '10 minutes', heard_at = heard_at - interval '10 minutes';
  update workers set last_seen_at = last_seen_at - interval '10 minutes';
  update leases set expires_at = expires_at - interval '10 minutes'";

/// A cell, the proxy before it, and a worker that knows only the proxy.
struct Line {
    cell: Cell,
    proxy: Proxy,
}

impl Line {
    /// Leases are short, so that heartbeats are frequent.
    async fn new() -> Self {
        Self::before(Cell::with_leases_of(5).await).await
    }

    async fn before(cell: Cell) -> Self {
        let proxy = Proxy::start(&cell.url, Faults::default(), 0).await;
        Self { cell, proxy }
    }

    fn worker(&self) -> Worker {
        Worker::start(&self.proxy.url, &self.cell.worker, |command| {
            command.env("JOBPLANE_KILL_GRACE_SECONDS", "1").stderr(Stdio::null());
        })
    }

    /// A worker that waits for the answer to a call of paths that end so: it is kept back until [`Proxy::open`].
    async fn worker_held_at(&self, path_end: &'static str) -> Worker {
        self.proxy.hold(path_end);
        let worker = self.worker();
        self.proxy.holds().await;
        worker
    }

    /// Kills a worker before the answer comes that it waits for, and starts another in its place.
    fn kill(&self, worker: &mut Worker) {
        worker.signal(Signal::SIGKILL);
        self.proxy.open();
        worker.kill_and_restart();
    }

    /// What is left of a dead worker's lease, and the backoff after it, is over.
    async fn time_passes(&self) {
        self.cell.expire_leases().await;
        self.cell.fall_due().await;
    }
}

fn outcomes(execution: &Value) -> Vec<String> {
    execution["attempts"].as_array().unwrap().iter().map(|attempt| text(&attempt["outcome"])).collect()
}

#[tokio::test]
async fn a_worker_told_to_stop_while_idle_ends() {
    let line = Line::new().await;
    let worker = line.worker();
    eventually("it does not ask", || line.proxy.forwarded() > 0).await;
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
}

#[tokio::test]
async fn a_worker_told_to_stop_while_it_asks_gives_back_unspent_what_it_is_handed() {
    let line = Line::new().await;
    let id = shell(&line.cell, "sleep 600", json!({})).await;
    let worker = line.worker_held_at("/dequeue").await;
    worker.signal(Signal::SIGTERM);
    line.proxy.open();
    ends_well(worker).await;
    let seen = until(&line.cell, &id, "PENDING").await;
    assert_eq!((&seen["tries"], outcomes(&seen)), (&json!(0), vec!["released".to_owned()]));
}

#[tokio::test]
async fn a_worker_told_to_stop_while_its_result_is_on_its_way_ends_the_execution_once() {
    let line = Line::new().await;
    let id = shell(&line.cell, "true", json!({})).await;
    let worker = line.worker_held_at("/results").await;
    worker.signal(Signal::SIGTERM);
    line.proxy.open();
    ends_well(worker).await;
    assert_eq!(outcomes(&until(&line.cell, &id, "SUCCEEDED").await), ["succeeded"]);
}

#[tokio::test]
async fn a_worker_told_to_stop_while_a_heartbeat_hangs_gives_back_unspent_what_it_runs() {
    let line = Line::new().await;
    let id = shell(&line.cell, "sleep 600", json!({})).await;
    let worker = line.worker_held_at("/heartbeats").await;
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
    let seen = until(&line.cell, &id, "PENDING").await;
    assert_eq!((&seen["tries"], outcomes(&seen)), (&json!(0), vec!["released".to_owned()]));
}

#[tokio::test]
async fn a_worker_killed_while_idle_loses_nothing() {
    let line = Line::new().await;
    let mut worker = line.worker();
    eventually("it does not ask", || line.proxy.forwarded() > 0).await;
    worker.kill_and_restart();
    let id = shell(&line.cell, "true", json!({})).await;
    assert_eq!(outcomes(&until(&line.cell, &id, "SUCCEEDED").await), ["succeeded"]);
}

#[tokio::test]
async fn a_worker_killed_while_it_asks_costs_what_it_was_handed_one_try() {
    let line = Line::new().await;
    let id = shell(&line.cell, "true", json!({})).await;
    let mut worker = line.worker_held_at("/dequeue").await;
    line.kill(&mut worker);
    line.time_passes().await;
    assert_eq!(outcomes(&until(&line.cell, &id, "SUCCEEDED").await), ["expired", "succeeded"]);
}

#[tokio::test]
async fn a_worker_killed_while_its_result_is_on_its_way_has_ended_the_execution() {
    let line = Line::new().await;
    let id = shell(&line.cell, "true", json!({})).await;
    let mut worker = line.worker_held_at("/results").await;
    line.kill(&mut worker);
    line.time_passes().await;
    let next = shell(&line.cell, "true", json!({})).await;
    until(&line.cell, &next, "SUCCEEDED").await;
    assert_eq!(outcomes(&until(&line.cell, &id, "SUCCEEDED").await), ["succeeded"]);
}

#[tokio::test]
async fn a_worker_killed_while_a_heartbeat_hangs_leaves_nothing_and_its_job_runs_again() {
    let line = Line::new().await;
    let trace = Trace(tempfile::tempdir().unwrap());
    let id = shell(&line.cell, &format!("{UNLESS_FIRST} {} sleep 600", trace.script()), json!({})).await;
    let mut worker = line.worker_held_at("/heartbeats").await;
    eventually("the job has not begun", || trace.has_begun()).await;
    line.kill(&mut worker);
    trace.is_gone().await;
    line.time_passes().await;
    assert_eq!(outcomes(&until(&line.cell, &id, "SUCCEEDED").await), ["expired", "succeeded"]);
}

#[tokio::test]
async fn a_worker_frozen_past_its_lease_ends_the_job_that_runs_elsewhere_and_goes_on_working() {
    let line = Line::new().await;
    let trace = Trace(tempfile::tempdir().unwrap());
    let id = shell(&line.cell, &format!("{UNLESS_FIRST} {} sleep 600", trace.script()), json!({})).await;
    let frozen = line.worker();
    eventually("the job has not begun", || trace.has_begun()).await;
    frozen.signal(Signal::SIGSTOP);
    line.time_passes().await;
    let other = line.worker();
    let seen = until(&line.cell, &id, "SUCCEEDED").await;
    drop(other);
    frozen.signal(Signal::SIGCONT);
    trace.is_gone().await;
    let next = shell(&line.cell, "true", json!({})).await;
    until(&line.cell, &next, "SUCCEEDED").await;
    assert_eq!(outcomes(&seen), ["expired", "succeeded"]);
    assert_eq!(line.cell.execution(&id).await["attempts"], seen["attempts"], "it has reported nothing");
}

#[tokio::test]
async fn a_controller_that_is_away_for_ten_minutes_costs_no_try() {
    let line = Line::before(Cell::new().await).await;
    let place = tempfile::tempdir().unwrap();
    let waits = |file: &str| format!("until [ -e {}/{file} ]; do sleep 0.01; done", place.path().display());
    let ends = format!("{}; touch {}/done", waits("go"), place.path().display());
    let ends_meanwhile = shell(&line.cell, &ends, json!({})).await;
    let goes_on = shell(&line.cell, &waits("later"), json!({})).await;
    let _worker = line.worker();
    until(&line.cell, &ends_meanwhile, "RUNNING").await;
    until(&line.cell, &goes_on, "RUNNING").await;
    line.proxy.go_away();
    std::fs::write(place.path().join("go"), "").unwrap();
    eventually("the job does not end", || place.path().join("done").exists()).await;
    line.cell.db.batch_execute(TEN_MINUTES).await.unwrap();
    line.proxy.open();
    let seen = until(&line.cell, &ends_meanwhile, "SUCCEEDED").await;
    std::fs::write(place.path().join("later"), "").unwrap();
    assert_eq!(outcomes(&seen), ["succeeded"]);
    assert_eq!(outcomes(&until(&line.cell, &goes_on, "SUCCEEDED").await), ["succeeded"]);
}

#[tokio::test]
async fn a_worker_without_a_name_service_goes_on_asking_and_ends_when_told() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let worker = Worker::start("http://controller.invalid", "jp_worker_x", |command| {
        command.stderr(log.reopen().unwrap());
    });
    let tries = || std::fs::read_to_string(&log).unwrap().matches("no work could be asked for").count();
    eventually("it does not ask again", || tries() >= 3).await;
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
}

/// A worker whose directory for temporary files is a disk of one megabyte; `before` is done to it first.
fn on_a_small_disk(line: &Line, disk: &std::path::Path, before: &str) -> Worker {
    let script = format!(r#"mount -t tmpfs -o size=1m tmpfs "$TMPDIR" && {before} exec "$0""#);
    Worker::of("unshare".as_ref(), &line.proxy.url, &line.cell.worker, |command| {
        command.args(["--mount", "sh", "-c", &script]).arg(program("jobplane-worker"));
        command.env("TMPDIR", disk).stderr(Stdio::null());
    })
}

#[tokio::test]
#[ignore = "needs root, who alone can mount a disk"]
async fn a_job_that_fills_the_disk_fails_and_the_next_has_room() {
    let line = Line::new().await;
    let disk = tempfile::tempdir().unwrap();
    let once = json!({"retry": {"max_attempts": 1}});
    let full = shell(&line.cell, "head -c 2000000 /dev/zero > file", once).await;
    let _worker = on_a_small_disk(&line, disk.path(), "");
    let seen = until(&line.cell, &full, "FAILED").await;
    assert!(text(&seen["error"]).contains("No space left on device"), "{seen}");
    let next = shell(&line.cell, "head -c 500000 /dev/zero > file", json!({})).await;
    assert_eq!(outcomes(&until(&line.cell, &next, "SUCCEEDED").await), ["succeeded"]);
}

#[tokio::test]
#[ignore = "needs root, who alone can mount a disk"]
async fn a_worker_whose_disk_is_full_gives_back_unspent_until_there_is_room() {
    let line = Line::new().await;
    let disk = tempfile::tempdir().unwrap();
    let id = shell(&line.cell, "true", json!({})).await;
    let fill = r#"{ head -c 2000000 /dev/zero > "$TMPDIR/fill"; true; } && "#;
    let worker = on_a_small_disk(&line, disk.path(), fill);
    let released = || line.cell.number("select count(*) from attempts where outcome = 'released'");
    while released().await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let seen = line.cell.execution(&id).await;
    assert_eq!(seen["tries"], 0);
    let fill = format!("/proc/{}/root{}/fill", worker.process.id(), disk.path().display());
    std::fs::remove_file(fill).unwrap();
    assert_eq!(until(&line.cell, &id, "SUCCEEDED").await["tries"], 1);
}
