//! How a deployed function starts: settings, its part of the table of routes, then the Lambda runtime.

use crate::config::function_pool_size;
use crate::invocation::{log_panics, surround, until_its_end, without_stage};
use crate::{App, Config, routes};
use axum::middleware::from_fn;
use axum::response::Response;
use lambda_http::tower::ServiceExt;
use lambda_http::{Error, IntoResponse};
use lambda_runtime::{LambdaEvent, service_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::EnvFilter;

/// Serves the routes of one function until Lambda ends the copy, as many at once as Lambda hands to it.
pub async fn run(function: &'static str) -> Result<(), Error> {
    log();
    let routes = match app() {
        Ok(app) => routes::serve(app, |route| route.function == function),
        Err(error) => unserved(error),
    };
    let service = routes.map_request(without_stage).map_response(|answer| Answer(Mutex::new(answer)));
    lambda_http::run_concurrent(service).await
}

/// An answer that several threads may hold, as the runtime for many requests at once wants it; none of them looks into it.
struct Answer(Mutex<Response>);

impl IntoResponse for Answer {
    fn into_response(self) -> Pin<Box<dyn Future<Output = lambda_http::Response<lambda_http::Body>> + Send>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_response()
    }
}

/// Sweeps at each scheduled event, whatever the event says.
pub async fn run_sweep() -> Result<(), Error> {
    log();
    let app = app().map_err(Arc::new);
    lambda_runtime::run(service_fn(async |event: LambdaEvent<serde_json::Value>| {
        let app = app.as_ref().map_err(|error| crate::Error::Unserved(error.clone()))?;
        let swept = until_its_end(&event.context, crate::sweep(app)).await?;
        tracing::info!(?swept, "swept");
        Ok::<_, Error>(())
    }))
    .await
}

/// Prepares the database for this build at each event of a deployment.
pub async fn run_migrate() -> Result<(), Error> {
    log();
    lambda_runtime::run(service_fn(async |event: LambdaEvent<serde_json::Value>| {
        Ok::<_, Error>(crate::deployment::deploy(event.payload).await?)
    }))
    .await
}

fn app() -> Result<App, crate::Error> {
    App::new(&Config::from_env(function_pool_size())?)
}

/// What a copy serves whose settings are wrong: it would be started again and again otherwise, and callers would get the
/// gateway's own errors.
fn unserved(error: crate::Error) -> axum::Router {
    tracing::error!(cause = %error, "the settings are such that nothing can be served");
    let error = Arc::new(error);
    axum::Router::new().fallback(async move || crate::Error::Unserved(error.clone())).layer(from_fn(surround))
}

/// JSON lines for CloudWatch, which adds the time; `RUST_LOG` sets how much.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_span_list(false).without_time().with_env_filter(filter).init();
    log_panics();
}
