//! The jobplane command line, and the whole platform on one machine.

pub mod local;
