//! The agent against a controller on loopback that answers as the test says.

use super::heartbeat::keep_leases;
use super::leases::{Progress, StopReceiver};
use super::{Agent, Parts, phases, stopped};
use crate::exec::tests::{execution, lines, takes_logs, without_means};
use crate::logs::LogWriter;
use crate::runtime::{Ending, Runtime};
use crate::stub::{Asked, PATIENCE, Reply, Stub, eventually, is_running};
use crate::{ContainerSettings, Credential, Error, JobSettings, LogFormat, RuntimeKind, Settings, Shutdown};
use jobplane_protocol::{ErrorCode, ExecutionId, Json, LeaseId, LeasedExecution, Problem, limits};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// A controller that hands these out once; `answer` may say something else to any call.
async fn controller(
    executions: Vec<LeasedExecution>,
    answer: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
) -> Stub {
    let dequeued = AtomicUsize::new(0);
    Stub::serve(move |asked| {
        if let Some(reply) = answer(asked) {
            return reply;
        }
        match asked.path.rsplit('/').next().unwrap() {
            "dequeue" if dequeued.fetch_add(1, Ordering::Relaxed) == 0 => hands_out(asked, &executions),
            "dequeue" => hands_out(asked, &[]),
            "heartbeats" => heartbeats(asked, "held"),
            "results" => results(asked, |_| json!({ "status": "SUCCEEDED" })),
            _ => takes_logs(asked),
        }
    })
    .await
}

fn hands_out(asked: &Asked, executions: &[LeasedExecution]) -> Reply {
    hands_out_for(asked, executions, Duration::from_millis(100))
}

fn hands_out_for(asked: &Asked, executions: &[LeasedExecution], heartbeat_interval: Duration) -> Reply {
    let heartbeat_interval_ms = u32::try_from(heartbeat_interval.as_millis()).unwrap();
    Reply::json(
        200,
        &json!({
            "lease_id": asked.body["lease_id"], "lease_expires_at": "2030-01-01T00:00:00Z",
            "heartbeat_interval_ms": heartbeat_interval_ms, "poll_after_ms": 0, "executions": executions,
        }),
    )
}

fn heartbeats(asked: &Asked, state: &str) -> Reply {
    let of = |item: &Value| json!({ "execution_id": item["execution_id"], "state": state });
    let results: Vec<_> = asked.body["leases"].as_array().unwrap().iter().map(of).collect();
    Reply::json(200, &json!({ "lease_expires_at": "2030-01-01T00:00:00Z", "results": results }))
}

fn results(asked: &Asked, answer: impl Fn(&Value) -> Value) -> Reply {
    let of = |item: &Value| {
        let mut answer = answer(item);
        answer["execution_id"] = item["execution_id"].clone();
        answer
    };
    let results: Vec<_> = asked.body["results"].as_array().unwrap().iter().map(of).collect();
    Reply::json(200, &json!({ "results": results }))
}

/// Every result that was sent, in order.
fn sent(stub: &Stub) -> Vec<Value> {
    stub.asked("/results")
        .iter()
        .flat_map(|asked| asked.body["results"].as_array().unwrap().clone())
        .collect()
}

/// A worker under test, and how to stop it.
struct Running {
    shutdown: watch::Sender<Shutdown>,
    worker: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(stub: &Stub, drain_seconds: u32) -> Self {
        Self::start_at(&stub.url, drain_seconds)
    }

    fn start_at(url: &str, drain_seconds: u32) -> Self {
        Self::start_with(settings(url, drain_seconds))
    }

    fn start_with(settings: Settings) -> Self {
        let (shutdown, receiver) = watch::channel(Shutdown::Running);
        Self { shutdown, worker: tokio::spawn(async move { run(&settings, receiver).await }) }
    }

    async fn stop(self) {
        self.shutdown.send_replace(Shutdown::Draining);
        self.worker.await.unwrap().unwrap();
    }
}

