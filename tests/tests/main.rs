//! The whole platform against a real PostgreSQL: one module for each concern, each test with its own database.

mod lease;
mod statements;
