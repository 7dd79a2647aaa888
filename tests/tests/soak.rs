//! Thousands of executions while workers are killed all the time: each ends well, and a minute later nothing is left of
//! any. With `JOBPLANE_TEST_FULL` set, as many as the platform promises; a tenth of them without.

use jobplane_tests::{Cell, Engine, IMAGE, Worker};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Executions by the two runtimes.
const IN_EXEC: usize = 10_000;
const IN_CONTAINERS: usize = 1_000;
/// Executions that are asked for at once.
const BATCH: usize = 1_000;
/// Workers that run at the same time.
const WORKERS: usize = 4;
/// What each execution does: it leaves processes behind in its group and out of it, and a result.
const SCRIPT: &str = r#"sleep 600 & setsid sleep 600 & echo "attempt $JOBPLANE_ATTEMPT"
printf '{"attempt": %s}' "$JOBPLANE_ATTEMPT" > "$JOBPLANE_OUTPUT_DIR/result.json"; sleep 0.2"#;
/// A variable that everything of a run inherits.
const MARK: &str = "SOAK";
/// Variables that all processes of a run have, and those of its attempts alone.
const EVERYTHING: &str = MARK;
const OF_ATTEMPTS: &str = "JOBPLANE_EXECUTION_ID=";
/// How long after the last execution something may still be left.
const LEFT_FOR: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A control plane, and workers that do not live long.
struct Soak {
    cell: Cell,
    engine: Option<Engine>,
    /// Where attempts have their directories. Everything of this run has its path in [`MARK`].
    place: tempfile::TempDir,
    workers: Vec<Worker>,
    kills: usize,
    /// The most that there was at one look: what is never seen would not be missed either.
    most: [usize; 3],
}

/// What there is of executions, each for people.
#[derive(Debug, Default, PartialEq)]
struct Left {
    processes: Vec<String>,
    directories: Vec<String>,
    containers: Vec<String>,
}

impl Left {
    fn counts(&self) -> [usize; 3] {
        [self.processes.len(), self.directories.len(), self.containers.len()]
    }
}

impl Soak {
    async fn new(engine: Option<Engine>) -> Self {
        let (cell, place) = (Cell::with_leases_of(5).await, tempfile::tempdir().unwrap());
        let mut soak = Self { cell, engine, place, workers: vec![], kills: 0, most: [0; 3] };
        soak.workers = (0..WORKERS).map(|_| soak.worker()).collect();
        soak
    }

    fn worker(&self) -> Worker {
        Worker::start(&self.cell.url, &self.cell.worker, |command| {
            command
                .env("TMPDIR", self.place.path())
                .env(MARK, self.place.path())
                .env("JOBPLANE_ENV_ALLOW", MARK)
                .stderr(Stdio::null());
            if let Some(engine) = &self.engine {
                command
                    .env("JOBPLANE_RUNTIME", "container")
                    .env("JOBPLANE_CONTAINER_HOST", engine.socket())
                    .env("JOBPLANE_CONTAINER_PULL", "never")
                    .env("JOBPLANE_CONCURRENCY", "2");
            }
        })
    }

    /// Asks for so many executions, kills workers until all of them have ended, and looks at what is left.
    async fn run(mut self, executions: usize, mut job: Value, between_kills: Duration) {
        let began = Instant::now();
        job["command"] = json!(["sh", "-c", SCRIPT]);
        // A lost attempt is one of many, and does not wait.
        job["retry"] = json!({"max_attempts": 100, "backoff_seconds": 0});
        let job = self.cell.new_job(job).await;
        let mut asked = 0;
        while asked < executions {
            let count = BATCH.min(executions - asked);
            asked += self.cell.run_many(&self.cell.tenant, &job, count).await.len();
        }
        let mut before = self.cell.in_flight().await;
        loop {
            tokio::time::sleep(between_kills).await;
            let now = self.cell.in_flight().await;
            if now == 0 {
                break;
            }
            // On a machine too slow for this pace no attempt would ever end.
            if now == std::mem::replace(&mut before, now) {
                continue;
            }
            let there = self.left(EVERYTHING).await.counts();
            self.most = std::array::from_fn(|at| self.most[at].max(there[at]));
            let next = self.kills % WORKERS;
            self.workers[next].kill_and_restart();
            self.kills += 1;
        }
        let took = began.elapsed().as_secs_f64();
        let clean = self.nothing_is_left().await.as_secs_f64();
        let executions = i64::try_from(executions).unwrap();
        let attempts = self.attempts(executions).await;
        let (kills, [processes, directories, containers]) = (self.kills, self.most);
        eprintln!(
            "{executions} executions in {attempts} attempts and {took:.0} s with {kills} kills; at one look there were \
             at most {processes} processes, {directories} directories and {containers} containers, and {clean:.1} s \
             after the end none"
        );
        assert!(attempts > executions, "no kill hit an attempt");
        assert!(processes > 0 && directories + containers > 0, "nothing was seen of any attempt");
    }

