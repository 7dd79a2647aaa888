//! `cargo run --release --bin bench -- SCENARIO`: measures what the scheduler must hold.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    jobplane_tests::bench::main().await
}
