//! Real work through a network that loses, delays and repeats, while workers are killed; then its history is checked.

use jobplane_protocol::{JobId, RunsResponse};
use jobplane_tests::checker::{Attempt, Execution, History, ledger_job};
use jobplane_tests::{Cell, Faults, Proxy, Worker};
use jobplane_worker::{Client, Credential};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How often a worker is killed.
const KILL_INTERVAL: Duration = Duration::from_secs(2);
/// Workers of a run.
const WORKERS: usize = 3;

/// A cell behind a proxy, and the work that went through it.
struct Run {
    cell: Cell,
    proxy: Proxy,
    place: tempfile::TempDir,
    acknowledged: Vec<String>,
}

impl Run {
    /// Asks for so many executions, through the proxy.
    async fn ask(cell: Cell, faults: Faults, count: usize, work: &str) -> Self {
        let seed = rand::random();
        eprintln!("seed of the faults: {seed}");
        let place = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(&cell.url, faults, seed).await;
        let client = Client::new(&proxy.url, Credential::Value(cell.tenant.clone())).unwrap();
        let job: JobId = cell
            .new_job(json!({
                "command": ledger_job(work), "env": {"LEDGER": place.path().join("ledger")},
                "retry": {"max_attempts": 20, "backoff_seconds": 1, "backoff_factor": 1.0},
            }))
            .await
            .parse()
            .unwrap();
        let mut acknowledged = Vec::new();
        for index in 0..count.div_ceil(50) {
            let body = json!({"runs": vec![json!({}); (count - index * 50).min(50)]});
            let call = client.post(format!("/jobs/{job}/runs")).json(&body);
            let answer: RunsResponse =
                call.header("idempotency-key", format!("call {index}")).send().await.unwrap();
            acknowledged.extend(answer.execution_ids.iter().map(ToString::to_string));
        }
        Self { cell, proxy, place, acknowledged }
    }

    fn log(&self, worker: usize) -> PathBuf {
        self.place.path().join(format!("worker-{worker}.log"))
    }

    /// Three workers that reach the control plane through the proxy.
    fn workers(&self) -> Vec<Worker> {
        (0..WORKERS)
            .map(|number| {
                let log = std::fs::File::options().create(true).append(true).open(self.log(number)).unwrap();
                Worker::start(&self.proxy.url, &self.cell.worker, |command| {
                    command.env("JOBPLANE_LOG_FORMAT", "pretty").stderr(log);
                })
            })
            .collect()
    }

    /// Waits until nothing is in flight any more, doing something every two seconds meanwhile.
    async fn until_done(&self, mut meanwhile: impl FnMut()) {
        let (began, mut turns) = (Instant::now(), tokio::time::interval(KILL_INTERVAL));
        while self.cell.in_flight().await > 0 {
            assert!(began.elapsed() < LIMIT, "{} rows are still in flight", self.cell.in_flight().await);
            turns.tick().await;
            meanwhile();
        }
    }

    async fn history(&self) -> History {
        let ledger = std::fs::read_to_string(self.place.path().join("ledger")).unwrap();
        History::read(&self.cell, &self.acknowledged, &ledger).await
    }
}

