//! The whole platform against a real PostgreSQL: one module for each concern, each test with its own database.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod bad_input;
mod cli;
mod concurrency;
mod containers;
mod contract;
mod deployment;
mod encryption;
mod executions;
mod faults;
mod handlers;
mod history;
mod invocations;
mod lease;
mod limits;
mod loss;
mod operators;
mod paths;
mod python;
mod queue;
mod requests;
mod retention;
mod secrets;
mod shapes;
mod soak;
mod statements;
mod tenancy;
mod traces;
mod volume;
mod watch;
mod worker;
