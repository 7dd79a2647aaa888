//! A result on its way to the controller, in a form that the contract takes.

use crate::agent::LeaseKey;
use crate::runtime::Ending;
use crate::trace::Trace;
use jobplane_protocol::{ResultItem, limits};
use opentelemetry::trace::SpanKind;
use tracing::Span;

/// A result on its way.
#[derive(Debug)]
pub(in crate::agent) struct Report {
    pub(super) item: ResultItem,
    /// Of its attempt, for lines about it.
    pub(super) span: Span,
    /// Of itself, until it is answered.
    pub(super) sending: Trace,
    /// Of its attempt, which ends then too.
    trace: Trace,
    /// Of the item as JSON, with the comma after it.
    pub(super) bytes: usize,
    /// Whether this already is what is said in place of a result that was refused.
    pub(super) replaced: bool,
}

impl Report {
    /// How an attempt ended, within its span.
    pub(in crate::agent) fn new((execution_id, lease_id): LeaseKey, ending: Ending, trace: Trace) -> Self {
        let Ending { outcome, exit_code, error, result, retryable, retry_after_seconds, .. } = ending;
        let error = error.as_deref().map(sendable);
        let item = ResultItem {
            execution_id,
            lease_id,
            outcome,
            exit_code,
            error,
            result,
            retryable,
            retry_after_seconds,
        };
        let bytes = serde_json::to_vec(&item).map_or(0, |json| json.len() + 1);
        let sending = trace.within("report", SpanKind::Client);
        Self { item, span: Span::current(), sending, trace, bytes, replaced: false }
    }

    /// An attempt that was never started goes back unspent.
    pub(in crate::agent) fn released(key: LeaseKey, trace: Trace) -> Self {
        Self::new(key, Ending::released(), trace)
    }

    pub(in crate::agent) fn key(&self) -> LeaseKey {
        (self.item.execution_id, self.item.lease_id)
    }

    /// What is said when the controller refuses the result itself: failed, and it always would.
    pub(super) fn refused(&self, why: &str) -> Self {
        let why = format!("the result was refused: {why}");
        let ending = Ending { exit_code: self.item.exit_code, ..Ending::impossible(why) };
        Self { replaced: true, ..Self::new(self.key(), ending, self.trace.clone()) }
    }
}

/// An error's text as the contract takes it: no U+0000, which a job may well write, and bounded. A
/// text that is refused would make a failure that can be tried again one for good.
fn sendable(error: &str) -> String {
    let mut error = error.replace('\0', "\u{fffd}");
    error.truncate(error.floor_char_boundary(limits::MAX_ERROR_BYTES));
    error
}
