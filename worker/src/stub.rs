//! A server on loopback that answers as a test says and remembers what it was asked.

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long a test waits for what must come before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the server was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// What it answers.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    status: u16,
    body: String,
    headers: Vec<(&'static str, String)>,
    held: Option<Arc<Notify>>,
    dropped: bool,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &impl serde::Serialize) -> Self {
        Self::text(status, serde_json::to_string(body).unwrap())
    }

    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// The connection ends instead of an answer: a lost response.
    pub(crate) fn lost() -> Self {
        Self { dropped: true, ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Answers only when told to.
    pub(crate) fn held(mut self, until: Arc<Notify>) -> Self {
        self.held = Some(until);
        self
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// The server; it goes with the test's runtime.
pub(crate) struct Stub {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    count: watch::Receiver<usize>,
}

impl Stub {
    /// Serves `answer` for every method and path.
    pub(crate) async fn serve(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (counted, count) = watch::channel(0);
        let (answer, seen, counted): (Arc<Answer>, _, _) =
            (Arc::new(answer), asked.clone(), Arc::new(counted));
        let handler = move |request| handle(request, answer.clone(), seen.clone(), counted.clone());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await.unwrap() });
        Self { url, asked, count }
    }

    /// Everything that was asked of paths that end so, in order.
    pub(crate) fn asked(&self, path_end: &str) -> Vec<Asked> {
        let all = self.asked.lock().unwrap();
        all.iter().filter(|asked| asked.path.ends_with(path_end)).cloned().collect()
    }

    /// Waits until what was asked is as it must be.
    pub(crate) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut count = self.count.clone();
        let waiting = async {
            while !is_so(self) {
                count.changed().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "asked: {:#?}", self.asked("").len());
    }
}

async fn handle(
    request: Request,
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Asked>>>,
    counted: Arc<watch::Sender<usize>>,
) -> Response<axum::body::Body> {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = parts.uri.path().to_owned();
    let asked = Asked { method: parts.method, path, headers: parts.headers, body };
    let reply = answer(&asked);
    seen.lock().unwrap().push(asked);
    counted.send_modify(|count| *count += 1);
    if let Some(held) = &reply.held {
        held.notified().await;
    }
    if reply.dropped {
        // Unwinds the connection's task, without the noise of a panic.
        std::panic::resume_unwind(Box::new(()));
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    response.body(reply.body.into()).unwrap()
}

/// Waits until something that happens outside this process is so.
pub(crate) async fn eventually(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "it never became so");
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
