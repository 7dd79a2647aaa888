//! Who takes the work: plain HTTP clients that dequeue and report in batches, without running anything.

use super::load::uuid;
use crate::Cell;
use jobplane_protocol::limits::MAX_BATCH;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

/// How long what was asked for is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// One execution that a dequeuer was given.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) id: Uuid,
    pub(super) lease: Uuid,
    pub(super) tenant: Uuid,
    pub(super) priority: i64,
    /// When the answer had arrived.
    pub(super) at: Instant,
}

/// What a dequeue asks for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) token: String,
    pub(super) queue: String,
    pub(super) limit: usize,
    pub(super) worker: &'static str,
}

impl Ask {
    /// Of the default queue, with the cell's unscoped token.
    pub(super) fn new(cell: &Cell, limit: usize) -> Self {
        Self { token: cell.worker.clone(), queue: "default".to_owned(), limit, worker: "bench" }
    }

    /// Of another queue.
    pub(super) fn of(self, queue: &str) -> Self {
        Self { queue: queue.to_owned(), ..self }
    }

    /// Dequeues with a fresh lease: what it was given and how long it took.
    pub(super) async fn dequeue(&self, cell: &Cell) -> (Vec<Taken>, Duration) {
        let lease = Uuid::new_v4();
        let body = json!({
            "lease_id": lease, "worker_id": self.worker, "limit": self.limit, "queues": [self.queue],
        });
        let asked = Instant::now();
        let answer = cell.post("/internal/executions/dequeue", &self.token, body).await.ok();
        let at = Instant::now();
        let taken = |row: &Value| Taken {
            id: uuid(&row["execution_id"]),
            lease,
            tenant: uuid(&row["tenant_id"]),
            priority: row["priority"].as_i64().expect("a number"),
            at,
        };
        (answer["executions"].as_array().expect("a list").iter().map(taken).collect(), at - asked)
    }

    /// Reports that all of these succeeded.
    pub(super) async fn succeed(&self, cell: &Cell, taken: &[Taken]) {
        for batch in taken.chunks(MAX_BATCH) {
            self.report(cell, batch, json!({"outcome": "succeeded"})).await;
        }
    }

    /// Sends a heartbeat for all of these: how many are still held.
    pub(super) async fn renew(&self, cell: &Cell, taken: &[Taken]) -> usize {
        let mut held = 0;
        for batch in taken.chunks(MAX_BATCH) {
            let lease = |of: &Taken| json!({"execution_id": of.id, "lease_id": of.lease});
            let body = json!({"leases": batch.iter().map(lease).collect::<Vec<_>>()});
            let answer = cell.post("/internal/executions/heartbeats", &self.token, body).await.ok();
            let results = answer["results"].as_array().expect("a list");
            held += results.iter().filter(|result| result["state"] == "held").count();
        }
        held
    }

    /// Reports the same result of a batch of these.
    pub(super) async fn report(&self, cell: &Cell, taken: &[Taken], result: Value) {
        let results: Vec<_> = taken
            .iter()
            .map(|of| {
                let mut result = result.clone();
                (result["execution_id"], result["lease_id"]) = (json!(of.id), json!(of.lease));
                result
            })
            .collect();
        cell.post("/internal/executions/results", &self.token, json!({"results": results})).await.ok();
    }
}

/// How a fleet works.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner {
    /// Dequeuers.
    pub(super) size: u32,
    /// How often each dequeues, if it is not behind: so a fleet has the same capacity whatever waits. At once if none.
    pub(super) pace: Option<Duration>,
    /// Of so many dequeues one is a worker's last: what it was given is never heard of again. None if zero.
    pub(super) killed_in: u32,
}

/// Dequeuers that run until they are stopped.
pub(super) struct Fleet {
    dequeuers: JoinSet<()>,
    stop: watch::Sender<bool>,
    taken: Arc<Mutex<Vec<Taken>>>,
    calls: Arc<AtomicUsize>,
    abandoned: Arc<AtomicUsize>,
}

impl Fleet {
    /// Starts dequeuers, each of which dequeues and reports, and again.
    pub(super) fn start(cell: &Arc<Cell>, ask: &Ask, manner: Manner) -> Self {
        let mut fleet = Self {
            dequeuers: JoinSet::new(),
            stop: watch::Sender::new(false),
            taken: Arc::default(),
            calls: Arc::default(),
            abandoned: Arc::default(),
        };
        for place in 0..manner.size {
            let (cell, ask, stopped) = (cell.clone(), ask.clone(), fleet.stop.subscribe());
            let (all, calls, abandoned) = (fleet.taken.clone(), fleet.calls.clone(), fleet.abandoned.clone());
            fleet.dequeuers.spawn(async move {
                let mut clock = manner.pace.map(|pace| staggered(pace, pace * place / manner.size));
                while !*stopped.borrow() {
                    if let Some(clock) = &mut clock {
                        clock.tick().await;
                    }
                    let (taken, _) = ask.dequeue(&cell).await;
                    calls.fetch_add(1, Ordering::Relaxed);
                    all.lock().expect("no dequeuer panics with it").extend(&taken);
                    if manner.killed_in > 0 && rand::random_ratio(1, manner.killed_in) {
                        abandoned.fetch_add(taken.len(), Ordering::Relaxed);
                    } else {
                        ask.succeed(&cell, &taken).await;
                    }
                }
            });
        }
        fleet
    }

    /// What has been taken, in the order in which it arrived.
    pub(super) fn taken(&self) -> Arc<Mutex<Vec<Taken>>> {
        self.taken.clone()
    }

    /// How many have been taken.
    pub(super) fn count(&self) -> usize {
        self.taken.lock().expect("no dequeuer panics with it").len()
    }

    /// How many dequeues have been answered.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many were lost with their workers.
    pub(super) fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Waits until so many were taken.
    pub(super) async fn reach(&self, count: usize) {
        while self.count() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How long each of these took from when it was to start until a dequeuer had it, in milliseconds. After a few
    /// seconds no longer waited for: then it took that long.
    pub(super) async fn waits(&self, asked: &HashMap<Uuid, Instant>) -> Vec<f64> {
        let began = Instant::now();
        let mut arrived: HashMap<Uuid, Instant> = HashMap::new();
        while began.elapsed() < PATIENCE && !asked.keys().all(|id| arrived.contains_key(id)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            arrived = self
                .taken
                .lock()
                .expect("no dequeuer panics with it")
                .iter()
                .map(|of| (of.id, of.at))
                .collect();
        }
        let ended = Instant::now();
        let wait =
            |(id, from): (_, &Instant)| (*arrived.get(id).unwrap_or(&ended) - *from).as_secs_f64() * 1e3;
        asked.iter().map(wait).collect()
    }

    /// Lets every dequeuer finish its round: all that was taken.
    pub(super) async fn stop(mut self) -> Vec<Taken> {
        self.stop.send_replace(true);
        while let Some(ended) = self.dequeuers.join_next().await {
            ended.expect("every call is answered");
        }
        std::mem::take(&mut self.taken.lock().expect("no dequeuer panics with it"))
    }
}

/// A clock that begins so much later, so that many do not strike at once, and does not catch up.
pub(super) fn staggered(pace: Duration, later: Duration) -> Interval {
    let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + later, pace);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock
}
