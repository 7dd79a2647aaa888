//! What an absence of the control plane, longer than a lease, does to what was running.

use super::fleet::{Ask, Taken};
use super::load::{fill, tenant};
use super::plane::Plane;
use super::report::Report;
use super::stand::Stand;
use crate::Cell;
use jobplane_functions::router;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// Executions that run when the control plane goes away.
const RUNNING: usize = 10_000;
/// One worker in so many dies meanwhile.
const DEAD_IN: usize = 10;
/// What a worker holds.
const OF_WORKER: usize = 100;
/// Rows that wait.
const WAITING: usize = 50_000;
/// Longer than a tick may be late before it counts as an outage.
const OUTAGE: Duration = Duration::from_secs(100);
/// When it is to be quick, the rows are as old as after that.
const QUICK_OUTAGE: Duration = Duration::from_secs(3);
const MOVE_TIMES: &str = "
  update ticks set ticked_at = ticked_at - interval '100 seconds', heard_at = heard_at - interval '100 seconds';
  update workers set last_seen_at = last_seen_at - interval '100 seconds';
  update leases set expires_at = expires_at - interval '100 seconds'";
/// How long a worker waits after a failed call, on average.
const RETRY: Duration = Duration::from_secs(1);
/// Two ticks: one a second finds expired leases, a thousand at most.
const GRAIN: Duration = Duration::from_secs(3);

const LOST: &str = "leases of living workers that were ended";
const LATE: &str = "from the return until the dead workers' leases were ended";
const FIRST: &str = "from the return until a dequeue was answered";
const HEARD: &str = "from the return until every living worker was heard";

pub(super) async fn measure(stand: &Stand, report: &mut Report) {
    let running = stand.size(RUNNING);
    let lease = Duration::from_secs(if stand.quick { 5 } else { 60 });
    report.parameter(
        "running",
        format!("{running}, of workers with {OF_WORKER} each, of which every tenth dies"),
    );
    report.parameter(
        "lease",
        format!("{lease:?}, a heartbeat every third of it, failed calls again after 1 s"),
    );
    report.parameter("outage", if stand.quick { "3 s, and the rows' times moved by 100 s" } else { "100 s" });
    for _ in 0..stand.rounds {
        let cell = stand.cell(lease.as_secs() as i32, 16).await;
        let tenant = tenant(&cell, json!({}), json!({})).await;
        fill(&cell, &tenant, stand.size(WAITING), &json!({})).await;
        round(stand, &cell, running, lease, report).await;
        stand.discard(cell).await;
    }
    report.at_most("no mass expiry after an outage: a living worker keeps its leases", LOST, 0.0);
    report.at_most(
        "a dead worker's leases are ended within one lease of the return (and two ticks)",
        LATE,
        (lease + GRAIN).as_secs_f64(),
    );
}

