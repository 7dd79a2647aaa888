//! Why a handler failed, and whether trying again can help.

use crate::runtime::Ending;
use jobplane_protocol::limits;
use std::fmt::{Debug, Display, Formatter, Result as Written};
use std::time::Duration;

/// Why a handler failed. `?` makes one of any error, [`anyhow::Error`] included: its text and those of its causes
/// become the error of the attempt (16 KB at most), and the execution is tried again if it has tries left.
///
/// ```
/// # use jobplane_worker::JobError;
/// fn size(text: &str) -> Result<u32, JobError> {
///     // Tried again: perhaps the file is there by then.
///     let unit = std::fs::read_to_string("unit")?;
///     // Not tried again: the same text would be as wrong then.
///     text.trim_end_matches(&unit).parse().map_err(|error| JobError::from(error).not_retryable())
/// }
/// ```
pub struct JobError {
    cause: anyhow::Error,
    retryable: bool,
    retry_after: Option<Duration>,
}

impl JobError {
    /// An error that is only a text.
    pub fn new(message: impl Display + Debug + Send + Sync + 'static) -> Self {
        anyhow::Error::msg(message).into()
    }

    /// No other try would do better: the execution is a dead letter at once.
    #[must_use]
    pub fn not_retryable(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// The wait before the next try, instead of the job's backoff; a week at most.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What is reported of it.
    pub(super) fn ending(&self) -> Ending {
        let seconds = |wait: Duration| {
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
            i32::try_from(seconds).unwrap_or(i32::MAX).min(limits::MAX_BACKOFF_SECONDS)
        };
        Ending {
            retryable: (!self.retryable).then_some(false),
            retry_after_seconds: self.retry_after.map(seconds),
            ..Ending::failed(self.to_string())
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for JobError {
    fn from(cause: E) -> Self {
        Self { cause: cause.into(), retryable: true, retry_after: None }
    }
}

impl Display for JobError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        write!(f, "{:#}", self.cause)
    }
}

impl Debug for JobError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        Debug::fmt(&self.cause, f)
    }
}
