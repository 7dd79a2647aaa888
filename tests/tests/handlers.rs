//! Handlers in a worker of this process, and the example that users copy, against a real control plane.

use crate::worker::{ends_well, eventually, until};
use jobplane_tests::{Cell, Worker as Process, example, text};
use jobplane_worker::{Context, Error, JobError, StopReason, Stream, Worker, WorkerBuilder};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
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
async fn a_worker_that_is_dropped_drops_its_handlers_and_keeps_no_lease() {
    let cell = Cell::with_leases_of(5).await;
    let id = ask(&cell, "stuck", json!(null)).await;
    let (says, mut said) = mpsc::unbounded_channel();
    let dropped = Running::start(&cell, |worker| first_never_ends(worker, says.clone()));
    assert_eq!(said.recv().await, Some("begun"));
    dropped.worker.abort();
    assert_eq!(said.recv().await, Some("dropped"));
    let next = Running::start(&cell, |worker| first_never_ends(worker, says));
    until(&cell, &id, "RETRYING").await;
    cell.fall_due().await;
    let seen = until(&cell, &id, "SUCCEEDED").await;
    assert_eq!(seen["attempts"][0]["outcome"], "expired");
    next.stop().await;
}

/// Says that this program is to be the one that `signals_end_a_program_that_has_dropped_its_worker` looks at.
const DROPS_ITS_WORKER: &str = "JOBPLANE_TEST_DROPS_ITS_WORKER";

#[tokio::test]
async fn signals_end_a_program_that_has_dropped_its_worker() {
    if std::env::var_os(DROPS_ITS_WORKER).is_some() {
        let worker = Worker::builder().url("http://127.0.0.1:1").token("jp_worker_x");
        let worker = worker.handler("none", |_: Context, (): ()| async { Ok(()) }).build().unwrap();
        let running = tokio::spawn(worker.run());
        let is_caught = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
            u64::from_str_radix(caught, 16).unwrap() & (1 << (Signal::SIGTERM as i32 - 1)) != 0
        };
        eventually("SIGTERM is not caught", is_caught).await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        println!("dropped");
        std::future::pending::<()>().await;
    }
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "handlers::signals_end_a_program_that_has_dropped_its_worker"])
        .env(DROPS_ITS_WORKER, "")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.into_iter().any(|line| line.ends_with("dropped")));
    let pid = nix::unistd::Pid::from_raw(program.id().try_into().unwrap());
    // Again and again: the worker's thread may be about to end.
    eventually("SIGTERM does not end it", || {
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        program.try_wait().unwrap().is_some()
    })
    .await;
    assert_eq!(program.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
}

#[tokio::test]
async fn a_worker_drains_when_what_was_to_say_when_to_stop_panics() {
    let cell = Cell::new().await;
    let id = ask(&cell, "waits", json!(null)).await;
    let (begins, mut begun) = mpsc::unbounded_channel();
    let (go, gone) = watch::channel(false);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let worker = Worker::builder().url(&cell.url).token(&cell.worker).metrics_addr(free);
    let worker = worker.drain(Duration::from_secs(600)).handler("waits", move |ctx: Context, (): ()| {
        let (begins, mut gone) = (begins.clone(), gone.clone());
        async move {
            begins.send(()).unwrap();
            tokio::select! {
                biased;
                why = ctx.cancelled() => Err(why.into()),
                gone = gone.wait_for(|gone| *gone) => {
                    assert!(gone.is_ok());
                    Ok(())
                }
            }
        }
    });
    let (panics, panic) = oneshot::channel::<()>();
    let stop = async { panic.await.unwrap() };
    let worker = tokio::spawn(worker.build().unwrap().run_until(stop));
    begun.recv().await.unwrap();
    drop(panics);
    let began = Instant::now();
    loop {
        let ready = reqwest::get(format!("http://{free}/readyz")).await.unwrap();
        if ready.text().await.unwrap().contains("draining") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it does not drain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    go.send_replace(true);
    worker.await.unwrap().unwrap();
    assert_eq!(cell.execution(&id).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn a_handler_that_blocks_its_thread_costs_no_lease() {
    let cell = Cell::with_leases_of(5).await;
    let ids = [ask(&cell, "blocks", json!(null)).await, ask(&cell, "waits", json!(null)).await];
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let worker = Worker::builder().url(&cell.url).token(&cell.worker).concurrency(2);
    let worker = worker
        .handler("blocks", move |_: Context, (): ()| {
            assert!(released.lock().unwrap().recv().is_err(), "it is let go");
            async { Ok(()) }
        })
        .handler("waits", |_: Context, (): ()| async { Ok(()) })
        .build()
        .unwrap();
    // On the only thread that handlers have.
    let (stop, stopped) = oneshot::channel();
    let program = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(worker.run_until(async { stopped.await.unwrap_or_default() }))
    });
    let expires = "select coalesce(extract(epoch from min(expires_at)), 0)::int8 from leases";
    let began = Instant::now();
    while cell.number("select count(*) from leases").await == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = cell.number(expires).await;
    // Two leases long.
    while cell.number(expires).await <= first + 10 {
        assert!(began.elapsed() < Duration::from_secs(60), "the leases are not renewed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(release);
    for id in &ids {
        let seen = until(&cell, id, "SUCCEEDED").await;
        assert_eq!(seen["attempts"].as_array().unwrap().len(), 1, "{seen}");
    }
    stop.send(()).unwrap();
    tokio::task::spawn_blocking(move || program.join()).await.unwrap().unwrap().unwrap();
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
    let worker = Process::of(&example("resize"), &cell.url, &cell.worker, |command| {
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
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
}
