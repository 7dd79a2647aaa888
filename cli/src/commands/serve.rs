//! `jobplane serve` and `jobplane migrate`: the control plane as one process, with the settings of the deployed functions.

use crate::local::platform::{Http, sweep_for_ever};
use crate::output::Output;
use anyhow::Context;
use jobplane_functions::{App, Config, prepare, router};
use jobplane_worker::Shutdown;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Connections, where the settings do not say.
const POOL_SIZE: i32 = 10;

/// What `jobplane serve` can be told; the rest are the settings of docs/configuration.md, in the environment.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen
    #[arg(long, env = "JOBPLANE_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Bring the database to this version's schema first
    #[arg(long)]
    migrate: bool,
}

/// Serves until a signal, then finishes what it has begun.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    jobplane_worker::start_logging(None);
    let config = Config::from_env(POOL_SIZE)?;
    if args.migrate {
        let schema_version = prepare(&config.database).await?;
        tracing::info!(schema_version, "the schema is this version's");
    }
    // From here on: until then a signal ends the process, which may wait for another's migration.
    let mut shutdown = jobplane_worker::on_signals()?;
    let app = App::new(&config)?;
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let sweeper = tokio::spawn(sweep_for_ever(app.clone(), Arc::new(|line| tracing::error!("{line}"))));
    let mut http = Http::serve(listener, router(app))?;
    tracing::info!(url = http.url(), "serving");
    let asked = shutdown.wait_for(|now| *now >= Shutdown::Draining).await.is_ok();
    tracing::info!(asked, "finishing what was begun");
    http.stop().await;
    sweeper.abort();
    Ok(ExitCode::SUCCESS)
}

/// Makes the database ready for this version, and says at which schema it is.
pub(super) async fn migrate(output: &Output) -> anyhow::Result<ExitCode> {
    jobplane_worker::start_logging(None);
    let schema_version = prepare(&Config::from_env(POOL_SIZE)?.database).await?;
    output.show(&serde_json::json!({ "schema_version": schema_version }), || {
        format!("The schema is at version {schema_version}.")
    })?;
    Ok(ExitCode::SUCCESS)
}
