//! Handlers in a worker of this process, and the example that users copy, against a real control plane.

use crate::worker::until;
use jobplane_tests::{Cell, Worker as Process, example, text};
use jobplane_worker::{Context, Error, JobError, StopReason, Stream, Worker, WorkerBuilder};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A worker in this process, and how to stop it.
struct Running {
    stop: oneshot::Sender<()>,
    worker: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts a worker of this cell's with these handlers.
    fn start(cell: &Cell, describe: impl FnOnce(WorkerBuilder) -> WorkerBuilder) -> Self {
        let builder = Worker::builder().url(&cell.url).token(&cell.worker).drain(Duration::ZERO);
        let worker = describe(builder.kill_grace(Duration::from_secs(1))).build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let worker = worker.run_until(async { stopped.await.unwrap_or_default() });
        Self { stop, worker: tokio::spawn(worker) }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.worker.await.unwrap().unwrap();
    }
}

/// Asks for one execution of a new job of this name.
async fn ask(cell: &Cell, name: &str, input: Value) -> String {
    let job = json!({"name": name, "command": [name], "retry": {"max_attempts": 2, "backoff_seconds": 600}});
    let job = cell.post("/jobs", &cell.tenant, job).await.ok();
    let path = format!("/jobs/{}/run", text(&job["id"]));
    text(&cell.post(&path, &cell.tenant, json!({ "input": input })).await.ok()["execution_id"])
}

#[tokio::test]
async fn each_way_that_a_handler_can_end_has_its_outcome_and_the_worker_goes_on() {
    let cell = Cell::new().await;
    let nobody = ask(&cell, "nobody", json!(null)).await;
    let panics = ask(&cell, "panics", json!(null)).await;
    let refuses = ask(&cell, "refuses", json!(null)).await;
    let odd = ask(&cell, "takes numbers", json!({ "n": "x" })).await;
    let running = Running::start(&cell, |worker| {
        worker
            .concurrency(1)
            .handler("double", |_: Context, n: i64| async move { Ok(2 * n) })
            .handler("takes numbers", |_: Context, _: std::collections::BTreeMap<String, i64>| async {
                Ok(())
            })
            .handler("refuses", |_: Context, (): ()| async {
                Err::<(), _>(JobError::new("never").not_retryable())
            })
            .handler("panics", |_: Context, (): ()| async {
                assert!(std::process::id() == 0, "on purpose");
                Ok(())
            })
    });
    let good = ask(&cell, "double", json!(21)).await;
    assert_eq!(until(&cell, &good, "SUCCEEDED").await["result"], json!(42));
    let refuses = until(&cell, &refuses, "FAILED").await;
    assert_eq!((&refuses["error"], &refuses["tries"]), (&json!("never"), &json!(1)));
    assert!(text(&until(&cell, &odd, "FAILED").await["error"]).starts_with("input.n: invalid type"));
    assert_eq!(until(&cell, &panics, "RETRYING").await["error"], "panicked: on purpose");
    let nobody = until(&cell, &nobody, "RETRYING").await;
    assert!(text(&nobody["error"]).starts_with("this worker has no handler for the job \"nobody\""));
    assert_eq!(nobody["attempts"].as_array().unwrap().len(), 1, "not taken again at once");
    running.stop().await;
}

#[tokio::test]
async fn progress_and_lines_reach_the_tenant_and_a_cancel_reaches_the_handler() {
    let cell = Cell::with_leases_of(5).await;
    let id = ask(&cell, "long", json!(null)).await;
    let running = Running::start(&cell, |worker| {
        worker.handler("long", |ctx: Context, (): ()| async move {
            ctx.log(Stream::Stdout, "begun").await;
            ctx.progress(json!({ "done": 1 }));
            let why = ctx.cancelled().await;
            ctx.log(Stream::Stderr, why.to_string()).await;
            Err::<(), _>(why.into())
        })
    });
    let began = Instant::now();
    while cell.execution(&id).await["progress"] != json!({ "done": 1 }) {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", cell.execution(&id).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cell.post(&format!("/executions/{id}/cancel"), &cell.tenant, json!({})).await.ok();
    until(&cell, &id, "CANCELLED").await;
    let logs = cell.get(&format!("/executions/{id}/logs"), &cell.tenant).await.ok();
    let lines: Vec<_> = logs["lines"].as_array().unwrap().iter().map(|line| text(&line["text"])).collect();
    assert_eq!(lines, ["begun", "cancelled"]);
    running.stop().await;
}

/// A handler that never ends in its first attempt, and says when it has begun and when it is dropped.
fn first_never_ends(worker: WorkerBuilder, says: mpsc::UnboundedSender<&'static str>) -> WorkerBuilder {
    struct Dropped(mpsc::UnboundedSender<&'static str>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send("dropped").unwrap();
        }
    }
    worker.handler("stuck", move |ctx: Context, (): ()| {
        let guard = Dropped(says.clone());
        async move {
            if ctx.attempt() == 1 {
                guard.0.send("begun").unwrap();
                std::future::pending::<()>().await;
            }
            Ok(ctx.attempt())
        }
    })
}