pub(super) fn settings(url: &str, drain_seconds: u32) -> Settings {
    Settings {
        url: url.to_owned(),
        worker_token: Some(Credential::Value("jp_worker_secret".to_owned())),
        worker_token_file: None,
        concurrency: Some(64),
        queues: vec!["fast".to_owned(), "slow".to_owned()],
        runtime: RuntimeKind::Exec,
        drain_seconds,
        kill_grace_seconds: 600,
        env_allow: Vec::new(),
        jobs: JobSettings::default(),
        worker_id: Some("tested".to_owned()),
        metrics_addr: None,
        container: ContainerSettings::default(),
        log_format: Some(LogFormat::Pretty),
    }
}

async fn run(settings: &Settings, shutdown: watch::Receiver<Shutdown>) -> Result<(), Error> {
    super::run(&settings.options()?, settings.runtime()?, shutdown).await
}

/// An agent that runs nothing yet.
pub(super) fn agent(url: &str) -> Agent {
    let settings = settings(url, 0);
    Agent::new(&settings.options().unwrap(), settings.runtime().unwrap()).unwrap()
}

fn sleeper() -> LeasedExecution {
    execution(&["sh", "-c", "echo $$; exec sleep 1000"])
}

#[tokio::test]
async fn a_lost_dequeue_response_is_asked_for_again_under_the_same_lease() {
    let asked_before = AtomicUsize::new(0);
    let lose_the_first = move |asked: &Asked| {
        let lost = asked.path.ends_with("/dequeue") && asked_before.fetch_add(1, Ordering::Relaxed) == 0;
        lost.then(Reply::lost)
    };
    let stub = controller(vec![execution(&["true"])], lose_the_first).await;
    let running = Running::start(&stub, 0);
    stub.until(|stub| !sent(stub).is_empty()).await;
    running.stop().await;
    let dequeues = stub.asked("/dequeue");
    assert_eq!(dequeues[0].body, dequeues[1].body);
    assert_eq!(dequeues[0].body["queues"], json!(["fast", "slow"]));
    assert_eq!(sent(&stub)[0]["lease_id"], dequeues[0].body["lease_id"]);
    assert!(dequeues.iter().skip(2).all(|later| later.body["lease_id"] != dequeues[0].body["lease_id"]));
}

#[tokio::test]
async fn all_that_was_handed_out_is_answered_for_once() {
    let executions: Vec<_> = (0..60).map(|_| execution(&["true"])).collect();
    let stub = controller(executions, |_| None).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| sent(stub).len() >= 60).await;
    running.stop().await;
    let mut ids: Vec<_> = sent(&stub).iter().map(|item| item["execution_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), sent(&stub).len()), (60, 60));
}

#[tokio::test]
async fn a_drain_that_is_out_of_time_stops_and_releases() {
    let stub = controller(vec![sleeper()], |_| None).await;
    let running = Running::start(&stub, 0);
    stub.until(|stub| !lines(stub).is_empty()).await;
    running.stop().await;
    assert_eq!(sent(&stub)[0]["outcome"], "released");
    assert!(!is_running(&lines(&stub)[0]));
}

#[tokio::test]
async fn a_drain_lets_what_runs_finish_and_takes_nothing_new() {
    let directory = tempfile::tempdir().unwrap();
    let signal = directory.path().join("go");
    let script = format!("echo ready; until [ -e {} ]; do sleep 0.01; done", signal.display());
    let stub = controller(vec![execution(&["sh", "-c", &script])], |_| None).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| !lines(stub).is_empty()).await;
    running.shutdown.send_replace(Shutdown::Draining);
    let asked_by_then = stub.asked("/dequeue").len();
    std::fs::write(&signal, "").unwrap();
    running.stop().await;
    assert_eq!(sent(&stub)[0]["outcome"], "succeeded");
    assert!(stub.asked("/dequeue").len() <= asked_by_then + 1, "at most the one that was in flight");
}

