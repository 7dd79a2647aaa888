//! The `jobplane` binary: reads the command line, runs the command, says what went wrong.

use clap::Parser;
use jobplane::commands::{Cli, dispatch};
use std::process::ExitCode;

fn main() -> ExitCode {
    jobplane_worker::warden();
    command()
}

#[tokio::main]
async fn command() -> ExitCode {
    match dispatch(Cli::parse()).await {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
