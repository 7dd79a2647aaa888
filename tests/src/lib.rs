//! What tests and benchmarks of the whole platform stand on: a real PostgreSQL, the real routes, real HTTP.

pub mod bench;
mod cell;
pub mod checker;
mod connections;
mod engine;
mod fleet;
mod lambda;
pub mod pooler;
mod proxy;
mod registry;
mod secrets;
mod server;

pub use cell::{Cell, Reply, seconds, text};
pub use engine::{Engine, IMAGE};
pub use fleet::{Worker, example, program};
pub use lambda::{Lambda, event};
pub use proxy::{Faults, Proxy};
pub use registry::Registry;
pub use secrets::Secrets;
pub use server::{connect, database, server};
