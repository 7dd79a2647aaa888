//! What a receiver of OpenTelemetry traces gets to see of an execution, and that none can stand in its way.

use crate::worker::{ends_well, until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use jobplane_functions::router;
use jobplane_tests::{Cell, Worker, text};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Said;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);
/// The trace that an execution is asked for in, and the span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// What a job does to show the trace that it was given.
const SHOW: &str = r#"printf '"%s"' "$TRACEPARENT" > "$JOBPLANE_OUTPUT_DIR/result.json""#;

/// What a receiver was sent.
#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    /// The attributes of the process that sent them.
    resource: HashMap<String, String>,
    /// Requests, answered or not.
    requests: usize,
}

/// A receiver of traces, as a collector is one.
struct Receiver {
    url: String,
    received: watch::Sender<Received>,
    answers: watch::Sender<bool>,
}

impl Receiver {
    async fn start(answers: bool) -> Self {
        let received = watch::Sender::new(Received::default());
        let answers = watch::Sender::new(answers);
        let app =
            Router::new().route("/v1/traces", post(take)).with_state((received.clone(), answers.clone()));
        Self { url: serve(app).await, received, answers }
    }

    /// Waits until what it received is as it must be.
    async fn until(&self, is_so: impl Fn(&Received) -> bool) {
        let mut received = self.received.subscribe();
        let came = timeout(LIMIT, received.wait_for(is_so)).await.is_ok();
        assert!(came, "{:?}", self.received.borrow().spans);
    }

    /// The one span of this name in the trace of the caller.
    fn span(&self, name: &str) -> Span {
        let received = self.received.borrow();
        let mut named = received.spans.iter().filter(|span| span.name == name);
        let span = named.next().unwrap_or_else(|| panic!("no {name} among {:?}", received.spans));
        assert!(named.next().is_none(), "several {name}");
        assert_eq!(hex(&span.trace_id), TRACE);
        span.clone()
    }
}

