//! How a deployed function starts: settings, its part of the table of routes, then the Lambda runtime.

use crate::{App, Config, routes};
use lambda_http::Error;
use lambda_runtime::{LambdaEvent, service_fn};
use tracing_subscriber::EnvFilter;

/// Connections of a copy, which serves one request at a time, and one for the tick.
const POOL_SIZE: i32 = 2;

/// Serves the routes of one function until Lambda ends the copy.
pub async fn run(function: &'static str) -> Result<(), Error> {
    log();
    let app = App::new(&Config::from_env(POOL_SIZE)?)?;
    lambda_http::run(routes::serve(app, |route| route.function == function)).await
}

/// Sweeps at each scheduled event, whatever the event says.
pub async fn run_sweep() -> Result<(), Error> {
    log();
    let app = App::new(&Config::from_env(POOL_SIZE)?)?;
    lambda_runtime::run(service_fn(|_: LambdaEvent<serde_json::Value>| async {
        let swept = crate::sweep(&app).await?;
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

/// JSON lines for CloudWatch, which adds the time; `RUST_LOG` sets how much.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().without_time().with_env_filter(filter).init();
}
