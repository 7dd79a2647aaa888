//! The span of an attempt: what every line about it says it is about.

use crate::agent::LeaseKey;
use jobplane_protocol::LeasedExecution;
use tracing::Span;

/// Of the 55 characters of a W3C `traceparent`, those of the trace's id.
const TRACE_ID: std::ops::Range<usize> = 3..35;

/// The span of one attempt. It is an error's, so that no filter of lines takes away what the others are about.
pub(crate) fn attempt(leased: &LeasedExecution, (execution_id, lease_id): LeaseKey) -> Span {
    let trace_id = leased.traceparent.as_deref().and_then(trace_id);
    tracing::error_span!("attempt", %execution_id, attempt = leased.attempt, %lease_id, trace_id)
}

/// The trace that a `traceparent` belongs to, if it is one.
fn trace_id(traceparent: &str) -> Option<&str> {
    let id = traceparent.get(TRACE_ID)?;
    let is_hex = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_apart =
        [TRACE_ID.start - 1, TRACE_ID.end].iter().all(|&at| traceparent.as_bytes().get(at) == Some(&b'-'));
    (is_hex && is_apart && id.bytes().any(|digit| digit != b'0')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_known_by_a_traceparent_that_is_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
        assert_eq!(trace_id(&format!("01-{id}-00f067aa0ba902b7-01-more")), Some(id));
        let none = "0".repeat(32);
        for other in
            ["", "00-x", id, &format!("00-{none}-00f067aa0ba902b7-01"), &format!("00-{}-", id.to_uppercase())]
        {
            assert_eq!(trace_id(other), None, "{other}");
        }
    }
}