#[tokio::test]
async fn what_a_dequeue_in_flight_brings_to_a_stopping_worker_is_released() {
    let answer_now = Arc::new(Notify::new());
    let held = answer_now.clone();
    let leased = sleeper();
    let handed_out = leased.clone();
    let hold = move |asked: &Asked| {
        let dequeue = asked.path.ends_with("/dequeue");
        dequeue.then(|| hands_out(asked, std::slice::from_ref(&handed_out)).held(held.clone()))
    };
    let stub = controller(Vec::new(), hold).await;
    let running = Running::start(&stub, 0);
    stub.until(|stub| !stub.asked("/dequeue").is_empty()).await;
    running.shutdown.send_replace(Shutdown::Draining);
    answer_now.notify_one();
    running.stop().await;
    assert_eq!(sent(&stub).len(), 1);
    assert_eq!(sent(&stub)[0]["outcome"], "released");
    assert!(lines(&stub).is_empty(), "it was never started");
}

#[tokio::test]
async fn a_worker_that_drains_asks_again_for_what_a_lost_answer_may_have_brought_and_releases_it() {
    let answer_now = Arc::new(Notify::new());
    let (held, asked_before, leased) = (answer_now.clone(), AtomicUsize::new(0), sleeper());
    let lose_the_first = move |asked: &Asked| {
        let dequeue = asked.path.ends_with("/dequeue");
        dequeue.then(|| match asked_before.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::lost(),
            _ => hands_out(asked, std::slice::from_ref(&leased)).held(held.clone()),
        })
    };
    let stub = controller(Vec::new(), lose_the_first).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| !stub.asked("/dequeue").is_empty()).await;
    running.shutdown.send_replace(Shutdown::Draining);
    stub.until(|stub| stub.asked("/dequeue").len() == 2).await;
    answer_now.notify_one();
    running.stop().await;
    let dequeues = stub.asked("/dequeue");
    assert_eq!((dequeues.len(), &dequeues[0].body), (2, &dequeues[1].body));
    assert_eq!(sent(&stub)[0]["outcome"], "released");
    assert!(lines(&stub).is_empty(), "it was never started");
}

#[tokio::test]
async fn a_drain_ends_although_a_dequeue_is_never_answered() {
    let never = Arc::new(Notify::new());
    let hold = move |asked: &Asked| Some(hands_out(asked, &[]).held(never.clone()));
    let stub = controller(Vec::new(), hold).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| !stub.asked("/dequeue").is_empty()).await;
    tokio::time::timeout(PATIENCE, running.stop()).await.unwrap();
    assert_eq!(stub.asked("/dequeue").len(), 1);
}

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_ends_although_its_results_find_no_room() {
    const SLOTS: usize = 4;
    let large = limits::MAX_RESULT_BYTES - 2;
    let script = format!(
        "echo; (printf '\"'; head -c {large} /dev/zero | tr '\\0' x; printf '\"') > $JOBPLANE_OUTPUT_DIR/result.json"
    );
    // As many as one request holds are due, as many wait as there are slots, and as many keep their slots.
    let count = limits::MAX_REQUEST_BYTES.div_ceil(large) + 2 * SLOTS;
    let waiting = Mutex::new(vec![execution(&["sh", "-c", &script]); count]);
    let answer = move |asked: &Asked| {
        if asked.path.ends_with("/results") {
            return Some(Reply::text(403, ""));
        }
        let limit = usize::try_from(asked.body["limit"].as_u64()?).unwrap();
        let mut waiting = waiting.lock().unwrap();
        let left = waiting.len().saturating_sub(limit);
        let mut next = waiting.split_off(left);
        next.iter_mut().for_each(|leased| leased.execution_id = ExecutionId(LeaseId::random().0));
        Some(hands_out(asked, &next))
    };
    let stub = controller(Vec::new(), answer).await;
    let concurrency = u32::try_from(SLOTS).ok();
    let settings = Settings { concurrency, kill_grace_seconds: 1, ..settings(&stub.url, 0) };
    let running = Running::start_with(settings);
    stub.until(|stub| lines(stub).len() == count).await;
    running.shutdown.send_replace(Shutdown::Draining);
    tokio::time::pause();
    tokio::time::timeout(10 * PATIENCE, running.stop()).await.unwrap();
}

