//! The `jobplane-worker` binary.

use clap::Parser;
use jobplane_worker::Settings;
use std::net::SocketAddr;
use std::process::ExitCode;

/// The flag that asks the worker beside this process instead of being one.
const HEALTH: &str = "--health";

/// Takes executions from a jobplane controller and runs them.
#[derive(Debug, Parser)]
#[command(
    name = "jobplane-worker",
    version,
    after_help = "`jobplane-worker --health` asks the worker that JOBPLANE_METRICS_ADDR belongs to whether it lives: exit code 0 or 1."
)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,

    /// Say what a worker with these settings would lack here, and end: exit code 0 if nothing
    #[arg(long)]
    check: bool,
}

/// Asks the worker on this machine whether it lives: exit code 0 or 1.
#[derive(Debug, Parser)]
#[command(name = "jobplane-worker", version)]
struct Question {
    /// Ask, in place of being a worker
    #[arg(long, required = true)]
    health: bool,

    /// Where the worker listens
    #[arg(long, env = "JOBPLANE_METRICS_ADDR")]
    metrics_addr: SocketAddr,
}

fn main() -> anyhow::Result<ExitCode> {
    jobplane_worker::warden();
    work()
}

// What it does itself is little: one thread beside this one does it for less than several that wake each other.
#[tokio::main(worker_threads = 1)]
async fn work() -> anyhow::Result<ExitCode> {
    // Whoever asks needs none of the settings that a worker must have.
    if std::env::args_os().any(|argument| argument == HEALTH) {
        let question = match Question::try_parse() {
            Ok(question) => question,
            Err(wrong) => {
                wrong.print()?;
                // Health checks know no other code.
                return Ok(ExitCode::from(u8::from(wrong.use_stderr())));
            }
        };
        jobplane_worker::ask_health(question.metrics_addr).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let Arguments { settings, check } = Arguments::parse();
    jobplane_worker::start_logging(settings.log_format);
    if check {
        return Ok(if jobplane_worker::check(&settings).await {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    jobplane_worker::run(settings).await?;
    Ok(ExitCode::SUCCESS)
}
