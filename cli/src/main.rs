//! The `jobplane` binary: reads the command line and runs the command.

use clap::{Parser, Subcommand};
use jobplane::local::{demo, dev};
use jobplane_worker::Settings;
use std::process::ExitCode;

/// Runs background jobs for many tenants.
#[derive(Debug, Parser)]
#[command(name = "jobplane", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the whole platform on this machine
    Dev(dev::Args),
    /// See it at work: every file of a folder is a job, a worker is killed, nothing is lost
    Demo(demo::Args),
    /// Run a worker
    Worker(Settings),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Dev(args) => dev::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Worker(settings) => {
            jobplane_worker::start_logging(settings.log_format);
            jobplane_worker::run(settings).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
