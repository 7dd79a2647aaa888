//! An attempt as logs and traces show it: the span that every line about it is in, and those that traces have of it.

use crate::agent::LeaseKey;
use crate::runtime::Ending;
use jiff::Timestamp;
use jobplane_protocol::{LeasedExecution, Outcome};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::HashMap;
use std::time::SystemTime;
use tracing::Span;

/// The one field of a carrier that matters here.
const TRACEPARENT: &str = "traceparent";
/// What a span tells of an error, in bytes: the whole of it is the attempt's.
const MAX_STATUS_BYTES: usize = 1_000;

/// The span of one attempt in the log. It is an error's, so that no filter of lines takes away what the others are
/// about.
pub(crate) fn lines(leased: &LeasedExecution, (execution_id, lease_id): LeaseKey, trace: &Trace) -> Span {
    let trace_id = trace.id();
    tracing::error_span!("attempt", %execution_id, attempt = leased.attempt, %lease_id, trace_id)
}

/// A span of a trace. Clones are the same one, which ends with the last of them. Where nobody has set a provider of
/// traces it is none, and stands for the span that the execution was asked for in.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    context: Context,
}

impl Trace {
    /// Begins the span of an attempt, within the one that its execution was asked for in, with that of its lease
    /// since the request for it was sent, which ends here.
    pub(crate) fn begin(
        leased: &LeasedExecution,
        (execution_id, lease_id): LeaseKey,
        asked: Timestamp,
    ) -> Self {
        let began = SystemTime::from(asked);
        let attempt = SpanBuilder::from_name("attempt")
            .with_kind(SpanKind::Consumer)
            .with_start_time(began)
            .with_attributes([
                KeyValue::new("jobplane.execution.id", execution_id.to_string()),
                KeyValue::new("jobplane.attempt", i64::from(leased.attempt)),
                KeyValue::new("jobplane.lease.id", lease_id.to_string()),
                KeyValue::new("jobplane.tenant.id", leased.tenant_id.to_string()),
                KeyValue::new("jobplane.job.id", leased.job.id.to_string()),
                KeyValue::new("jobplane.job.name", leased.job.name.clone()),
                KeyValue::new("jobplane.queue", leased.queue.clone()),
            ]);
        let attempt = Self::new(attempt, &caller(leased));
        let lease = SpanBuilder::from_name("lease").with_kind(SpanKind::Client).with_start_time(began);
        drop(Self::new(lease, &attempt.context));
        attempt
    }

    /// Begins a span within this one.
    pub(crate) fn within(&self, name: &'static str, kind: SpanKind) -> Self {
        Self::new(SpanBuilder::from_name(name).with_kind(kind), &self.context)
    }

    fn new(span: SpanBuilder, parent: &Context) -> Self {
        let scope = InstrumentationScope::builder("jobplane-worker").with_version(env!("CARGO_PKG_VERSION"));
        let span = global::tracer_with_scope(scope.build()).build_with_context(span, parent);
        Self { context: parent.with_span(span) }
    }

    /// What runs within it.
    pub(crate) fn context(&self) -> Context {
        self.context.clone()
    }

    /// Says how the attempt ended.
    pub(crate) fn ended(&self, ending: &Ending) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("jobplane.outcome", ending.outcome.as_str()));
        if let Some(code) = ending.exit_code {
            span.set_attribute(KeyValue::new("process.exit.code", i64::from(code)));
        }
        if matches!(ending.outcome, Outcome::Failed | Outcome::TimedOut) {
            self.failed(ending.error.as_deref().unwrap_or_default());
        }
    }

    /// Says that what it is about did not succeed.
    pub(crate) fn failed(&self, why: &str) {
        let why = &why[..why.floor_char_boundary(MAX_STATUS_BYTES)];
        self.context.span().set_status(Status::error(why.to_owned()));
    }

    /// The W3C `traceparent` of what goes on within it, if there is a trace.
    pub(crate) fn parent(&self) -> Option<String> {
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&self.context, &mut carrier);
        carrier.remove(TRACEPARENT)
    }

    /// The trace, if there is one.
    fn id(&self) -> Option<String> {
        let span = self.context.span();
        let of = span.span_context();
        of.is_valid().then(|| of.trace_id().to_string())
    }
}

/// The span that the execution was asked for in; none if what was said is no `traceparent`.
fn caller(leased: &LeasedExecution) -> Context {
    let said = leased.traceparent.clone().map(|said| (TRACEPARENT.to_owned(), said));
    let carrier: HashMap<_, _> = said.into_iter().collect();
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::tests::execution;
    use jobplane_protocol::LeaseId;

    fn trace(traceparent: &str) -> Trace {
        let leased = LeasedExecution { traceparent: Some(traceparent.to_owned()), ..execution(&["true"]) };
        Trace::begin(&leased, (leased.execution_id, LeaseId::random()), Timestamp::now())
    }

    #[test]
    fn without_a_provider_the_callers_span_is_handed_on() {
        let said = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = trace(said);
        assert_eq!(trace.id().as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(trace.within("run", SpanKind::Internal).parent().as_deref(), Some(said));
    }

    #[test]
    fn what_is_no_traceparent_is_no_trace() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let none = "0".repeat(32);
        for other in ["", "00-x", id, &format!("00-{none}-00f067aa0ba902b7-01"), &format!("00-{id}-")] {
            let trace = trace(other);
            assert_eq!((trace.id(), trace.parent()), (None, None), "{other}");
        }
    }
}