#[tokio::test]
async fn what_this_machine_cannot_start_is_released_and_then_asked_for_one_by_one() {
    let stub = controller(vec![execution(&["true"]), execution(&["true"])], |_| None).await;
    let agent = Arc::new(Agent { runtime: Box::new(without_means()), ..agent(&stub.url) });
    let (shutdown, receiver) = watch::channel(Shutdown::Running);
    let phase = phases(receiver, Duration::MAX);
    let running = Parts::start(&agent, &phase).run(&agent, phase);
    let stopping = async {
        stub.until(|stub| sent(stub).len() == 2).await;
        stub.until(|stub| stub.asked("/dequeue").iter().any(|asked| asked.body["limit"] == 1)).await;
        shutdown.send_replace(Shutdown::Draining);
    };
    tokio::join!(running, stopping).0.unwrap();
    for item in sent(&stub) {
        assert_eq!(item["outcome"], "released");
        assert!(item["error"].as_str().unwrap().starts_with("the worker could not start a warden: "));
    }
}

/// A runtime that gives back the first attempt for want of something, and begins the others when it is told to.
struct Recovers {
    first: AtomicBool,
    begin: Arc<Notify>,
}

impl Runtime for Recovers {
    fn run<'a>(
        &'a self,
        _: &'a LeasedExecution,
        log: &'a mut LogWriter,
        _: Progress,
        mut stop: StopReceiver,
    ) -> Pin<Box<dyn Future<Output = Ending> + Send + 'a>> {
        Box::pin(async move {
            if self.first.swap(false, Ordering::Relaxed) {
                return Ending::unstarted("it lacks something");
            }
            self.begin.notified().await;
            log.begin();
            Ending::stopped(stopped(&mut stop).await)
        })
    }
}

#[tokio::test]
async fn a_machine_that_could_not_start_an_attempt_takes_one_and_no_more_until_that_has_begun() {
    let executions = [execution(&["true"]), execution(&["true"])];
    let dequeued = AtomicUsize::new(0);
    let stub = controller(Vec::new(), move |asked| {
        let next = asked.path.ends_with("/dequeue").then(|| dequeued.fetch_add(1, Ordering::Relaxed))?;
        executions.get(next).map(|leased| hands_out(asked, std::slice::from_ref(leased)))
    })
    .await;
    let begin = Arc::new(Notify::new());
    let runtime = Recovers { first: AtomicBool::new(true), begin: begin.clone() };
    let agent = Arc::new(Agent { runtime: Box::new(runtime), ..agent(&stub.url) });
    let (shutdown, receiver) = watch::channel(Shutdown::Running);
    let phase = phases(receiver.clone(), Duration::ZERO);
    let running = Parts::start(&agent, &phase).run(&agent, phase);
    let limits = |stub: &Stub| {
        stub.asked("/dequeue").iter().map(|asked| asked.body["limit"].clone()).collect::<Vec<_>>()
    };
    let probing = async {
        stub.until(|stub| limits(stub).contains(&json!(1))).await;
        let beats = stub.asked("/heartbeats").len();
        // For longer than it would wait for one that has begun.
        stub.until(|stub| stub.asked("/heartbeats").len() > beats + 30).await;
        assert_eq!(limits(&stub).last(), Some(&json!(1)));
        assert!(agent.health.unready(&receiver).is_some_and(|why| why.contains("cannot start")));
        begin.notify_one();
        stub.until(|stub| limits(stub).last() == Some(&json!(63))).await;
        assert_eq!(agent.health.unready(&receiver), None);
        shutdown.send_replace(Shutdown::Draining);
    };
    tokio::join!(running, probing).0.unwrap();
}