#[tokio::test]
async fn a_handler_that_loses_its_lease_is_dropped_and_runs_again() {
    let cell = Cell::with_leases_of(5).await;
    let id = ask(&cell, "stuck", json!(null)).await;
    let (says, mut said) = mpsc::unbounded_channel();
    let running = Running::start(&cell, |worker| first_never_ends(worker.concurrency(1), says));
    assert_eq!(said.recv().await, Some("begun"));
    cell.expire_leases().await;
    assert_eq!(said.recv().await, Some("dropped"));
    cell.fall_due().await;
    let seen = until(&cell, &id, "SUCCEEDED").await;
    assert_eq!((&seen["attempts"][0]["outcome"], &seen["result"]), (&json!("expired"), &json!(2)));
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_stops_gives_back_what_does_not_end() {
    let cell = Cell::new().await;
    let id = ask(&cell, "stuck", json!(null)).await;
    let (says, mut said) = mpsc::unbounded_channel();
    let running = Running::start(&cell, |worker| first_never_ends(worker, says.clone()));
    assert_eq!(said.recv().await, Some("begun"));
    running.stop().await;
    assert_eq!(said.recv().await, Some("dropped"));
    let seen = until(&cell, &id, "PENDING").await;
    assert_eq!((&seen["tries"], &seen["attempts"][0]["outcome"]), (&json!(0), &json!("released")));
    let next = Running::start(&cell, |worker| first_never_ends(worker, says));
    until(&cell, &id, "SUCCEEDED").await;
    next.stop().await;
}

#[tokio::test]
async fn a_handler_hears_of_its_time_limit() {
    let cell = Cell::new().await;
    let job = json!({"name": "slow", "timeout_seconds": 1, "retry": {"max_attempts": 1}});
    let id = cell.run(&cell.new_job(job).await).await;
    let (says, mut said) = mpsc::unbounded_channel();
    let running = Running::start(&cell, |worker| {
        worker.handler("slow", move |ctx: Context, (): ()| {
            let says = says.clone();
            async move {
                says.send(ctx.cancelled().await).unwrap();
                std::future::pending::<Result<(), JobError>>().await
            }
        })
    });
    assert_eq!(said.recv().await, Some(StopReason::TimedOut));
    let seen = until(&cell, &id, "FAILED").await;
    assert_eq!(seen["attempts"][0]["outcome"], "timed_out");
    assert_eq!(seen["error"], "timed out after 1 s");
    running.stop().await;
}

#[tokio::test]
async fn the_example_resizes_and_stops_when_it_is_asked_to() {
    let cell = Cell::new().await;
    let job = json!({"name": "resize", "command": ["resize"], "queue": "images"});
    let job = text(&cell.post("/jobs", &cell.tenant, job).await.ok()["id"]);
    let mut worker = Process::of(&example("resize"), &cell.url, &cell.worker, |command| {
        command.stderr(Stdio::null());
    });
    let ask = async |input: Value| {
        let asked =
            cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({ "input": input })).await.ok();
        text(&asked["execution_id"])
    };
    let good = ask(json!({"rows": [[1, 2], [3, 4]], "width": 4, "height": 2})).await;
    let bad = ask(json!({"rows": [[1, 2], [3]], "width": 4, "height": 2})).await;
    let rows = json!([[1, 1, 2, 2], [3, 3, 4, 4]]);
    assert_eq!(until(&cell, &good, "SUCCEEDED").await["result"], json!({ "rows": rows }));
    assert_eq!(until(&cell, &bad, "FAILED").await["tries"], 1);
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = worker.process.wait().unwrap();
    assert!(ended.success(), "{ended}");
}
