//! The wire contract of jobplane: what goes over HTTP, its error codes and its limits. No I/O.

mod admin;
mod check;
mod error;
mod execution;
mod id;
mod job;
mod lease;
pub mod limits;
mod object;
mod schema;
mod token;

pub use admin::*;
pub use check::{Check, Checks};
pub use error::{ErrorCode, FieldError, Problem};
pub use execution::*;
pub use id::{ExecutionId, JobId, KeyId, LeaseId, TenantId, TokenId};
pub use job::*;
pub use lease::*;
pub use token::{Token, TokenKind};

/// A JSON value kept as the text it arrived in: neither parsed nor reformatted on its way through,
/// so that numbers keep their digits and `\u0000` survives.
pub type Json = Box<serde_json::value::RawValue>;

/// One page of a list, newest first.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Page<T> {
    /// The items of this page. A filtered list may answer a short or even empty page that is not
    /// the last: only a null `next_cursor` is the end.
    pub items: Vec<T>,
    /// Goes into `?cursor=` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// The query of every list.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Items per page, 1 to 1,000; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_PAGE))]
    pub limit: Option<u32>,
    /// Where the previous page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