#[tokio::test]
async fn a_lease_that_may_be_older_than_its_answer_is_renewed_at_once() {
    let (asked_before, leased) = (AtomicUsize::new(0), sleeper());
    let lose_the_first = move |asked: &Asked| {
        let far = |executions| Some(hands_out_for(asked, executions, 10 * PATIENCE));
        if !asked.path.ends_with("/dequeue") {
            return None;
        }
        match asked_before.fetch_add(1, Ordering::Relaxed) {
            0 => Some(Reply::lost()),
            1 => far(std::slice::from_ref(&leased)),
            _ => far(&[]),
        }
    };
    let stub = controller(Vec::new(), lose_the_first).await;
    let running = Running::start(&stub, 0);
    stub.until(|stub| !stub.asked("/heartbeats").is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn an_interval_that_keeps_changing_does_not_keep_heartbeats_from_being_sent() {
    let stub = controller(Vec::new(), |_| None).await;
    let agent = Arc::new(agent(&stub.url));
    let _stop = agent.leases.add((ExecutionId(LeaseId::random().0), LeaseId::random()));
    tokio::time::pause();
    let heartbeats = tokio::spawn(keep_leases(agent.clone()));
    for seconds in [1000, 1001].into_iter().cycle().take(200) {
        agent.heartbeat_interval.send_replace(Duration::from_secs(seconds));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    tokio::time::resume();
    stub.until(|stub| !stub.asked("/heartbeats").is_empty()).await;
    heartbeats.abort();
}

#[tokio::test]
async fn a_heartbeat_that_is_not_answered_does_not_hold_up_the_next_for_long() {
    let never = Arc::new(Notify::new());
    let hold = move |asked: &Asked| Some(heartbeats(asked, "held").held(never.clone()));
    let stub = controller(Vec::new(), hold).await;
    let agent = Arc::new(agent(&stub.url));
    let _stop = agent.leases.add((ExecutionId(LeaseId::random().0), LeaseId::random()));
    agent.heartbeat_interval.send_replace(Duration::from_millis(100));
    tokio::time::pause();
    let heartbeats = tokio::spawn(keep_leases(agent.clone()));
    // Less than one attempt of a call may take that has no such limit.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(stub.asked("/heartbeats").len() >= 2);
    heartbeats.abort();
}

/// What ends a part of the worker before its time.
type Break = fn(&Parts);

#[tokio::test]
async fn a_worker_that_loses_a_part_stops_its_jobs_and_ends_with_an_error() {
    let parts: [(&str, Break); 3] = [
        ("asking for work", |parts| parts.polling.abort()),
        ("delivering results", |parts| parts.delivery.abort()),
        ("keeping leases", |parts| parts.heartbeats.abort()),
    ];
    for (name, break_it) in parts {
        let stub = controller(vec![sleeper()], |_| None).await;
        let agent = Arc::new(agent(&stub.url));
        let (_shutdown, receiver) = watch::channel(Shutdown::Running);
        let phase = phases(receiver, Duration::MAX);
        let parts = Parts::start(&agent, &phase);
        stub.until(|stub| !lines(stub).is_empty()).await;
        break_it(&parts);
        let error = tokio::time::timeout(PATIENCE, parts.run(&agent, phase)).await.unwrap().unwrap_err();
        assert!(matches!(&error, Error::Fault(what) if what.starts_with(name)), "{error}");
        assert!(!is_running(&lines(&stub)[0]));
        assert!(agent.leases.beats().is_empty(), "no lease outlives it: {name}");
        let outcomes: Vec<_> = sent(&stub).iter().map(|item| item["outcome"].clone()).collect();
        assert_eq!(outcomes, if name == "delivering results" { vec![] } else { vec![json!("released")] });
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_controller_that_is_gone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let running = Running::start_at(&url, 600);
    let (mut connection, _) = listener.accept().await.unwrap();
    assert_ne!(connection.read(&mut [0; 64]).await.unwrap(), 0);
    // The dequeue has arrived; nobody will ever tell what it brought.
    drop((connection, listener));
    tokio::time::timeout(PATIENCE, running.stop()).await.unwrap();
}

#[tokio::test]
async fn a_lost_lease_stops_its_job_and_reports_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", pid_file.display());
    let started = pid_file.clone();
    let lost = move |asked: &Asked| {
        let state = if started.exists() { "lost" } else { "held" };
        asked.path.ends_with("/heartbeats").then(|| heartbeats(asked, state))
    };
    let stub = controller(vec![execution(&["sh", "-c", &script])], lost).await;
    let running = Running::start(&stub, 600);
    eventually(|| std::fs::read_to_string(&pid_file).is_ok_and(|pid| !is_running(pid.trim()))).await;
    running.stop().await;
    assert!(sent(&stub).is_empty());
}

#[tokio::test]
async fn a_cancelled_job_is_stopped_and_reported_so() {
    let cancel =
        |asked: &Asked| asked.path.ends_with("/heartbeats").then(|| heartbeats(asked, "cancel_requested"));
    let stub = controller(vec![sleeper()], cancel).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| !sent(stub).is_empty()).await;
    running.stop().await;
    assert_eq!(sent(&stub)[0]["outcome"], "cancelled");
}

#[tokio::test]
async fn a_refused_result_is_sent_as_a_failure_for_good() {
    let refuse = |asked: &Asked| {
        let refuse = |item: &Value| match item["outcome"].as_str() {
            Some("succeeded") => json!({ "error_code": "invalid_request", "detail": "too deep" }),
            _ => json!({ "status": "FAILED" }),
        };
        asked.path.ends_with("/results").then(|| results(asked, refuse))
    };
    let stub = controller(vec![execution(&["true"])], refuse).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| sent(stub).len() >= 2).await;
    running.stop().await;
    let replacement = &sent(&stub)[1];
    assert_eq!(replacement["error"], "the result was refused: too deep");
    assert_eq!((&replacement["outcome"], &replacement["retryable"]), (&json!("failed"), &json!(false)));
    assert_eq!(sent(&stub).len(), 2);
}

#[tokio::test]
async fn an_error_is_sent_as_the_contract_takes_it() {
    let script = r"printf 'a\0b\n' >&2; exit 3";
    let stub = controller(vec![execution(&["sh", "-c", script])], |_| None).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| !sent(stub).is_empty()).await;
    running.stop().await;
    assert_eq!(sent(&stub)[0]["error"], "exit code 3: a\u{fffd}b");
    assert_eq!(sent(&stub)[0]["retryable"], Value::Null);
}

