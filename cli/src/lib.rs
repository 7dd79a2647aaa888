//! The jobplane command line, and the whole platform on one machine.

pub mod commands;
pub mod failure;
pub mod local;
pub mod output;
mod pages;
pub mod profile;
mod progress;
pub mod session;
mod sources;
mod table;
mod tail;
mod time;
mod values;
mod watch;
