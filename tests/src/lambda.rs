//! One deployed function as Lambda runs it: its own binary, a Runtime API to ask for events, a gateway before it.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// How long an invocation may take unless a test says otherwise; the gateway gives up a second later.
const LIMIT: Duration = Duration::from_secs(29);

/// A copy of a function that ends with the test.
pub struct Lambda {
    /// The gateway: every HTTP request to it is an event.
    pub url: String,
    api: Arc<Api>,
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

struct Invocation {
    event: String,
    answer: oneshot::Sender<Result<Value, Value>>,
}

struct Api {
    limit: Mutex<Duration>,
    ask: mpsc::UnboundedSender<Invocation>,
    asked: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    running: Mutex<HashMap<String, oneshot::Sender<Result<Value, Value>>>>,
}

impl Lambda {
    /// Starts a function's binary with these variables beside the ones that Lambda sets.
    pub async fn start(function: &str, environment: &[(&str, &str)]) -> Self {
        let name = function.to_owned();
        let program =
            tokio::task::spawn_blocking(move || crate::fleet::function(&name)).await.expect("no panic");
        let (ask, asked) = mpsc::unbounded_channel();
        let (limit, asked) = (Mutex::new(LIMIT), tokio::sync::Mutex::new(asked));
        let api = Arc::new(Api { limit, ask, asked, running: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket"));
        let runtime = "/2018-06-01/runtime";
        let service = axum::Router::new()
            .route(&format!("{runtime}/invocation/next"), get(next))
            .route(&format!("{runtime}/invocation/{{id}}/response"), post(response))
            .route(&format!("{runtime}/invocation/{{id}}/error"), post(error))
            .fallback(gateway)
            .with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, service).await });
        let mut process = Command::new(program)
            .env("AWS_LAMBDA_RUNTIME_API", &address)
            .env("AWS_LAMBDA_FUNCTION_NAME", function)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the function starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, kept) = (process.stdout.take().expect("it is piped"), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("{line}");
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { url: format!("http://{address}"), api, process, lines }
    }

    /// Lets every further invocation have so long.
    pub fn limit(&self, limit: Duration) {
        *self.api.limit.lock().expect("nobody panicked") = limit;
    }

    /// Invokes it with an event: what it answers, or the error that it reports.
    pub async fn invoke(&self, event: &Value) -> Result<Value, Value> {
        self.api.invoke(event).await.expect("it answers")
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().try_into().expect("a process id"));
        kill(pid, signal).expect("it is a child that was not reaped");
    }

    /// The JSON lines that it wrote so far.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("nobody panicked");
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// Waits for a line that satisfies this.
    pub async fn line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| wanted(line)) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it is reaped");
    }
}

impl Api {
    async fn invoke(&self, event: &Value) -> Option<Result<Value, Value>> {
        let (answer, answered) = oneshot::channel();
        self.ask.send(Invocation { event: event.to_string(), answer }).ok()?;
        answered.await.ok()
    }
}

/// The function asks for its next event.
#[allow(
    clippy::disallowed_methods,
    reason = "an invocation ends by the machine's clock, not by the database's"
)]
async fn next(State(api): State<Arc<Api>>) -> Response {
    let invocation = api.asked.lock().await.recv().await.expect("the test holds the other end");
    let id = uuid::Uuid::new_v4().to_string();
    api.running.lock().expect("nobody panicked").insert(id.clone(), invocation.answer);
    let deadline = SystemTime::now() + *api.limit.lock().expect("nobody panicked");
    let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    Response::builder()
        .header("lambda-runtime-aws-request-id", id)
        .header("lambda-runtime-deadline-ms", deadline.to_string())
        .header(
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:123456789012:function:tested",
        )
        .body(Body::from(invocation.event))
        .expect("it is a response")
}

async fn response(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    settle(&api, &id, Ok(serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

async fn error(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    settle(&api, &id, Err(serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

fn settle(api: &Api, id: &str, with: Result<Value, Value>) -> StatusCode {
    let waiting = api.running.lock().expect("nobody panicked").remove(id);
    // Whoever asked may be gone.
    match waiting.map(|waiting| waiting.send(with)) {
        Some(_) => StatusCode::ACCEPTED,
        None => StatusCode::BAD_REQUEST,
    }
}

/// A request of a client's becomes an event, and its answer a response.
async fn gateway(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("it arrives whole");
    let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())))
    };
    let mut event = event(parts.method.as_str(), parts.uri.path(), "$default");
    event["rawQueryString"] = json!(parts.uri.query().unwrap_or_default());
    event["headers"] = parts.headers.iter().map(header).collect::<serde_json::Map<_, _>>().into();
    event["body"] = json!(String::from_utf8_lossy(&body));
    match api.invoke(&event).await {
        Some(Ok(answer)) => answered(&answer),
        // As API Gateway has it.
        _ => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"message":"Internal Server Error"}"#).into_response(),
    }
}

/// An event of API Gateway, version 2.0, for a request of this path to this stage.
pub fn event(method: &str, path: &str, stage: &str) -> Value {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {},
        "requestContext": {
            "accountId": "123456789012", "apiId": "api", "domainName": "api.test", "domainPrefix": "api",
            "requestId": "request", "routeKey": "$default", "stage": stage,
            "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 1_767_225_600_000_i64,
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"},
        },
        "body": "", "isBase64Encoded": false,
    })
}

fn answered(answer: &Value) -> Response {
    let status = answer["statusCode"].as_u64().and_then(|code| u16::try_from(code).ok()).expect("a status");
    let mut response = Response::builder().status(status);
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str().expect("text"));
    }
    let body = answer["body"].as_str().unwrap_or_default().to_owned();
    response.body(Body::from(body)).expect("it is a response")
}