#[tokio::test]
async fn a_result_of_a_lost_lease_is_dropped() {
    let lost = |asked: &Asked| {
        let lost = |_: &Value| json!({ "error_code": "lease_lost" });
        asked.path.ends_with("/results").then(|| results(asked, lost))
    };
    let stub = controller(vec![execution(&["true"])], lost).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| !sent(stub).is_empty()).await;
    running.stop().await;
    assert_eq!(sent(&stub).len(), 1);
}

#[tokio::test]
async fn a_batch_that_a_gateway_finds_too_large_is_split() {
    let narrow = |asked: &Asked| {
        let large = asked.path.ends_with("/results") && asked.body["results"].as_array().unwrap().len() > 1;
        large.then(|| Reply::text(413, r#"{"message":"Request Too Long"}"#))
    };
    let executions: Vec<_> = (0..20).map(|_| execution(&["true"])).collect();
    let stub = controller(executions, narrow).await;
    let running = Running::start(&stub, 600);
    let alone = |stub: &Stub| {
        let asked = stub.asked("/results");
        let alone = asked.iter().filter(|asked| asked.body["results"].as_array().unwrap().len() == 1);
        alone.map(|asked| asked.body["results"][0]["execution_id"].to_string()).collect::<Vec<_>>()
    };
    stub.until(|stub| alone(stub).len() >= 20).await;
    running.stop().await;
    assert_eq!(alone(&stub).len(), 20, "each is taken once");
    assert!(sent(&stub).iter().all(|item| item["outcome"] == "succeeded"));
}

#[tokio::test]
async fn a_lease_is_kept_until_its_result_is_delivered() {
    let heartbeats_since = Arc::new(AtomicUsize::new(0));
    let refused = AtomicUsize::new(0);
    let away = move |asked: &Asked| {
        if asked.path.ends_with("/heartbeats") && refused.load(Ordering::Relaxed) > 0 {
            heartbeats_since.fetch_add(1, Ordering::Relaxed);
        }
        let result = asked.path.ends_with("/results") && heartbeats_since.load(Ordering::Relaxed) < 2;
        result.then(|| {
            refused.fetch_add(1, Ordering::Relaxed);
            Reply::text(503, "")
        })
    };
    let leased = execution(&["true"]);
    let id = json!(leased.execution_id);
    let stub = controller(vec![leased], away).await;
    let running = Running::start(&stub, 600);
    stub.until(|stub| stub.asked("/heartbeats").len() >= 2).await;
    running.stop().await;
    assert!(stub.asked("/heartbeats").iter().all(|asked| asked.body["leases"][0]["execution_id"] == id));
    assert!(sent(&stub).len() > 1 && sent(&stub).iter().all(|item| item["outcome"] == "succeeded"));
}

#[tokio::test]
async fn a_worker_that_is_refused_at_its_start_says_so_and_ends() {
    let refuse = |_: &Asked| Some(Reply::json(401, &Problem::new(ErrorCode::Unauthorized, "who?")));
    let stub = controller(Vec::new(), refuse).await;
    let (_shutdown, receiver) = watch::channel(Shutdown::Running);
    let error = run(&settings(&stub.url, 600), receiver).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
}

#[tokio::test]
async fn a_container_engine_that_is_not_there_is_said_at_once() {
    let stub = controller(Vec::new(), |_| None).await;
    let (_shutdown, receiver) = watch::channel(Shutdown::Running);
    let container_host = Some("/no/such/socket".to_owned());
    let container = ContainerSettings { container_host, ..ContainerSettings::default() };
    let settings = Settings { runtime: RuntimeKind::Container, container, ..settings(&stub.url, 0) };
    let error = run(&settings, receiver).await.unwrap_err();
    assert!(error.to_string().contains("the container engine at /no/such/socket does not answer"), "{error}");
}

/// Progress, as large as it may be.
fn large(first: char) -> Json {
    let text = format!("{first}{}", "x".repeat(limits::MAX_PROGRESS_BYTES - 3));
    serde_json::value::to_raw_value(&text).unwrap()
}

#[tokio::test]
async fn progress_is_told_once_the_latest_wins_and_a_lost_batch_loses_none() {
    let asked_before = AtomicUsize::new(0);
    let lose_the_first = move |asked: &Asked| {
        let lost = asked.path.ends_with("/heartbeats") && asked_before.fetch_add(1, Ordering::Relaxed) == 0;
        lost.then(|| Reply::text(403, ""))
    };
    let stub = controller(Vec::new(), lose_the_first).await;
    let agent = Arc::new(agent(&stub.url));
    agent.heartbeat_interval.send_replace(Duration::from_millis(10));
    let key = (ExecutionId(LeaseId::random().0), LeaseId::random());
    let _stop = agent.leases.add(key);
    let progress = Progress::new(agent.leases.clone(), key);
    progress.set(large('1'));
    progress.set(large('2'));
    let heartbeats = tokio::spawn(keep_leases(agent.clone()));
    stub.until(|stub| stub.asked("/heartbeats").len() >= 3).await;
    heartbeats.abort();
    let told: Vec<_> =
        stub.asked("/heartbeats").iter().map(|asked| asked.body["leases"][0]["progress"].clone()).collect();
    let latest = json!(large('2'));
    assert_eq!(told[..3], [latest.clone(), latest, Value::Null]);
}

#[tokio::test]
async fn heartbeats_with_more_progress_than_one_request_holds_go_in_several() {
    let stub = controller(Vec::new(), |_| None).await;
    let agent = Arc::new(agent(&stub.url));
    agent.heartbeat_interval.send_replace(Duration::from_secs(1));
    let stops: Vec<_> = (0..limits::MAX_BATCH)
        .map(|_| {
            let key = (ExecutionId(LeaseId::random().0), LeaseId::random());
            let stop = agent.leases.add(key);
            Progress::new(agent.leases.clone(), key).set(large('1'));
            stop
        })
        .collect();
    let heartbeats = tokio::spawn(keep_leases(agent.clone()));
    let items = |asked: &Asked| asked.body["leases"].as_array().unwrap().len();
    stub.until(|stub| stub.asked("/heartbeats").iter().map(items).sum::<usize>() >= stops.len()).await;
    heartbeats.abort();
    for asked in stub.asked("/heartbeats") {
        assert!(serde_json::to_vec(&asked.body).unwrap().len() <= limits::MAX_REQUEST_BYTES);
    }
}
