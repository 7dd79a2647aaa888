//! The whole platform on one machine: its PostgreSQL, `jobplane dev` and `jobplane demo`.

pub mod demo;
pub mod dev;
mod guard;
pub mod platform;
pub mod postgres;
