//! The container runtime against an engine on loopback that answers as the test says: what a real one cannot be brought to.

use super::Container;
use super::orphans::name;
use crate::agent::{LeaseKey, Leases, Progress, Stop};
use crate::exec::tests::{execution, takes_logs};
use crate::runtime::{Ending, Runtime};
use crate::stub::{Asked, PATIENCE, Reply, Stub};
use crate::{Client, ContainerSettings, Credential, logs};
use axum::http::Method;
use jobplane_protocol::{LeaseId, LeasedExecution, Outcome};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(600);

/// An engine whose containers end at once with 0 and leave no result; `answer` may say something else to any call.
async fn engine(answer: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Stub {
    Stub::serve(move |asked| answer(asked).unwrap_or_else(|| usual(asked))).await
}

fn usual(asked: &Asked) -> Reply {
    let is_image = asked.path.contains("/images/");
    match (asked.method.as_str(), asked.path.rsplit('/').next().unwrap()) {
        ("GET", "json") if asked.path.ends_with("/containers/json") => Reply::json(200, &json!([])),
        ("GET", "json") if is_image => Reply::json(200, &json!({"Id": "image"})),
        ("GET", "json") => is("exited", 0),
        ("POST", "create") => Reply::json(201, &json!({"Id": "container", "Warnings": []})),
        ("POST", "wait") => Reply::json(200, &json!({"StatusCode": 0})),
        ("POST", "attach") => Reply::text(101, "").header("connection", "upgrade").header("upgrade", "tcp"),
        ("PUT", "archive") => Reply::text(200, ""),
        ("HEAD" | "GET", "archive") => says(404, "no such file"),
        _ => Reply::text(204, ""),
    }
}

fn says(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({"message": message}))
}

/// What it says of a container.
fn is(status: &str, code: i64) -> Reply {
    let (started, finished) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    let state = json!({
        "Status": status, "Running": status == "running", "ExitCode": code, "StartedAt": started, "FinishedAt": finished,
    });
    Reply::json(200, &json!({"Id": "container", "State": state}))
}

/// The requests to make containers, of the job or of the worker's own.
fn is_made(asked: &Asked, own: bool) -> bool {
    asked.path.ends_with("/containers/create") && (asked.body["Image"] == "jobplane-trial:latest") == own
}

fn is_removed(asked: &Asked) -> bool {
    asked.method == Method::DELETE
}

/// A job that names an image.
fn job() -> LeasedExecution {
    let mut leased = execution(&["true"]);
    leased.attempt = 1;
    leased.job.image = Some("image".to_owned());
    leased
}

/// An attempt on that engine, and its lease.
struct Attempt {
    leased: LeasedExecution,
    leases: Arc<Leases>,
    key: LeaseKey,
}

impl Attempt {
    fn new() -> Self {
        let leased = job();
        let key = (leased.execution_id, LeaseId::random());
        Self { leased, leases: Arc::default(), key }
    }

    fn container(&self) -> String {
        name(self.leased.execution_id, self.leased.attempt)
    }

    async fn run(&self, engine: &Stub) -> Ending {
        let host = engine.url.replace("http://", "tcp://");
        let settings = ContainerSettings { container_host: Some(host), ..ContainerSettings::default() };
        let container = Container::new(&settings, &[], LONG, "tested".to_owned()).unwrap();
        let controller = Stub::serve(takes_logs).await;
        let client = Client::new(&controller.url, Credential::None).unwrap();
        let stop = self.leases.add(self.key);
        let (mut log, shipper) = logs::open(client, self.leases.clone(), Arc::default(), self.key);
        let shipping = tokio::spawn(shipper.ship());
        let progress = Progress::new(self.leases.clone(), self.key);
        let ran = timeout(PATIENCE, container.run(&self.leased, &mut log, progress, stop)).await;
        shipping.abort();
        ran.expect("it ends")
    }
}

#[tokio::test]
async fn a_container_that_exits_with_0_and_leaves_no_result_has_succeeded() {
    let engine = engine(|_| None).await;
    let ending = Attempt::new().run(&engine).await;
    assert_eq!((ending.outcome, ending.error), (Outcome::Succeeded, None));
    assert_eq!(engine.asked("").iter().filter(|asked| is_removed(asked)).count(), 1);
}

#[tokio::test]
async fn nothing_is_said_of_an_attempt_before_its_container_is_gone() {
    let removals = AtomicUsize::new(0);
    let engine = engine(move |asked| {
        let fails = is_removed(asked) && removals.fetch_add(1, Ordering::Relaxed) < 2;
        fails.then(|| says(500, "busy"))
    })
    .await;
    assert_eq!(Attempt::new().run(&engine).await.outcome, Outcome::Succeeded);
    assert_eq!(engine.asked("").iter().filter(|asked| is_removed(asked)).count(), 3);
}

#[tokio::test]
async fn a_container_that_may_have_been_started_is_gone_before_its_attempt_is_given_back() {
    let removals = AtomicUsize::new(0);
    let engine = engine(move |asked| {
        if asked.path.ends_with("/start") {
            return Some(Reply::lost());
        }
        let fails = is_removed(asked) && removals.fetch_add(1, Ordering::Relaxed) < 2;
        fails.then(|| says(500, "busy"))
    })
    .await;
    let ending = Attempt::new().run(&engine).await;
    assert!(ending.unstarted && ending.outcome == Outcome::Released, "{ending:?}");
    assert_eq!(engine.asked("").iter().filter(|asked| is_removed(asked)).count(), 3);
}

