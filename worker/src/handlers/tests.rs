//! Handlers of every kind, run as the agent runs them; their log goes to a controller that takes everything.

use super::*;
use crate::agent::Stop;
use crate::exec::tests::{Ran, execution, run_on};
use crate::{Stream, Worker};
use jobplane_protocol::{Outcome, limits};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// Never reached where it does not matter.
const LONG: Duration = Duration::from_secs(600);

/// Runs one attempt of this handler, and asks it to stop once it has printed `ready`.
async fn run<I, O, F, R>(input: Value, grace: Duration, stop: Option<Stop>, handler: F) -> Ran
where
    F: Fn(Context, I) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, JobError>> + Send + 'static,
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
{
    run_leased(leased(&input), grace, stop, handler).await
}

async fn run_leased<I, O, F, R>(
    leased: LeasedExecution,
    grace: Duration,
    stop: Option<Stop>,
    handler: F,
) -> Ran
where
    F: Fn(Context, I) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, JobError>> + Send + 'static,
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
{
    let mut handlers = Handlers::default();
    handlers.add("job".to_owned(), handler);
    run_on(&handlers.runtime(grace, Handle::current()), leased, stop.map(|why| ("ready", why))).await
}

fn leased(input: &Value) -> LeasedExecution {
    LeasedExecution { input: serde_json::value::to_raw_value(input).ok(), ..execution(&[]) }
}

/// Says that it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Deserialize)]
struct Size {
    #[allow(dead_code, reason = "only its type matters")]
    width: u32,
}

