//! What a fleet of workers asks of a control plane while there is nothing to do, and when that comes back.

use super::plane::Plane;
use super::report::Report;
use super::stand::Stand;
use crate::Cell;
use crate::connections::connections;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use jobplane_functions::router;
use jobplane_worker::{Context, Worker};
use serde_json::Value;
use std::collections::HashSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Workers of the fleet.
const WORKERS: usize = 1_000;
/// A process with this variable is that fleet.
const FLEET: &str = "JOBPLANE_BENCH_FLEET";
/// So long after all are there, every worker waits as long as it ever does.
const SETTLING: Duration = Duration::from_secs(20);
/// How long the steady state is counted.
const STEADY: Duration = Duration::from_secs(30);
/// How long the control plane is away.
const AWAY: Duration = Duration::from_secs(20);
/// How long arrivals are counted after its return, in seconds: the longest wait after a failed request.
const WINDOW: usize = 10;
/// Connections to the database that the control plane may have.
const POOL: usize = 16;
/// What the control plane asks an idle worker to wait, and the longest that a worker adds: docs/worker.md has the formula.
const POLL_AFTER: Duration = Duration::from_millis(500);
const LONGEST_ADDED: Duration = Duration::from_secs(5);

const PROMISED: &str = "steady requests as the formula has them";
const STEADILY: &str = "steady requests as they arrived";
const RATIO: &str = "arrived / promised";
const ALL: &str = "requests after the return: busiest second / mean";
const FIRST: &str = "workers' first requests after the return: busiest second / mean";
const FIRST_SURGE: &str = "their busiest second / a second of the steady state";
const SURGE: &str = "busiest second after the return / a second of the steady state";
const DATABASE: &str = "connections of the workers' process to the database";
const OTHERS: &str = "connections to the database, the control plane's and the one that counts them";
const PLANE: &str = "connections of the workers' process to the control plane";
const HEARD: &str = "workers that were heard within the window";

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let workers = stand.size(WORKERS);
    report.parameter(
        "workers",
        format!("{workers} of the library, in one process of their own, started at once"),
    );
    report.parameter("away", format!("{AWAY:?}; the port refuses meanwhile"));
    for _ in 0..stand.rounds {
        let cell = stand.cell(60, POOL).await;
        round(stand, &cell, workers, report).await;
        stand.discard(cell).await;
    }
    report.at_most("an idle fleet asks as often as the formula says", RATIO, 1.05);
    report.at_least("and no more seldom", RATIO, 0.9);
    report.at_most("no thundering herd after the control plane's return", ALL, 2.0);
    report.at_most("nor a surge over what is usual", SURGE, 2.0);
    report.at_most("workers come back no faster than they ask when idle", FIRST_SURGE, 1.0);
    report.at_least(
        "every worker is back within the longest wait (and what the network adds)",
        HEARD,
        workers as f64,
    );
    report.at_most("workers have no connections to the database", DATABASE, 0.0);
    report.at_most("all that the database sees are the control plane's", OTHERS, POOL as f64 + 1.0);
    report.at_least(
        "while each has one to the control plane, which is counted in the same way",
        PLANE,
        workers as f64 * 0.9,
    );
}

async fn round(stand: &Stand, cell: &Arc<Cell>, workers: usize, report: &mut Report) {
    let arrivals = Arrivals::default();
    let plane = Plane::start(arrivals.noted(cell), "127.0.0.1:0").await;
    let address = plane.address.clone();
    stand.say("the fleet starts");
    let fleet = Fleet::start(workers, &address, &cell.worker);
    arrivals.heard(workers).await;
    stand.say("all of it is there");
    tokio::time::sleep(SETTLING).await;
    stand.say("the steady state");
    arrivals.take();
    let began = Instant::now();
    tokio::time::sleep(STEADY).await;
    let steady = arrivals.take().len() as f64 / began.elapsed().as_secs_f64();
    let promised = workers as f64 / (POLL_AFTER + LONGEST_ADDED / 2).as_secs_f64();
    report.figure(PROMISED, "a second", promised);
    report.figure(STEADILY, "a second", steady);
    report.figure(RATIO, "", steady / promised);
    report.figure(PLANE, "", fleet.connections(port(&address)) as f64);
    report.figure(DATABASE, "", fleet.connections(port(&cell.database_url)) as f64);
    let clients = "select count(*) from pg_stat_activity where backend_type = 'client backend' and datname = current_database()";
    report.figure(OTHERS, "", cell.number(clients).await as f64);

    stand.say("the control plane is away");
    plane.stop().await;
    tokio::time::sleep(AWAY).await;
    stand.say("the control plane is back");
    arrivals.take();
    let plane = Plane::start(arrivals.noted(cell), &address).await;
    let returned = Instant::now();
    // A second more than the window, for who waited longest and had to connect.
    tokio::time::sleep(Duration::from_secs(WINDOW as u64 + 1)).await;
    let arrived = arrivals.take();
    let mut known = HashSet::new();
    let first: Vec<_> = arrived.iter().filter(|(worker, _)| known.insert(worker.clone())).collect();
    let first = by_second(first.into_iter().map(|(_, at)| *at - returned));
    let all = by_second(arrived.iter().map(|(_, at)| *at - returned));
    stand.say(&format!("by second: all {all:?}, first of a worker {first:?}"));
    report.figure(ALL, "", peak(&all));
    report.figure(FIRST, "", peak(&first));
    let surge = |counts: &[usize]| counts.iter().max().map_or(f64::NAN, |&most| most as f64) / steady;
    report.figure(SURGE, "", surge(&all));
    report.figure(FIRST_SURGE, "", surge(&first));
    report.figure(HEARD, "", known.len() as f64);
    fleet.stop().await;
    plane.stop().await;
}