async fn round(stand: &Stand, cell: &Arc<Cell>, running: usize, lease: Duration, report: &mut Report) {
    let plane = Plane::start(router(cell.app.clone()), "127.0.0.1:0").await;
    let address = plane.address.clone();
    stand.say("workers take what they run");
    let (stop, stopped) = watch::channel(false);
    let (mut living, mut dead) = (Vec::new(), 0);
    for place in 0..running / OF_WORKER {
        let dies = place % DEAD_IN == 0;
        let worker = if dies { "dead" } else { "living" };
        let (held, _) = Ask { worker, ..Ask::new(cell, OF_WORKER) }.dequeue(cell).await;
        if dies {
            dead += held.len();
        } else {
            let worker =
                Worker { url: address.clone(), token: cell.worker.clone(), stopped: stopped.clone() };
            living.push(tokio::spawn(worker.beat(held, lease / 3)));
        }
    }
    stand.say("the control plane is gone");
    plane.stop().await;
    let gone = Instant::now();
    tokio::time::sleep(if stand.quick { QUICK_OUTAGE } else { OUTAGE }).await;
    if stand.quick {
        cell.db.batch_execute(MOVE_TIMES).await.expect("times can be moved");
    }
    stand.say("the control plane is back");
    let returned = Instant::now();
    report.figure("the control plane was gone", "s", (returned - gone).as_secs_f64());
    let plane = Plane::start(router(cell.app.clone()), &address).await;
    let poller = Worker { url: address, token: cell.worker.clone(), stopped };
    let poller = tokio::spawn(poller.poll());
    let expired = "select count(*) from attempts where worker_id = 'dead' and outcome = 'expired'";
    while cell.number(expired).await < dead as i64 && returned.elapsed() < 3 * lease {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    report.figure(LATE, "s", returned.elapsed().as_secs_f64());
    // A living worker's lease could be ended as late as this, if its heartbeat had not renewed it.
    tokio::time::sleep_until((returned + lease + lease / 2).into()).await;
    stop.send_replace(true);
    let since = |at: Instant| at.saturating_duration_since(returned).as_secs_f64();
    report.figure(FIRST, "s", since(poller.await.expect("it polls to the end")));
    let (mut heard, mut lost): (f64, usize) = (0.0, 0);
    for worker in living {
        let (first, gone) = worker.await.expect("it beats to the end");
        (heard, lost) = (heard.max(since(first)), lost + gone);
    }
    report.figure(HEARD, "s", heard);
    report.figure("leases of dead workers", "", dead as f64);
    report.figure(LOST, "", lost as f64);
    plane.stop().await;
}

/// A worker that lives through it.
struct Worker {
    url: String,
    token: String,
    stopped: watch::Receiver<bool>,
}

impl Worker {
    /// Sends heartbeats for what it holds: when the first one after a failure was answered, and how many of its leases
    /// were gone by then or later.
    async fn beat(self, held: Vec<Taken>, every: Duration) -> (Instant, usize) {
        let lease = |of: &Taken| json!({"execution_id": of.id, "lease_id": of.lease});
        let body = json!({"leases": held.iter().map(lease).collect::<Vec<_>>()});
        let http = reqwest::Client::new();
        let (mut back, mut failing, mut lost) = (Instant::now(), false, 0);
        tokio::time::sleep(every.mul_f64(rand::random())).await;
        while !*self.stopped.borrow() {
            match self.call(&http, "heartbeats", &body).await {
                None => {
                    failing = true;
                    tokio::time::sleep(RETRY.mul_f64(0.5 + rand::random::<f64>())).await;
                }
                Some(answer) => {
                    if std::mem::take(&mut failing) {
                        back = Instant::now();
                    }
                    let states = answer["results"].as_array().expect("a list");
                    lost = lost.max(states.iter().filter(|item| item["state"] == "lost").count());
                    tokio::time::sleep(every).await;
                }
            }
        }
        (back, lost)
    }

    /// Asks for work now and then, and does it at once: when the first answer came.
    async fn poll(self) -> Instant {
        let http = reqwest::Client::new();
        let mut first = None;
        while !*self.stopped.borrow() {
            let lease = Uuid::new_v4();
            let body = json!({"lease_id": lease, "worker_id": "poller", "limit": 10});
            if let Some(answer) = self.call(&http, "dequeue", &body).await {
                first.get_or_insert_with(Instant::now);
                let result = |row: &Value| json!({"execution_id": row["execution_id"], "lease_id": lease, "outcome": "succeeded"});
                let results: Vec<_> =
                    answer["executions"].as_array().expect("a list").iter().map(result).collect();
                self.call(&http, "results", &json!({"results": results})).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        first.expect("the control plane is back")
    }

    /// The answer, if there was one.
    async fn call(&self, http: &reqwest::Client, route: &str, body: &Value) -> Option<Value> {
        let url = format!("http://{}/internal/executions/{route}", self.url);
        let sent = http.post(url).bearer_auth(&self.token).json(body).send().await;
        sent.ok()?.error_for_status().ok()?.json().await.ok()
    }
}
