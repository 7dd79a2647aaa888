//! The lease protocol as a model: what PostgreSQL holds, what is under way, and what workers believe, step by step.
//!
//! `cargo run --release -p jobplane-model -- --help` looks at every state that a small configuration can come to. What it
//! leaves out, it leaves out for a reason:
//!
//! - **Time.** A lease may expire at any step, a backoff may be over at once, and an answer may come whenever it likes, so
//!   that no property rests on how long anything takes.
//! - **Losing and doubling messages.** A message once sent may be delivered at any step and any number of times; one that is
//!   lost is one that is never delivered.
//! - **The controller's crash.** Before its statement commits it is as if the call never came, and after that as if the
//!   answer was lost.
//! - **Heartbeats that say "held".** They change nothing but a time. What the others say, that the lease is lost or that a
//!   cancel was asked, stays true once it is, so an answer that comes late says what one that is asked for late would.

mod properties;
mod state;
mod steps;
#[cfg(test)]
mod tests;

use clap::Parser;
use stateright::report::WriteReporter;
use stateright::{Checker, Model};
use steps::{Protocol, Rules};

/// Checks the lease protocol in every state of a small configuration. The number of states grows steeply with each of
/// these: begin small.
#[derive(Debug, Parser)]
struct Args {
    /// How many executions wait in the beginning
    #[arg(long, default_value_t = 2)]
    executions: u8,
    /// How many workers there are
    #[arg(long, default_value_t = 2)]
    workers: u8,
    /// How many times each worker asks for work
    #[arg(long, default_value_t = 1)]
    leases: u8,
    /// How many tries an execution has
    #[arg(long, default_value_t = 2)]
    max_attempts: u8,
    /// The tenant's concurrency limit
    #[arg(long, default_value_t = 1)]
    limit: u8,
    /// How many threads look
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() {
    let Args { executions, workers, leases, max_attempts, limit, threads } = Args::parse();
    let protocol = Protocol { executions, workers, leases, max_attempts, limit, rules: Rules::default() };
    let checker = protocol.checker().threads(threads).spawn_bfs();
    checker.join_and_report(&mut WriteReporter::new(&mut std::io::stdout())).assert_properties();
}