/// Nothing is violated, or it is said what.
#[track_caller]
fn holds(history: &History) {
    let violations = history.violations();
    let said: Vec<_> = violations.iter().take(5).map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{} violations, such as\n{}", violations.len(), said.join("\n"));
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_loses_repeats_and_resets_spends_no_attempt() {
    let faults = Faults { drop_before: 5, drop_after: 10, delay: 5, duplicate: 5, reset: 5 };
    let run = Run::ask(Cell::new().await, faults, 400, "true").await;
    let workers = run.workers();
    run.until_done(|| {}).await;
    drop(workers);
    assert!(run.proxy.faulty() > 50, "{} faults are too few to tell", run.proxy.faulty());
    let history = run.history().await;
    holds(&history);
    for (id, execution) in &history.executions {
        assert_eq!(execution.status, "SUCCEEDED", "{id}");
        assert_eq!(
            (execution.attempts.len(), execution.started.len()),
            (1, 1),
            "{id} took more than one attempt"
        );
    }
    let errors: Vec<_> = (0..WORKERS).map(|worker| read(&run.log(worker))).collect();
    assert!(!errors.concat().contains("ERROR"), "{errors:?}");
}

/// Work under the hardest of both: a random worker killed every two seconds, one answer in ten lost.
async fn kills_and_losses(executions: usize) {
    let cell = Cell::with_leases_of(5).await;
    let faults = Faults { drop_after: 10, ..Faults::default() };
    let run = Run::ask(cell, faults, executions, "sleep 0.2").await;
    let mut workers = run.workers();
    let mut dice = StdRng::seed_from_u64(rand::random());
    let mut kills = 0;
    run.until_done(|| {
        workers[dice.random_range(0..WORKERS)].kill_and_restart();
        kills += 1;
    })
    .await;
    drop(workers);
    let history = run.history().await;
    holds(&history);
    let attempts: Vec<_> = history.executions.values().flat_map(|execution| &execution.attempts).collect();
    let expired = attempts.iter().filter(|attempt| attempt.outcome == "expired").count();
    eprintln!(
        "{executions} executions, {kills} kills, {} attempts, {expired} of them expired",
        attempts.len()
    );
    assert!(expired > 0, "nobody was at work when killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_every_two_seconds_and_answers_lost_end_every_execution_once() {
    kills_and_losses(300).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn three_thousand_executions_end_once_while_workers_are_killed_and_answers_lost() {
    kills_and_losses(3_000).await;
}

/// What a broken platform would leave behind, done to a sound history by hand.
type Breakage = (&'static str, fn(&mut History));

const BREAKAGES: [Breakage; 11] = [
    ("only what was asked for exists", |history| history.unasked = 1),
    ("nothing stays in flight", |history| history.in_flight = 1),
    ("every execution reaches one final state", |history| first(history).status = "RUNNING".to_owned()),
    ("every execution reaches one final state", |history| first(history).attempts.clear()),
    ("every execution reaches one final state", |history| {
        let again =
            Attempt { number: 2, tries: 2, lease_id: Some(uuid::Uuid::nil()), ..last(history).clone() };
        first(history).attempts.push(again);
    }),
    ("nothing follows the final state", |history| {
        let released = Attempt { number: 2, status: "RETRYING".to_owned(), ..last(history).clone() };
        first(history).attempts.push(released);
    }),
    ("attempts are numbered from 1 without a gap", |history| last(history).number = 2),
    ("no two leases overlap", |history| {
        let before = Attempt { finished_at: jiff::Timestamp::MAX, ..last(history).clone() };
        first(history).attempts.insert(0, before);
    }),
    ("every spent try has its attempt, and no more are spent than allowed", |history| {
        last(history).tries = 2;
    }),
    ("an attempt is started once, and only if it was leased", |history| first(history).started = vec![1, 1]),
    ("what is reported as succeeded was done", |history| first(history).finished.clear()),
];

fn first(history: &mut History) -> &mut Execution {
    history.executions.values_mut().next().unwrap()
}

fn last(history: &mut History) -> &mut Attempt {
    first(history).attempts.last_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_sees_what_it_is_there_to_see() {
    let run = Run::ask(Cell::new().await, Faults::default(), 2, "true").await;
    let workers = run.workers();
    run.until_done(|| {}).await;
    drop(workers);
    let sound = run.history().await;
    holds(&sound);
    for (rule, breakage) in BREAKAGES {
        let mut broken = sound.clone();
        breakage(&mut broken);
        let seen = broken.violations();
        assert!(seen.iter().any(|violation| violation.rule == rule), "{rule}: not seen in {seen:?}");
    }
}
