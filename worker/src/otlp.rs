//! Where traces go: over OTLP to the receiver that the standard variables name, off the way of what is traced.

use crate::Error;
use crate::error::with_causes;
use opentelemetry::global;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// Where a receiver is, the most particular first.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How it is spoken to; this program knows one way.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// How long a request may take, in milliseconds.
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
/// What that is unless they say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is not sent yet may keep a program that ends.
const FLUSH: Duration = Duration::from_secs(3);
/// The name of a worker whose environment does not give it one.
const SERVICE: &str = "jobplane-worker";

/// The export of this process's traces, until it is ended.
#[must_use = "what is not sent yet is lost unless it is ended"]
pub struct TraceExport {
    provider: SdkTracerProvider,
}

impl TraceExport {
    /// Sends the traces of this process to the OTLP receiver that the standard `OTEL_…` variables name; `None` if
    /// they name none. Once per process, within its runtime. Spans wait for it in a queue: when that is full, because
    /// the receiver is slow or away, they are lost.
    ///
    /// A program with a provider of its own sets that one instead (`opentelemetry::global::set_tracer_provider`).
    ///
    /// # Errors
    /// [`Error::Configuration`] if a variable has a value that cannot work.
    pub fn start() -> Result<Option<Self>, Error> {
        if ENDPOINTS.iter().all(|name| variable(name).is_none()) || is_off() {
            return Ok(None);
        }
        if let Some(other) = first(&PROTOCOLS).filter(|protocol| protocol != "http/protobuf") {
            let detail = format!("traces are sent by http/protobuf, not {other}: mend {}", PROTOCOLS[1]);
            return Err(Error::Configuration(detail));
        }
        let refuse = |error: String| Error::Configuration(format!("traces cannot be sent: {error}"));
        let sender = Sender::new().map_err(|error| refuse(with_causes(&error)))?;
        let exporter = SpanExporter::builder().with_http().with_http_client(sender).build();
        let exporter = exporter.map_err(|error| refuse(with_causes(&error)))?;
        // In this order, since the later says over: what the environment names it counts.
        let resource = Resource::builder()
            .with_service_name(SERVICE)
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(EnvResourceDetector::new()));
        let resource = match variable("OTEL_SERVICE_NAME") {
            Some(name) => resource.with_service_name(name),
            None => resource,
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        global::set_tracer_provider(provider.clone());
        Ok(Some(Self { provider }))
    }

    /// Sends what is left, if the receiver takes it within 3 s.
    pub async fn end(self) {
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Whether the standard variables switch traces off.
fn is_off() -> bool {
    let says = |name, word| variable(name).is_some_and(|said| said.eq_ignore_ascii_case(word));
    says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none")
}

/// A variable that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first of these that is there.
fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| variable(name))
}

/// Makes the exporter's requests on the runtime, which the exporter's own thread is none of.
#[derive(Debug)]
struct Sender {
    http: reqwest::Client,
    runtime: Handle,
    /// Whether the last request failed: said when it begins and when it is over, not every time.
    failing: Arc<AtomicBool>,
}

impl Sender {
    fn new() -> Result<Self, reqwest::Error> {
        let millis = first(&TIMEOUTS).and_then(|millis| millis.parse().ok());
        let timeout = millis.map_or(TIMEOUT, Duration::from_millis);
        let http = reqwest::Client::builder().timeout(timeout).build()?;
        Ok(Self { http, runtime: Handle::current(), failing: Arc::default() })
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let (http, failing) = (self.http.clone(), self.failing.clone());
        let sent = self.runtime.spawn(async move {
            let answer = http.send_bytes(request).await;
            let trouble = match &answer {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("the receiver answered {}", answer.status())),
                Err(error) => Some(with_causes(&**error)),
            };
            let failed = failing.swap(trouble.is_some(), Ordering::Relaxed);
            match trouble {
                Some(error) if !failed => tracing::warn!(error, "traces are not taken, and will be lost"),
                None if failed => tracing::info!("traces are taken again"),
                _ => {}
            }
            answer
        });
        Box::pin(async move { sent.await? })
    }
}
