//! The `jobplane-worker` binary.

use clap::Parser;
use jobplane_worker::Settings;

/// Takes executions from a jobplane controller and runs them.
#[derive(Debug, Parser)]
#[command(name = "jobplane-worker", version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

fn main() -> anyhow::Result<()> {
    jobplane_worker::warden();
    work()
}

#[tokio::main]
async fn work() -> anyhow::Result<()> {
    let Arguments { settings } = Arguments::parse();
    jobplane_worker::start_logging(settings.log_format);
    Ok(jobplane_worker::run(settings).await?)
}
