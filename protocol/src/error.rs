//! How the API says no: RFC 9457 problem documents with a stable code.

use crate::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The stable name of what went wrong. A caller switches on this, never on `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 401: no token, or one that is unknown, revoked or expired.
    Unauthorized,
    /// 403: a good token of another kind than the route wants.
    WrongTokenKind,
    /// 403: the worker token's scope does not reach that queue or tenant.
    OutOfScope,
    /// 404: no such route.
    RouteNotFound,
    /// 405: the route exists, this method on it does not.
    MethodNotAllowed,
    /// 404: no such execution (of this caller).
    ExecutionNotFound,
    /// 404: no such job, or a deleted one that was asked to run.
    JobNotFound,
    /// 404: no such tenant.
    TenantNotFound,
    /// 404: no such key.
    KeyNotFound,
    /// 404: no such worker token.
    TokenNotFound,
    /// 404: no such queue.
    QueueNotFound,
    /// 404: that execution is not a dead letter.
    DeadLetterNotFound,
    /// 409: the lease has moved on; stop the job and report nothing.
    LeaseLost,
    /// 409: that `lease_id` was used by another token; pick a fresh one.
    LeaseIdTaken,
    /// 409: the chunk does not start at the next sequence number; `next_seq` says which is expected.
    LogGap,
    /// 409: the execution has ended, there is nothing left to cancel.
    AlreadyFinished,
    /// 409: a tenant or a job of that name exists.
    NameTaken,
    /// 413: the body is over the limit of a request.
    RequestTooLarge,
    /// 413: the input is over its limit.
    InputTooLarge,
    /// 413: the result is over its limit.
    ResultTooLarge,
    /// 413: the log chunk is over its limit.
    LogChunkTooLarge,
    /// 422: the body is not JSON in UTF-8.
    InvalidJson,
    /// 422: a field is missing, unknown or not acceptable; `errors` names each.
    InvalidRequest,
    /// 422: this `Idempotency-Key` was used with another body.
    IdempotencyKeyReused,
    /// 429: the tenant's rate limit; wait for `Retry-After`.
    RateLimited,
    /// 500: our fault; the same call may be tried again.
    Internal,
    /// 503: the database is away or full; wait for `Retry-After`.
    Unavailable,
    /// Any code this build does not know: it came from a newer controller.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status that goes with the code, the same on every route.
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::WrongTokenKind | Self::OutOfScope => 403,
            Self::RouteNotFound
            | Self::ExecutionNotFound
            | Self::JobNotFound
            | Self::TenantNotFound
            | Self::KeyNotFound
            | Self::TokenNotFound
            | Self::QueueNotFound
            | Self::DeadLetterNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::LeaseLost | Self::LeaseIdTaken | Self::LogGap | Self::AlreadyFinished | Self::NameTaken => {
                409
            }
            Self::RequestTooLarge | Self::InputTooLarge | Self::ResultTooLarge | Self::LogChunkTooLarge => {
                413
            }
            Self::InvalidJson | Self::InvalidRequest | Self::IdempotencyKeyReused => 422,
            Self::RateLimited => 429,
            Self::Internal | Self::Unknown => 500,
            Self::Unavailable => 503,
        }
    }

    /// A short title for people, the same for every occurrence.
    pub fn title(self) -> &'static str {
        match self.status() {
            401 => "Not authenticated",
            403 => "Not allowed",
            404 => "Not found",
            405 => "Method not allowed",
            409 => "Conflict",
            413 => "Too large",
            422 => "Not acceptable as sent",
            429 => "Too many requests",
            503 => "Temporarily unavailable",
            _ => "Internal error",
        }
    }
}

/// One field that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldError {
    /// The path of the field in the request, such as `runs[3].priority`.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl FieldError {
    /// A refusal of this field. Both texts may repeat what the caller sent, so both are cut to what an answer can bear.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: cut(field.into()), detail: cut(detail.into()) }
    }
}

/// The text, or its beginning if it is too long for an error.
fn cut(mut text: String) -> String {
    if text.len() > limits::MAX_ERROR_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(limits::MAX_ERROR_TEXT_BYTES));
        text.push('…');
    }
    text
}

/// The body of every error, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A URN that stands for the code.
    pub r#type: String,
    /// The title of the code's status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ErrorCode,
    /// What happened and what to do, safe to show to a person.
    pub detail: String,
    /// The fields that were refused, where there are some: the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// With `log_gap`: the sequence number that is expected next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_seq: Option<i64>,
}

impl Problem {
    /// A problem with this code and this sentence.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let name =
            serde_json::to_value(code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        Self {
            r#type: format!("urn:jobplane:error:{name}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: cut(detail.into()),
            errors: Vec::new(),
            next_seq: None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.detail)?;
        for error in &self.errors {
            write!(f, "; {}: {}", error.field, error.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