    /// How many attempts it took. Every execution has succeeded, with the result of the attempt that counts.
    async fn attempts(&self, executions: i64) -> i64 {
        let good = "select count(distinct execution_id) from attempts
            where status = 'SUCCEEDED' and result::json ->> 'attempt' = attempt::text";
        assert_eq!(self.cell.number(good).await, executions);
        self.cell.number("select count(*) from attempts").await
    }

    /// Waits until nothing is left of any attempt, and then, without the workers, until nothing is left at all: the
    /// time that the first took.
    async fn nothing_is_left(&mut self) -> Duration {
        let began = Instant::now();
        self.until_nothing_is_left(OF_ATTEMPTS, began).await;
        let clean = began.elapsed();
        // The last that was started may not have come as far as to hear it, and ends all the same.
        for worker in &mut self.workers {
            worker.signal(Signal::SIGTERM);
            worker.process.wait().unwrap();
        }
        self.until_nothing_is_left(EVERYTHING, began).await;
        clean
    }

    async fn until_nothing_is_left(&self, variable: &str, began: Instant) {
        loop {
            let left = self.left(variable).await;
            if left == Left::default() {
                return;
            }
            assert!(began.elapsed() < LEFT_FOR, "left: {left:#?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What there is, of processes only those with this variable: workers that live belong to no attempt.
    async fn left(&self, variable: &str) -> Left {
        let workers: Vec<_> = self.workers.iter().map(|worker| worker.process.id()).collect();
        let mut left = Left { processes: marked(self.place.path(), variable, &workers), ..Left::default() };
        for entry in fs::read_dir(self.place.path()).unwrap() {
            left.directories.push(entry.unwrap().file_name().to_string_lossy().into_owned());
        }
        if let Some(engine) = &self.engine {
            left.processes.extend(engine.processes().into_iter().map(command_of));
            left.containers.extend(engine.containers().await.iter().map(Value::to_string));
            left.containers.extend(engine.volumes().await.iter().map(Value::to_string));
        }
        left
    }
}

/// The processes with this place in their environment, and this variable, except these.
fn marked(place: &Path, variable: &str, except: &[u32]) -> Vec<String> {
    let mark = format!("{MARK}={}", place.display());
    let ids = fs::read_dir("/proc").unwrap().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|pid| !except.contains(pid))
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let has = |wanted: &str| {
                environment.split(|&byte| byte == 0).any(|one| one.starts_with(wanted.as_bytes()))
            };
            has(&mark) && has(variable)
        })
        .map(command_of)
        .collect()
}

/// A process's number and command.
fn command_of(pid: impl Display) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " "))
}

/// As many, or a tenth of it.
fn size(full: usize) -> usize {
    if std::env::var_os("JOBPLANE_TEST_FULL").is_some() { full } else { full / 10 }
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn processes_and_directories_of_exec_jobs_are_gone_however_often_workers_are_killed() {
    Soak::new(None).await.run(size(IN_EXEC), json!({}), Duration::from_secs(1)).await;
}

#[tokio::test]
#[ignore = "takes minutes; needs root, podman, runc, catatonit and busybox-static"]
async fn containers_of_jobs_are_gone_however_often_workers_are_killed() {
    let soak = Soak::new(Some(Engine::start().await)).await;
    soak.run(size(IN_CONTAINERS), json!({"image": IMAGE}), Duration::from_secs(3)).await;
}
