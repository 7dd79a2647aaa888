//! How a call or the worker itself fails: a variant for each thing that a caller does differently.

use jobplane_protocol::{ErrorCode, Problem};
use std::time::Duration;

/// The longest that the agent waits because a controller, or whatever answers in its place, asks it to.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Why a call was not answered, or the worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong. Nothing was sent: mend the setting.
    #[error("{0}")]
    Configuration(String),

    /// The controller said no, and would again: act on the problem's code.
    #[error("{0}")]
    Refused(Box<Problem>),

    /// Something in between (a gateway, a proxy, another server) answered, and not for the
    /// controller: the URL may be wrong, or the body over the gateway's limit (413).
    #[error("{url} answered {status}, and not as a jobplane controller does: {excerpt}")]
    Gateway {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        excerpt: String,
    },

    /// No answer of use after every retry that the deadline and the budget allowed. Trying later can help.
    #[error("gave up after {attempts} {}: {cause}", if *attempts == 1 { "attempt" } else { "attempts" })]
    Unavailable {
        /// How often it was tried.
        attempts: u32,
        /// What went wrong the last time.
        cause: String,
        /// Whether any of the attempts may have reached the controller and had its effect.
        may_have_arrived: bool,
        /// How long the controller asked to be left alone, if it did.
        retry_after: Option<Duration>,
    },

    /// The answer is not what this build understands: one of the two is too old.
    #[error("{url} answered what this version does not understand: {cause}")]
    Decode {
        /// What was asked.
        url: String,
        /// Where the answer stopped making sense.
        cause: String,
    },

    /// A part of the worker that the others need has ended. What ran was stopped: start the worker again.
    #[error("this worker had a fault of its own and has stopped: {0}")]
    Fault(String),
}

impl Error {
    /// The controller's code, where it was the controller that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// The HTTP status of a refusal, the controller's or a gateway's.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            Self::Gateway { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// With `log_gap`: the sequence number that the controller expects next.
    pub(crate) fn next_seq(&self) -> Option<i64> {
        match self {
            Self::Refused(problem) => problem.next_seq,
            _ => None,
        }
    }

    /// How long the controller asked to be left alone; no time at all if it did not.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Unavailable { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// The same as far as the agent goes along with it: leases run out meanwhile.
    pub(crate) fn pause(&self) -> Duration {
        self.retry_after().min(MAX_PAUSE)
    }

    /// Whether the call may have had its effect although it failed.
    pub(crate) fn may_have_arrived(&self) -> bool {
        match self {
            Self::Unavailable { may_have_arrived, .. } => *may_have_arrived,
            Self::Decode { .. } => true,
            _ => false,
        }
    }
}

/// An error and what caused it, joined: `a: b: c`.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
