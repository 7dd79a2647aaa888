//! What a worker costs for each job that does nothing, beside starting the same command plainly, and what it holds idle.

use super::report::Report;
use super::stand::Stand;
use crate::Worker;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

/// Jobs of one round.
const JOBS: usize = 2_000;
/// What each of them runs.
const COMMAND: &str = "true";
/// How long after its last job a worker counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(2);

const PLAIN_CPU: &str = "plain fork, exec and wait: CPU";
const WORKER_CPU: &str = "a worker with all that it starts: CPU";
const CPU: &str = "a worker's CPU / plain";
const PLAIN_WALL: &str = "plain fork, exec and wait, one on each core: time";
const WORKER_WALL: &str = "a worker with a slot for each core: time";
const WALL: &str = "a worker's time / plain";
const RSS: &str = "a worker's resident memory when idle";

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let jobs = stand.size(JOBS);
    let slots = std::thread::available_parallelism().map_or(1, usize::from);
    report.parameter("jobs", format!("{jobs} of `{COMMAND}`, without input, result or output"));
    report.parameter("slots", format!("{slots}, one for each core"));
    for _ in 0..stand.rounds {
        stand.say("plain");
        let plain = tokio::task::spawn_blocking(move || plain(jobs, slots)).await.expect("it does not panic");
        stand.say("a worker");
        let (worker, kilobytes) = worker(jobs, slots).await;
        for (of, cpu, wall) in [(&plain, PLAIN_CPU, PLAIN_WALL), (&worker, WORKER_CPU, WORKER_WALL)] {
            report.figure(cpu, "µs a job", per_job(of.cpu, jobs));
            report.figure(wall, "µs a job", per_job(of.wall, jobs));
        }
        report.figure(CPU, "", worker.cpu.as_secs_f64() / plain.cpu.as_secs_f64());
        report.figure(WALL, "", worker.wall.as_secs_f64() / plain.wall.as_secs_f64());
        report.figure(RSS, "MB", f64::from(kilobytes) / 1_000.0);
    }
    report.at_most(
        "a job that does nothing costs a worker at most half more than starting it plainly",
        CPU,
        1.5,
    );
    report.at_most("and takes at most half more time", WALL, 1.5);
    report.at_most("an idle worker is small", RSS, 15.0);
}

/// What all the jobs of a round took.
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn per_job(of: Duration, jobs: usize) -> f64 {
    of.as_secs_f64() * 1e6 / jobs as f64
}

/// CPU time of all children that have been waited for, and of theirs.
fn of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it is always known");
    let micros = |time: TimeVal| time.num_microseconds().unsigned_abs();
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Starts the command and waits for it, over and over.
fn plain(jobs: usize, at_once: usize) -> Cost {
    let (began, before) = (Instant::now(), of_children());
    std::thread::scope(|scope| {
        for place in 0..at_once {
            let share = (jobs + place) / at_once;
            scope.spawn(move || {
                for _ in 0..share {
                    let mut command = Command::new(COMMAND);
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(command.status().expect("it starts").success());
                }
            });
        }
    });
    Cost { cpu: of_children() - before, wall: began.elapsed() }
}

/// A worker does the same, for a controller that does nothing but hand it out; and its memory afterwards, in kB.
async fn worker(jobs: usize, slots: usize) -> (Cost, u32) {
    let controller = Arc::new(Controller { left: Mutex::new((jobs, None)), done: watch::Sender::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let service = axum::serve(listener, controller.clone().router());
    let serving = tokio::spawn(service.into_future());
    let before = of_children();
    let worker = Worker::start(&url, "jp_worker_x", |command| {
        command.env("JOBPLANE_CONCURRENCY", slots.to_string()).stderr(Stdio::null());
    });
    let mut done = controller.done.subscribe();
    done.wait_for(|&done| done == jobs).await.expect("the controller is there");
    let ended = Instant::now();
    let began = controller.left.lock().expect("no holder panics").1.expect("it has asked");
    tokio::time::sleep(IDLE_AFTER).await;
    let kilobytes = worker.memory("VmRSS");
    drop(worker);
    serving.abort();
    (Cost { cpu: of_children() - before, wall: ended - began }, kilobytes)
}

/// A controller without a database.
struct Controller {
    /// Executions not yet handed out, and when the first were.
    left: Mutex<(usize, Option<Instant>)>,
    done: watch::Sender<usize>,
}

impl Controller {
    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/internal/executions/dequeue", post(Self::dequeue))
            .route("/internal/executions/heartbeats", post(Self::heartbeats))
            .route("/internal/executions/results", post(Self::results))
            .with_state(self)
    }

    async fn dequeue(State(of): State<Arc<Self>>, Json(asked): Json<Value>) -> Json<Value> {
        let limit = usize::try_from(asked["limit"].as_u64().expect("a limit")).expect("it is small");
        let mut left = of.left.lock().expect("no holder panics");
        left.1.get_or_insert_with(Instant::now);
        let count = left.0.min(limit);
        left.0 -= count;
        let executions: Vec<_> = (0..count).map(|_| execution()).collect();
        Json(json!({
            "lease_id": asked["lease_id"], "lease_expires_at": "2100-01-01T00:00:00Z",
            "heartbeat_interval_ms": 20_000, "poll_after_ms": 0, "executions": executions,
        }))
    }

    async fn heartbeats(Json(asked): Json<Value>) -> Json<Value> {
        let held = |item: &Value| json!({"execution_id": item["execution_id"], "state": "held"});
        let results: Vec<_> = asked["leases"].as_array().expect("a list").iter().map(held).collect();
        Json(json!({"lease_expires_at": "2100-01-01T00:00:00Z", "results": results}))
    }

    async fn results(State(of): State<Arc<Self>>, Json(asked): Json<Value>) -> Json<Value> {
        let items = asked["results"].as_array().expect("a list");
        let taken = |item: &Value| {
            assert_eq!(item["outcome"], "succeeded", "{item}");
            json!({"execution_id": item["execution_id"], "status": "SUCCEEDED"})
        };
        let results: Vec<_> = items.iter().map(taken).collect();
        of.done.send_modify(|done| *done += results.len());
        Json(json!({"results": results}))
    }
}

fn execution() -> Value {
    let job =
        json!({"id": Uuid::new_v4(), "name": "nothing", "image": null, "command": [COMMAND], "env": {}});
    json!({
        "execution_id": Uuid::new_v4(), "tenant_id": Uuid::new_v4(), "attempt": 1, "tries": 0, "max_attempts": 5,
        "timeout_seconds": 300, "queue": "default", "priority": 0, "job": job, "input": null, "traceparent": null,
    })
}