#[tokio::test]
async fn a_lost_lease_ends_the_waiting_for_a_container_that_cannot_be_removed() {
    let attempt = Attempt::new();
    let (leases, key) = (attempt.leases.clone(), attempt.key);
    let engine = engine(move |asked| {
        let fails = is_removed(asked);
        if fails {
            leases.lose(&key);
        }
        fails.then(|| says(500, "busy"))
    })
    .await;
    attempt.run(&engine).await;
}

#[tokio::test]
async fn a_lost_lease_is_heard_while_a_container_has_its_grace() {
    let attempt = Attempt::new();
    let (leases, key) = (attempt.leases.clone(), attempt.key);
    let until_killed = Arc::new(Notify::new());
    let signals = AtomicUsize::new(0);
    let held = until_killed.clone();
    let engine = engine(move |asked| match asked.path.rsplit('/').next().unwrap() {
        "wait" => {
            leases.stop(&key, Stop::Cancel);
            Some(Reply::json(200, &json!({"StatusCode": 0})).held(held.clone()))
        }
        "kill" if signals.fetch_add(1, Ordering::Relaxed) == 0 => {
            leases.lose(&key);
            None
        }
        "kill" => {
            until_killed.notify_one();
            None
        }
        _ => None,
    })
    .await;
    attempt.run(&engine).await;
    assert_eq!(engine.asked("/kill").len(), 2);
}

#[tokio::test]
async fn an_attempt_does_not_begin_beside_an_earlier_one_that_cannot_be_removed() {
    let mut attempt = Attempt::new();
    attempt.leased.attempt = 2;
    let execution = attempt.leased.execution_id.to_string();
    let earlier = name(&execution, 1);
    let labels = json!({"jobplane.execution": execution, "jobplane.attempt": "1"});
    let listed = json!([{"Id": "earlier", "Names": [format!("/{earlier}")], "Labels": labels}]);
    let engine = engine(move |asked| match asked.path.rsplit('/').next().unwrap() {
        "json" if asked.path.ends_with("/containers/json") => Some(Reply::json(200, &listed)),
        last if last == earlier => Some(says(500, "it is stuck")),
        _ => None,
    })
    .await;
    let ending = attempt.run(&engine).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.error.as_deref(),
        Some("an earlier attempt may still run: Docker responded with status code 500: it is stuck")
    );
    assert!(engine.asked("/containers/create").is_empty());
}

#[tokio::test]
async fn a_result_is_asked_for_again() {
    let tries = AtomicUsize::new(0);
    let engine = engine(move |asked| {
        let fails = asked.method == Method::HEAD && tries.fetch_add(1, Ordering::Relaxed) == 0;
        fails.then(|| says(500, "busy"))
    })
    .await;
    assert_eq!(Attempt::new().run(&engine).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_container_that_is_gone_before_its_result_was_read_has_not_succeeded() {
    let attempt = Attempt::new();
    let path = format!("/{}/json", attempt.container());
    let looks = AtomicUsize::new(0);
    let engine = engine(move |asked| {
        let gone = asked.path.ends_with(&path) && looks.fetch_add(1, Ordering::Relaxed) > 0;
        gone.then(|| says(404, "no such container"))
    })
    .await;
    let ending = attempt.run(&engine).await;
    assert_eq!(
        (ending.outcome, ending.error.as_deref()),
        (Outcome::Failed, Some("the job's container was removed"))
    );
}

#[tokio::test]
async fn a_lost_lease_is_heard_while_a_result_does_not_come() {
    let attempt = Attempt::new();
    let (leases, key) = (attempt.leases.clone(), attempt.key);
    let engine = engine(move |asked| {
        let hangs = asked.method == Method::HEAD;
        if hangs {
            leases.lose(&key);
        }
        hangs.then(|| says(500, "").held(Arc::new(Notify::new())))
    })
    .await;
    attempt.run(&engine).await;
}

#[tokio::test]
async fn what_the_engine_says_of_a_job_is_the_jobs_fault_if_it_starts_another_container() {
    let texts = ["no space left on device", "unable to find user catatonit", "invalid capability"];
    for (text, fails_for_all) in texts.iter().flat_map(|text| [(*text, false), (*text, true)]) {
        let status = if text.starts_with("invalid") { 400 } else { 500 };
        let engine = engine(move |asked| {
            let fails = is_made(asked, false) || fails_for_all && is_made(asked, true);
            fails.then(|| says(status, text))
        })
        .await;
        let ending = Attempt::new().run(&engine).await;
        let expected = if fails_for_all { Outcome::Released } else { Outcome::Failed };
        assert_eq!((ending.outcome, ending.retryable), (expected, None), "{text}");
        assert_eq!(ending.unstarted, fails_for_all, "{text}");
        let made: Vec<Value> =
            engine.asked("/containers/create").into_iter().map(|asked| asked.body).collect();
        assert!(made.iter().all(|body| body["HostConfig"]["Init"] == true), "{text}: {made:?}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_never_tried_again() {
    let attempt = Attempt::new();
    let path = format!("/{}/start", attempt.container());
    let engine = engine(move |asked| {
        asked.path.ends_with(&path).then(|| says(400, "exec: \"true\": executable file not found in $PATH"))
    })
    .await;
    let ending = attempt.run(&engine).await;
    assert_eq!((ending.outcome, ending.retryable), (Outcome::Failed, Some(false)));
}
