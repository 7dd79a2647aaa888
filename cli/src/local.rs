//! The whole platform on one machine: its PostgreSQL, `jobplane dev` and `jobplane demo`.

mod guard;
pub mod postgres;