#[tokio::test]
async fn input_and_output_are_typed_and_the_context_says_what_it_is() {
    let leased = LeasedExecution { traceparent: Some("00-trace".to_owned()), ..leased(&json!([1, 2])) };
    let (id, tenant) = (leased.execution_id, leased.tenant_id);
    let ran = run_leased(leased, LONG, None, move |ctx: Context, input: Vec<u32>| async move {
        assert_eq!((ctx.execution_id(), ctx.tenant_id(), ctx.attempt()), (id, tenant, 3));
        assert_eq!((ctx.traceparent(), ctx.queue(), ctx.is_last_try()), (Some("00-trace"), "default", false));
        assert_eq!((ctx.job().name.as_str(), ctx.job().env["OWN"].as_str()), ("job", "mine"));
        ctx.log(Stream::Stdout, "one\ntwo").await;
        ctx.log(Stream::Stderr, "x".repeat(20_000)).await;
        Ok(json!({ "sum": input.iter().sum::<u32>() }))
    })
    .await;
    assert_eq!((ran.ending.outcome, ran.ending.error), (Outcome::Succeeded, None));
    assert_eq!(ran.ending.result.unwrap().get(), r#"{"sum":3}"#);
    assert_eq!(
        (&ran.lines[..2], ran.lines[2..].concat().len()),
        (&["one".to_owned(), "two".to_owned()][..], 20_000)
    );
}

#[tokio::test]
async fn what_the_handler_does_not_take_fails_for_good_and_names_the_field() {
    let handler = |_: Context, _: Vec<Size>| async { Ok(()) };
    let ran = run(json!([{ "width": 1 }, { "width": "wide" }]), LONG, None, handler).await;
    assert_eq!((ran.ending.outcome, ran.ending.retryable), (Outcome::Failed, Some(false)));
    let error = ran.ending.error.unwrap();
    assert!(error.starts_with("input.[1].width: invalid type: string \"wide\", expected u32"), "{error}");
    let error = run(json!(null), LONG, None, handler).await.ending.error.unwrap();
    assert!(error.starts_with("input: invalid type: null, expected a sequence"), "{error}");
    let ran = run(json!(null), LONG, None, |_: Context, _: Option<Size>| async { Ok(()) }).await;
    assert_eq!(ran.ending.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn an_error_says_whether_and_when_it_is_tried_again() {
    let ran = run(json!(null), LONG, None, |_: Context, (): ()| async {
        Err::<(), _>(anyhow::anyhow!("low").context("high").into())
    });
    let ending = ran.await.ending;
    assert_eq!((ending.outcome, ending.error.as_deref()), (Outcome::Failed, Some("high: low")));
    assert_eq!((ending.retryable, ending.retry_after_seconds), (None, None));
    let ran = run(json!(null), LONG, None, |_: Context, (): ()| async {
        "x".parse::<u32>().map_err(|error| JobError::from(error).not_retryable())
    });
    assert_eq!(ran.await.ending.retryable, Some(false));
    for (wait, seconds) in [(Duration::from_millis(1500), 2), (Duration::MAX, limits::MAX_BACKOFF_SECONDS)] {
        let ran = run(json!(null), LONG, None, move |_: Context, (): ()| async move {
            Err::<(), _>(JobError::new("later").retry_after(wait))
        });
        assert_eq!(ran.await.ending.retry_after_seconds, Some(seconds));
    }
}

#[tokio::test]
async fn a_panic_is_contained_and_its_message_is_the_error() {
    let ran = run(json!(null), LONG, None, |_: Context, (): ()| async {
        assert!(std::process::id() == 0, "on purpose");
        Ok(())
    });
    let ending = ran.await.ending;
    assert_eq!((ending.outcome, ending.retryable), (Outcome::Failed, None));
    assert_eq!(ending.error.as_deref(), Some("panicked: on purpose"));
}

#[tokio::test]
async fn an_output_that_the_controller_would_refuse_fails_for_good() {
    let large = |_: Context, (): ()| async { Ok("x".repeat(limits::MAX_RESULT_BYTES)) };
    let ending = run(json!(null), LONG, None, large).await.ending;
    assert_eq!((ending.outcome, ending.retryable), (Outcome::Failed, Some(false)));
    assert_eq!(ending.error.as_deref(), Some("the output: 1048578 bytes, at most 1048576 are accepted"));
    let keys = |_: Context, (): ()| async { Ok(BTreeMap::from([((1, 2), 3)])) };
    let error = run(json!(null), LONG, None, keys).await.ending.error.unwrap();
    assert!(error.starts_with("the output cannot be written as JSON: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_leaves_behind_may_log_for_ever_and_its_attempt_ends() {
    let ran = run(json!(null), LONG, None, |ctx: Context, (): ()| async move {
        tokio::spawn(async move {
            loop {
                ctx.log(Stream::Stdout, "x\n".repeat(5_000)).await;
                tokio::task::yield_now().await;
            }
        });
        Ok(())
    });
    let ran = tokio::time::timeout(crate::stub::PATIENCE, ran).await.expect("the attempt ends");
    assert_eq!(ran.ending.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn each_reason_to_stop_is_told_and_has_its_outcome() {
    let reasons = [
        (Some(Stop::Cancel), StopReason::Cancelled, Outcome::Cancelled),
        (Some(Stop::Release), StopReason::Released, Outcome::Released),
        (None, StopReason::TimedOut, Outcome::TimedOut),
    ];
    for (stop, reason, outcome) in reasons {
        let timeout_seconds = if stop.is_none() { 0 } else { 600 };
        let leased = LeasedExecution { timeout_seconds, ..leased(&json!(null)) };
        let ran = run_leased(leased, LONG, stop, move |ctx: Context, (): ()| async move {
            ctx.log(Stream::Stdout, "ready").await;
            let why = ctx.cancelled().await;
            assert_eq!((why, ctx.stop_reason()), (reason, Some(reason)));
            ctx.log(Stream::Stdout, "put in order").await;
            Err::<(), _>(why.into())
        });
        let ran = ran.await;
        assert_eq!(ran.ending.outcome, outcome);
        assert_eq!(ran.lines, ["ready", "put in order"]);
        let error = (outcome == Outcome::TimedOut).then_some("timed out after 0 s");
        assert_eq!(ran.ending.error.as_deref(), error);
    }
}

#[tokio::test]
async fn what_ends_well_within_the_grace_has_succeeded() {
    for why in [Stop::Cancel, Stop::Release] {
        let ran = run(json!(null), LONG, Some(why), |ctx: Context, (): ()| async move {
            ctx.log(Stream::Stdout, "ready").await;
            ctx.cancelled().await;
            Ok("done")
        });
        let ending = ran.await.ending;
        assert_eq!((ending.outcome, ending.result.unwrap().get()), (Outcome::Succeeded, r#""done""#));
    }
}

#[tokio::test]
async fn what_does_not_end_within_the_grace_is_dropped_and_what_lost_its_lease_at_once() {
    let (short, stops) = (Duration::from_millis(10), [Stop::Cancel, Stop::Release, Stop::Lost]);
    for (stop, grace) in stops.into_iter().zip([short, short, LONG]) {
        let dropped = Arc::<AtomicBool>::default();
        let says = dropped.clone();
        run(json!(null), grace, Some(stop), move |ctx: Context, (): ()| {
            let guard = Guard(says.clone());
            async move {
                ctx.log(Stream::Stdout, "ready").await;
                std::future::pending::<()>().await;
                drop(guard);
                Ok(())
            }
        })
        .await;
        assert!(dropped.load(Ordering::Relaxed), "{stop:?}");
    }
}

#[tokio::test]
async fn a_context_that_outlives_its_attempt_holds_nothing_up() {
    let (sender, mut contexts) = tokio::sync::mpsc::unbounded_channel();
    let ran = run(json!(null), LONG, None, move |ctx: Context, (): ()| {
        sender.send(ctx.clone()).unwrap();
        async move {
            ctx.log(Stream::Stdout, "in time").await;
            Ok(())
        }
    });
    assert_eq!(ran.await.lines, ["in time"]);
    let context = contexts.recv().await.unwrap();
    context.log(Stream::Stdout, "late").await;
    context.progress("late");
    assert_eq!(context.stop_reason(), Some(StopReason::Ended));
    assert_eq!(context.cancelled().await, StopReason::Ended);
}

#[tokio::test]
async fn what_has_no_handler_fails_and_waits_for_a_worker_that_has_one() {
    let mut handlers = Handlers::default();
    handlers.add("other".to_owned(), |_: Context, (): ()| async { Ok(()) });
    let ending = run_on(&handlers.runtime(LONG, Handle::current()), leased(&json!(null)), None).await.ending;
    assert_eq!((ending.outcome, ending.retryable, ending.unstarted), (Outcome::Failed, None, false));
    assert!(NO_HANDLER_SECONDS.contains(&ending.retry_after_seconds.unwrap()));
    let error = "this worker has no handler for the job \"job\", only for other";
    assert_eq!(ending.error.as_deref(), Some(error));
}

#[test]
fn a_description_that_cannot_work_is_refused() {
    let named =
        |name: &str| Worker::builder().url("http://localhost").handler(name, |_, (): ()| async { Ok(()) });
    let refused = [
        (Worker::builder().url("http://localhost").token("x"), "at least one handler"),
        (named("a"), "needs a token"),
        (named("a").token("x").url("ftp://localhost"), "http:// or https://"),
        (named("a").token("x").handler("a", |_, (): ()| async { Ok(()) }), "more than one handler for a"),
        (named("a").token("x").concurrency(0), "within 1 to 1000"),
        (named("a").token("x").kill_grace(LONG), "30 s at most"),
    ];
    for (builder, why) in refused {
        let error = builder.build().err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(named("a").token("x").queues(["one", "two"]).build().is_ok());
}
