//! What a worker costs for each job that does nothing, beside starting the same command plainly, and what it holds idle.

use super::report::Report;
use super::stand::Stand;
use crate::Worker;
use crate::fleet::shipped_worker;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

/// Jobs of one round.
const JOBS: usize = 2_000;
/// What each of them runs.
const COMMAND: &str = "/bin/true";
/// How many at once: a slot for each core, as a worker has by default, and a worker of many slots.
const SLOTS_A_CORE: [usize; 2] = [1, 8];
/// How long after its last job a worker counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(2);
/// Runs that are asked for in one call.
const RUNS: usize = 500;
/// Between two looks at how many are left.
const PAUSE: Duration = Duration::from_millis(20);

const PLAIN: &str = "plain fork, exec and wait";
const STUB: &str = "a worker, controller without a database";
const REAL: &str = "a worker, real controller";
const RSS: &str = "resident memory of a worker 2 s after its last job";
const CHILDREN: &str = "resident memory of what it keeps for the next, each";

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let jobs = stand.size(JOBS);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.parameter("jobs", format!("{jobs} of `{COMMAND}`, without input, result or output"));
    report.parameter(
        "CPU",
        "user and system time of a worker, its wardens and its jobs; of the plain processes and what starts them",
    );
    report.parameter("time", "from the first dequeue to the last result; the controller shares the cores");
    // What is built here is not measured.
    let program = &shipped_worker();
    report.parameter("worker", "as its image has it (`--profile dist`)");
    for _ in 0..stand.rounds {
        for slots in SLOTS_A_CORE.map(|each| each * cores) {
            stand.say(&format!("{slots} at once"));
            let plain =
                tokio::task::spawn_blocking(move || plain(jobs, slots)).await.expect("it does not panic");
            let mut costs = vec![(PLAIN, plain)];
            costs.push((STUB, stub(program, jobs, slots, report).await));
            costs.push((REAL, real(program, stand, jobs, slots).await));
            for (who, cost) in &costs {
                report.figure(format!("{slots} at once: {who}: CPU"), "µs a job", per_job(cost.cpu, jobs));
                report.figure(format!("{slots} at once: {who}: time"), "µs a job", per_job(cost.wall, jobs));
            }
            let plain = &costs[0].1;
            for (who, cost) in &costs[1..] {
                report.figure(ratio(slots, who, "CPU"), "", cost.cpu.as_secs_f64() / plain.cpu.as_secs_f64());
                report.figure(
                    ratio(slots, who, "time"),
                    "",
                    cost.wall.as_secs_f64() / plain.wall.as_secs_f64(),
                );
            }
        }
    }
    for slots in SLOTS_A_CORE.map(|each| each * cores) {
        let line = "a job that does nothing costs a worker at most half more than starting it plainly";
        report.at_most(line, &ratio(slots, STUB, "CPU"), 1.5);
        report.at_most("and at most 2.5 times with a real controller", &ratio(slots, REAL, "CPU"), 2.5);
    }
    report.at_most("an idle worker is small", RSS, 15.0);
}

fn ratio(slots: usize, who: &str, what: &str) -> String {
    format!("{slots} at once: {who}: {what} / plain")
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
    used(UsageWho::RUSAGE_CHILDREN)
}

fn used(by: UsageWho) -> Duration {
    let usage = getrusage(by).expect("it is always known");
    let micros = |time: TimeVal| time.num_microseconds().unsigned_abs();
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Starts the command and waits for it, over and over, with as many variables as a job has. What this process itself takes for
/// that counts, as it does with a worker. It does nothing else meanwhile.
fn plain(jobs: usize, at_once: usize) -> Cost {
    let cpu = || of_children() + used(UsageWho::RUSAGE_SELF);
    let (began, before) = (Instant::now(), cpu());
    std::thread::scope(|scope| {
        for place in 0..at_once {
            let share = (jobs + place) / at_once;
            scope.spawn(move || {
                for _ in 0..share {
                    let mut command = Command::new(COMMAND);
                    command
                        .env_clear()
                        .envs((0..9).map(|name| (format!("VARIABLE_{name}"), Uuid::new_v4().to_string())));
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(command.status().expect("it starts").success());
                }
            });
        }
    });
    Cost { cpu: cpu() - before, wall: began.elapsed() }
}

/// A worker of so many slots.
fn start(program: &Path, url: &str, token: &str, slots: usize) -> Worker {
    Worker::of(program, url, token, |command| {
        command.env("JOBPLANE_CONCURRENCY", slots.to_string()).stderr(Stdio::null());
    })
}

/// Ends a worker in good order: it waits for all that it has started, so that their time counts as its own.
fn end(mut worker: Worker) {
    worker.signal(Signal::SIGTERM);
    assert!(worker.process.wait().expect("it is a child").success());
}

/// A worker does the same, for a controller that does nothing but hand it out.
async fn stub(program: &Path, jobs: usize, slots: usize, report: &mut Report) -> Cost {
    let controller = Arc::new(Controller { left: Mutex::new((jobs, None)), done: watch::Sender::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let service = axum::serve(listener, controller.clone().router());
    let serving = tokio::spawn(service.into_future());
    let before = of_children();
    let worker = start(program, &url, "jp_worker_x", slots);
    let mut done = controller.done.subscribe();
    done.wait_for(|&done| done == jobs).await.expect("the controller is there");
    let ended = Instant::now();
    let began = controller.left.lock().expect("no holder panics").1.expect("it has asked");
    tokio::time::sleep(IDLE_AFTER).await;
    report.figure(RSS, "MB", f64::from(worker.memory("VmRSS")) / 1_000.0);
    for kilobytes in of_its_children(&worker) {
        report.figure(CHILDREN, "MB", kilobytes / 1_000.0);
    }
    end(worker);
    serving.abort();
    Cost { cpu: of_children() - before, wall: ended - began }
}

/// Resident memory of what a worker has started, in kB.
fn of_its_children(worker: &Worker) -> Vec<f64> {
    let tasks = format!("/proc/{}/task", worker.process.id());
    let lists = std::fs::read_dir(Path::new(&tasks)).expect("it runs").map(|task| {
        std::fs::read_to_string(task.expect("it runs").path().join("children")).unwrap_or_default()
    });
    let pids: Vec<_> =
        lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    pids.iter().map(|pid| f64::from(crate::fleet::memory(pid, "VmRSS"))).collect()
}

/// A worker does the same for a real controller, from its start.
async fn real(program: &Path, stand: &Stand, jobs: usize, slots: usize) -> Cost {
    let cell = stand.cell(60, 8).await;
    let job = cell.new_job(json!({"command": [COMMAND]})).await;
    let mut left = jobs;
    while left > 0 {
        let count = left.min(RUNS);
        cell.run_many(&cell.tenant, &job, count).await;
        left -= count;
    }
    let (before, began) = (of_children(), Instant::now());
    let worker = start(program, &cell.url, &cell.worker, slots);
    while cell.in_flight().await > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    let wall = began.elapsed();
    end(worker);
    let cost = Cost { cpu: of_children() - before, wall };
    stand.discard(cell).await;
    cost
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