async fn take(
    State((received, answers)): State<(watch::Sender<Received>, watch::Sender<bool>)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    received.send_modify(|received| received.requests += 1);
    answers.subscribe().wait_for(|&answers| answers).await.unwrap();
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    received.send_modify(|received| {
        for of in request.resource_spans {
            received.resource = words(&of.resource.unwrap().attributes);
            received.spans.extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    });
    StatusCode::OK
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The attributes that are text or whole numbers.
fn words(attributes: &[KeyValue]) -> HashMap<String, String> {
    let word = |value: &Option<AnyValue>| match value.as_ref()?.value.as_ref()? {
        Said::StringValue(text) => Some(text.clone()),
        Said::IntValue(number) => Some(number.to_string()),
        _ => None,
    };
    attributes.iter().filter_map(|of| Some((of.key.clone(), word(&of.value)?))).collect()
}

/// A worker whose traces go there.
fn traced(url: &str, token: &str, receiver: &str, more: &[(&str, &str)]) -> Worker {
    Worker::start(url, token, |command| {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver)
            .env("OTEL_BSP_SCHEDULE_DELAY", "20")
            .envs(more.iter().copied())
            .stderr(Stdio::null());
    })
}

/// Asks for an execution within a span.
async fn ask(cell: &Cell, script: &str, traceparent: &str) -> String {
    let job = cell.new_job(json!({ "command": ["sh", "-c", script], "retry": { "max_attempts": 1 } })).await;
    let path = format!("/jobs/{job}/run");
    let request = cell.request(reqwest::Method::POST, &path, &cell.tenant, Some(b"{}".to_vec()));
    text(&cell.send(request.header("traceparent", traceparent)).await.ok()["execution_id"])
}

#[tokio::test]
async fn one_trace_leads_from_the_caller_over_lease_and_run_to_the_report() {
    let cell = Cell::new().await;
    let receiver = Receiver::start(true).await;
    let reported = watch::Sender::new(None);
    let tell = reported.clone();
    let watched = router(cell.app.clone()).layer(from_fn(move |request: Request, next: Next| {
        if request.uri().path().ends_with("/results") {
            tell.send_replace(request.headers().get("traceparent").cloned());
        }
        async move { Response::from(next.run(request).await) }
    }));
    let url = serve(watched).await;
    let id = ask(&cell, SHOW, &format!("00-{TRACE}-{CALLER}-01")).await;
    let names =
        [("OTEL_SERVICE_NAME", "fleet"), ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")];
    let _worker = traced(&url, &cell.worker, &receiver.url, &names);
    receiver.until(|received| received.spans.iter().any(|span| span.name == "attempt")).await;

    let [attempt, lease, run, report] = ["attempt", "lease", "run", "report"].map(|name| receiver.span(name));
    assert_eq!(hex(&attempt.parent_span_id), CALLER);
    for part in [&lease, &run, &report] {
        assert_eq!(part.parent_span_id, attempt.span_id, "{}", part.name);
        assert!(attempt.start_time_unix_nano <= part.start_time_unix_nano, "{}", part.name);
    }
    assert!(lease.end_time_unix_nano <= run.start_time_unix_nano);
    assert!(run.end_time_unix_nano <= report.start_time_unix_nano);
    assert!(report.end_time_unix_nano <= attempt.end_time_unix_nano);
    let said = words(&attempt.attributes);
    assert_eq!(
        (said["jobplane.execution.id"].as_str(), said["jobplane.outcome"].as_str()),
        (&*id, "succeeded")
    );
    assert_eq!(words(&run.attributes)["process.exit.code"], "0");
    let resource = &receiver.received.borrow().resource;
    assert_eq!(
        (resource["service.name"].as_str(), resource["deployment.environment.name"].as_str()),
        ("fleet", "test")
    );

    let within = |span: &Span| format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!(cell.execution(&id).await["result"], within(&run), "what the job was given");
    assert_eq!(reported.borrow().as_ref().unwrap(), &within(&report), "what the call carried");
}

#[tokio::test]
async fn a_caller_that_is_not_sampled_is_not_shown_and_its_job_still_has_the_trace() {
    let cell = Cell::new().await;
    let receiver = Receiver::start(true).await;
    let other = "a".repeat(32);
    let unseen = ask(&cell, SHOW, &format!("00-{other}-{CALLER}-00")).await;
    let _worker = traced(&cell.url, &cell.worker, &receiver.url, &[]);
    let result = text(&until(&cell, &unseen, "SUCCEEDED").await["result"]);
    assert!(result.starts_with(&format!("00-{other}-")) && result.ends_with("-00"), "{result}");
    ask(&cell, "exit 3", &format!("00-{TRACE}-{CALLER}-01")).await;
    receiver.until(|received| received.spans.iter().any(|span| span.name == "attempt")).await;
    // It would have come before this one.
    assert!(receiver.received.borrow().spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let status = receiver.span("run").status.unwrap();
    assert_eq!((status.code, status.message.contains("exit code 3")), (2, true), "{status:?}");
}

/// Runs so many executions with a worker whose traces go there.
async fn all_succeed(cell: &Cell, count: usize, receiver: &str, more: &[(&str, &str)]) -> Worker {
    let job = cell.new_job(json!({ "command": ["true"] })).await;
    let ids = cell.run_many(&cell.tenant, &job, count).await;
    let worker = traced(&cell.url, &cell.worker, receiver, more);
    for id in ids {
        until(cell, &id, "SUCCEEDED").await;
    }
    worker
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_costs_spans_beyond_a_bounded_queue_and_no_job() {
    let cell = Cell::new().await;
    let receiver = Receiver::start(false).await;
    let bounds = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
    ];
    let worker = all_succeed(&cell, 50, &receiver.url, &bounds).await;
    assert_eq!(receiver.received.borrow().requests, 1, "one at a time");
    receiver.answers.send_replace(true);
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
    let spans = receiver.received.borrow().spans.len();
    // One batch that was on its way, what fitted the queue behind it, and what came once there was room again.
    assert!((17..=32).contains(&spans), "{spans} of 200");
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_no_job_anything() {
    let cell = Cell::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let worker = all_succeed(&cell, 20, &url, &[]).await;
    worker.signal(Signal::SIGTERM);
    ends_well(worker).await;
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_refused_at_the_start() {
    let more = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let mut worker = traced("http://127.0.0.1:1", "jp_worker_local_x", "http://127.0.0.1:4317", &more);
    let status = tokio::task::spawn_blocking(move || worker.process.wait()).await.unwrap().unwrap();
    assert!(!status.success());
}
