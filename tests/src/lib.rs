//! What tests and benchmarks of the whole platform stand on: a real PostgreSQL, the real routes, real HTTP.

mod cell;
pub mod pooler;
mod server;

pub use cell::{Cell, Reply, seconds, text};
pub use server::{database, server};