/// How many in each second of the window.
fn by_second(arrivals: impl Iterator<Item = Duration>) -> Vec<usize> {
    let mut counts = vec![0; WINDOW];
    for second in arrivals.map(|at| at.as_secs() as usize).filter(|&second| second < WINDOW) {
        counts[second] += 1;
    }
    counts
}

/// The most in a second, in means.
fn peak(counts: &[usize]) -> f64 {
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    counts.iter().max().map_or(f64::NAN, |&most| most as f64 / mean)
}

fn port(url: &str) -> u16 {
    let authority = url.rsplit('@').next().and_then(|rest| rest.split('/').next());
    let port = authority.and_then(|authority| authority.rsplit(':').next());
    port.and_then(|port| port.parse().ok()).expect("a URL with a port")
}

/// Who asked for work, and when.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Vec<(String, Instant)>>>);

impl Arrivals {
    /// Those since the last time.
    fn take(&self) -> Vec<(String, Instant)> {
        std::mem::take(&mut self.0.lock().expect("no holder panics"))
    }

    /// Waits until so many workers have asked.
    async fn heard(&self, workers: usize) {
        let count = || {
            let arrived = self.0.lock().expect("no holder panics");
            arrived.iter().map(|(worker, _)| worker).collect::<HashSet<_>>().len()
        };
        while count() < workers {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The routes of the control plane, with a note of who asks for work.
    fn noted(&self, cell: &Cell) -> Router {
        let arrivals = self.clone();
        router(cell.app.clone()).layer(from_fn(move |request, next| arrivals.clone().note(request, next)))
    }

    async fn note(self, request: Request, next: Next) -> axum::response::Response {
        let at = Instant::now();
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("it arrives whole");
        if head.uri.path().ends_with("/dequeue") {
            let asked: Value = serde_json::from_slice(&body).expect("JSON");
            let worker = crate::text(&asked["worker_id"]);
            self.0.lock().expect("no holder panics").push((worker, at));
        }
        next.run(Request::from_parts(head, Body::from(body))).await
    }
}

/// The workers, as a process of their own: this program once more.
struct Fleet {
    process: Child,
}

impl Fleet {
    fn start(workers: usize, address: &str, token: &str) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command
            .env(FLEET, workers.to_string())
            .env("JOBPLANE_URL", format!("http://{address}"))
            .env("JOBPLANE_WORKER_TOKEN", token)
            .stdin(Stdio::piped())
            .kill_on_drop(true);
        Self { process: command.spawn().expect("it starts") }
    }

    /// How many TCP connections it has to this port.
    fn connections(&self, port: u16) -> usize {
        connections(self.process.id().expect("it runs"), port)
    }

    /// Ends it, and waits for that.
    async fn stop(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().await.expect("it is a child").success(), "the workers end well");
    }
}

/// Is the fleet that the environment describes, until standard input ends; none if it describes none.
pub(super) async fn fleet() -> Option<anyhow::Result<()>> {
    let workers = std::env::var(FLEET).ok()?.parse().ok()?;
    Some(run(workers).await)
}

async fn run(workers: usize) -> anyhow::Result<()> {
    let (url, token) = (std::env::var("JOBPLANE_URL")?, std::env::var("JOBPLANE_WORKER_TOKEN")?);
    let (over, stop) = tokio::sync::watch::channel(false);
    let mut fleet = JoinSet::new();
    for place in 0..workers {
        let worker = Worker::builder()
            .url(&url)
            .token(&token)
            .concurrency(1)
            .worker_id(format!("idle-{place}"))
            .handler("nothing", |_: Context, (): ()| async { Ok(()) })
            .build()?;
        let mut stop = stop.clone();
        fleet.spawn(worker.run_until(async move { drop(stop.wait_for(|&stop| stop).await) }));
    }
    tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await??;
    over.send_replace(true);
    while let Some(ended) = fleet.join_next().await {
        ended??;
    }
    Ok(())
}
