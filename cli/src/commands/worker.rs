//! `jobplane worker`: a worker on this machine, the same as the `jobplane-worker` binary.

use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: jobplane_worker::Settings,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    jobplane_worker::start_logging(args.settings.log_format);
    jobplane_worker::run(args.settings).await?;
    Ok(ExitCode::SUCCESS)
}
