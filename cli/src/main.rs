//! The `jobplane` binary: reads the command line, runs the command, says what went wrong.

use clap::Parser;
use jobplane::commands::{Cli, dispatch};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match dispatch(Cli::parse()).await {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
