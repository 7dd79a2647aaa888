//! What a worker shows to operators: its pages, and the metrics of docs/worker.md.

use crate::worker::ends_well;
use jobplane_tests::{Cell, Worker, program, text};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// A worker that listens, and where.
struct Watched {
    worker: Worker,
    address: String,
    /// What it logs from there on.
    log: Receiver<Value>,
}

impl Watched {
    fn start(url: &str, token: &str) -> Self {
        let mut worker = Worker::start(url, token, |command| {
            command
                .env("JOBPLANE_METRICS_ADDR", "127.0.0.1:0")
                .env("JOBPLANE_DRAIN_SECONDS", "600")
                .stderr(Stdio::piped());
        });
        let lines = BufReader::new(worker.process.stderr.take().unwrap()).lines();
        let (sender, log) = channel();
        // Read to its end, or it would fill the pipe; a test that is over does not mind.
        std::thread::spawn(move || {
            lines.for_each(|line| drop(sender.send(serde_json::from_str(&line.unwrap()).unwrap())));
        });
        let address = log.iter().find(|line: &Value| line["message"] == "listening").unwrap();
        Self { worker, address: text(&address["address"]), log }
    }

    async fn page(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn until(&self, path: &str, is_so: impl Fn(u16, &str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let (status, body) = self.page(path).await;
            if is_so(status, &body) {
                return body;
            }
            assert!(began.elapsed() < LIMIT, "{path}: {status} {body}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether the worker that listens there calls itself well.
fn says_it_is_well(listen: &str) -> bool {
    let mut asked = Command::new(program("jobplane-worker"));
    asked
        .args(["--health", "--metrics-addr", listen])
        .env_clear()
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
fn a_health_check_that_cannot_ask_has_failed_as_any_other() {
    let mut asked = Command::new(program("jobplane-worker"));
    let asked = asked.arg("--health").env_remove("JOBPLANE_METRICS_ADDR").stderr(Stdio::null());
    assert_eq!(asked.status().unwrap().code(), Some(1));
}

/// A metric's type, labels and words.
#[derive(Debug, PartialEq, Eq, Default)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

/// What a scrape holds.
fn exposed(scrape: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    for line in scrape.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let of = |end: &str| name.strip_suffix(end).filter(|name| metrics.contains_key(*name));
            let name = ["_bucket", "_sum", "_count"].into_iter().find_map(of).unwrap_or(name).to_owned();
            let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            let metric = metrics.get_mut(&name).unwrap();
            metric.labels.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    metrics
}

/// What the table in the docs has.
fn documented() -> BTreeMap<String, Metric> {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/worker.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let rows = docs.lines().filter(|line| line.starts_with("| `jobplane_worker_"));
    rows.map(|row| {
        let cells: Vec<_> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let labels = cells[2].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (cells[0].clone(), Metric { kind: cells[1].clone(), labels, help: cells[3].clone() })
    })
    .collect()
}

/// The value of one series.
fn value(scrape: &str, series: &str) -> f64 {
    let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in {scrape}")).parse().unwrap()
}

async fn run(cell: &Cell, script: &str) -> String {
    let job = json!({ "command": ["sh", "-c", script], "retry": { "max_attempts": 1 } });
    let job = cell.new_job(job).await;
    cell.run(&job).await
}

#[tokio::test]
async fn the_metrics_are_those_of_the_docs_and_count_what_happened() {
    let cell = Cell::new().await;
    run(&cell, "echo one; echo two").await;
    run(&cell, "exit 3").await;
    let watched = Watched::start(&cell.url, &cell.worker);
    let taken = r#"jobplane_worker_results_total{result="taken"}"#;
    let scrape = watched.until("/metrics", |_, scrape| value(scrape, taken) >= 2.0).await;
    assert_eq!(exposed(&scrape), documented());
    for (series, expected) in [
        (r#"jobplane_worker_attempts_total{outcome="succeeded"}"#, 1.0),
        (r#"jobplane_worker_attempts_total{outcome="failed"}"#, 1.0),
        (r#"jobplane_worker_attempt_duration_seconds_count{outcome="failed"}"#, 1.0),
        ("jobplane_worker_executions_taken_total", 2.0),
        ("jobplane_worker_start_duration_seconds_count", 2.0),
        ("jobplane_worker_log_lines_shipped_total", 2.0),
        ("jobplane_worker_attempts_running", 0.0),
        ("jobplane_worker_slots", 4.0),
        ("jobplane_worker_leases_lost_total", 0.0),
    ] {
        assert_eq!(value(&scrape, series).to_bits(), f64::to_bits(expected), "{series} in {scrape}");
    }
    let logs = r#"jobplane_worker_controller_request_duration_seconds_count{route="/internal/executions/{id}/logs",status="202"}"#;
    assert!(value(&scrape, logs) >= 1.0, "{scrape}");
}

#[tokio::test]
async fn a_worker_is_ready_until_it_drains_and_lives_until_it_has_ended() {
    let cell = Cell::new().await;
    let watched = Watched::start(&cell.url, &cell.worker);
    watched.until("/readyz", |status, _| status == 200).await;
    let id = run(&cell, "echo started; sleep 600").await;
    let running = "jobplane_worker_attempts_running";
    watched.until("/metrics", |_, scrape| value(scrape, running) >= 1.0).await;
    watched.worker.signal(Signal::SIGTERM);
    watched.until("/readyz", |status, body| status == 503 && body.contains("draining")).await;
    assert_eq!(watched.page("/healthz").await.0, 200);
    assert!(says_it_is_well(&watched.address));
    cell.post(&format!("/executions/{id}/cancel"), &cell.tenant, json!({})).await.ok();
    ends_well(watched.worker).await;
    assert!(!says_it_is_well(&watched.address));
}

#[tokio::test]
async fn every_line_about_an_attempt_says_which_and_in_which_trace() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({ "command": ["sh", "-c", "exit 3"] })).await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let asked = reqwest::Client::new()
        .post(format!("{}/jobs/{job}/run", cell.url))
        .bearer_auth(&cell.tenant)
        .header("traceparent", format!("00-{trace_id}-00f067aa0ba902b7-01"))
        .json(&json!({}));
    let asked: Value = asked.send().await.unwrap().json().await.unwrap();
    let watched = Watched::start(&cell.url, &cell.worker);
    watched
        .until("/metrics", |_, scrape| {
            value(scrape, r#"jobplane_worker_results_total{result="taken"}"#) >= 1.0
        })
        .await;
    let lines: Vec<_> = watched.log.try_iter().collect();
    let ended = lines.iter().find(|line| line["message"] == "ended").unwrap();
    assert_eq!(ended["outcome"], "Failed");
    assert_eq!(ended["execution_id"], asked["execution_id"]);
    assert_eq!((&ended["attempt"], &ended["trace_id"]), (&json!(1), &json!(trace_id)));
    assert!(!text(&ended["lease_id"]).is_empty());
}

#[tokio::test]
async fn a_worker_without_a_controller_lives_and_is_not_ready() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let watched = Watched::start(&url, "jp_worker_local_x");
    let failed = r#"jobplane_worker_dequeues_total{result="failed"}"#;
    watched.until("/metrics", |_, scrape| value(scrape, failed) >= 1.0).await;
    let (status, body) = watched.page("/readyz").await;
    assert!(status == 503 && body.contains("dequeue"), "{status} {body}");
    assert_eq!(watched.page("/healthz").await.0, 200);
}

/// What `--check` says about this controller and token, a line for each thing, and whether it is content.
async fn checked(url: &str, token: &str) -> (bool, Vec<String>) {
    let mut command = tokio::process::Command::new(program("jobplane-worker"));
    command.args(["--check", "--url", url]).env("JOBPLANE_WORKER_TOKEN", token);
    let output = command.output().await.unwrap();
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    (output.status.success(), lines)
}

#[tokio::test]
async fn a_check_finds_all_well_and_takes_no_work() {
    let cell = Cell::new().await;
    let id = run(&cell, "true").await;
    let (content, lines) = checked(&cell.url, &cell.worker).await;
    assert!(content, "{lines:?}");
    let things = ["settings", "url", "clock", "token", "runtime"].map(|thing| format!("ok       {thing}"));
    assert_eq!(lines.len(), things.len(), "{lines:?}");
    assert!(lines.iter().zip(&things).all(|(line, thing)| line.starts_with(thing)), "{lines:?}");
    assert_eq!(cell.execution(&id).await["status"], "PENDING");
}

#[tokio::test]
async fn a_check_says_what_is_wrong() {
    let cell = Cell::new().await;
    let unknown = cell.worker.chars().rev().take(64).collect::<String>();
    for (url, token, thing, why) in [
        (cell.url.as_str(), format!("jp_worker_local_{unknown}").as_str(), "token", "revoked"),
        (cell.url.as_str(), cell.tenant.as_str(), "token", "no worker's"),
        ("http://127.0.0.1:1", cell.worker.as_str(), "url", "nothing listens there"),
        ("http://no-such-host.invalid", cell.worker.as_str(), "url", "the name is not known"),
        (format!("{}/elsewhere", cell.url).as_str(), cell.worker.as_str(), "url", "mend JOBPLANE_URL"),
        ("ftp://x", cell.worker.as_str(), "settings", "http"),
    ] {
        let (content, lines) = checked(url, token).await;
        let said = lines.iter().find(|line| line.starts_with(&format!("FAILED   {thing}")));
        assert!(!content && said.is_some_and(|line| line.contains(why)), "{url} {thing}: {lines:?}");
    }
}
