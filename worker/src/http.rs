//! HTTP for operators: `/healthz`, `/readyz` and `/metrics`, and the question that a container asks its own worker.

use crate::health::Health;
use crate::{Client, Credential, Error, RetryPolicy, Shutdown, metrics};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::interval;

/// The text format that Prometheus has read since 2014.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Between two tidyings of what histograms have gathered, which would grow for ever where nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long a worker may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the pages are made of.
#[derive(Clone)]
struct Pages {
    health: Arc<Health>,
    phase: watch::Receiver<Shutdown>,
    metrics: PrometheusHandle,
}

/// Serves at `address` for as long as the answer is kept.
///
/// # Errors
/// [`Error::Configuration`] if the address cannot be had.
pub(crate) async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    phase: watch::Receiver<Shutdown>,
) -> Result<JoinSet<()>, Error> {
    let refuse = |error| Error::Configuration(format!("cannot listen at {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let address = listener.local_addr().map_err(refuse)?;
    let metrics = metrics::install()?;
    let pages = Pages { health, phase, metrics: metrics.clone() };
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        if let Err(error) = axum::serve(listener, router(pages)).await {
            tracing::error!(%error, "nothing is served to operators any more");
        }
    });
    serving.spawn(async move {
        let mut due = interval(UPKEEP);
        loop {
            due.tick().await;
            metrics.run_upkeep();
        }
    });
    tracing::info!(%address, "listening");
    Ok(serving)
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(pages)
}

async fn healthz(State(pages): State<Pages>) -> impl IntoResponse {
    verdict(pages.health.fault())
}

async fn readyz(State(pages): State<Pages>) -> impl IntoResponse {
    verdict(pages.health.unready(&pages.phase))
}

fn verdict(trouble: Option<&'static str>) -> impl IntoResponse {
    match trouble {
        None => (StatusCode::OK, Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))),
        Some(detail) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unavailable", "detail": detail })))
        }
    }
}

async fn scrape(State(pages): State<Pages>) -> impl IntoResponse {
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], pages.metrics.render())
}

/// Asks the worker that listens at `metrics_addr` on this machine whether it lives: for images that hold nothing else
/// which could ask.
///
/// # Errors
/// Every variant of [`Error`] but [`Error::Fault`]: it does not, or not there.
pub async fn ask_health(metrics_addr: SocketAddr) -> Result<(), Error> {
    let mut address = metrics_addr;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let policy = RetryPolicy { attempt_timeout: PATIENCE, deadline: PATIENCE, ..RetryPolicy::default() };
    let client = Client::with_policy(&format!("http://{address}"), Credential::None, policy)?;
    client.get("/healthz").once().send_raw().await.map(drop)
}
