//! How a command fails: what is told to the person, and the exit code that scripts see.

use crate::session::Session;
use jobplane_protocol::{Check, Checks, ErrorCode};
use jobplane_worker::Error as CallError;
use serde::Serialize;
use std::io;
use std::process::ExitCode;

/// Nothing more precise is known.
pub const ERROR: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// The controller could not be reached, or asked to come back later: trying again can help.
pub const UNAVAILABLE: u8 = 3;
/// What was named does not exist.
pub const NOT_FOUND: u8 = 4;
/// No token, or one that the controller does not accept for this.
pub const NOT_ALLOWED: u8 = 5;
/// The execution that was waited for ended as FAILED.
pub const FAILED: u8 = 10;
/// The execution that was waited for ended as CANCELLED.
pub const CANCELLED: u8 = 11;
/// `--timeout` passed before the execution ended.
pub const TIMED_OUT: u8 = 124;
/// Interrupted with Ctrl-C while waiting.
pub const INTERRUPTED: u8 = 130;
/// Whoever read the output went away, as with `| head`.
pub const BROKEN_PIPE: u8 = 141;

/// The same, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  done; with --wait or --watch: the execution SUCCEEDED
    1  an error, told on stderr
    2  the command line makes no sense
    3  the controller cannot be reached, is unavailable or asks to come back later (rate limit)
    4  what was named does not exist
    5  no token that the controller accepts for this
   10  with --wait or --watch: the execution FAILED
   11  with --wait or --watch: the execution was CANCELLED
  124  with --wait or --watch: --timeout passed first
  130  interrupted while waiting (the execution goes on)
  141  the reader of the output went away, as with `| head`";

/// What the command line itself finds wrong, by what a script would do about it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// A name that is wanted belongs to another.
    #[error("{0}")]
    Taken(String),
    /// There is no token that fits.
    #[error("{0}")]
    Token(String),
    /// Nothing listens where the controller should be.
    #[error("{0}")]
    Unreachable(String),
}

impl Refusal {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::NotFound(_) => NOT_FOUND,
            Self::Taken(_) => ERROR,
            Self::Token(_) => NOT_ALLOWED,
            Self::Unreachable(_) => UNAVAILABLE,
        }
    }

    /// Explains why nothing of this name could be created.
    pub(crate) fn of_create(error: CallError, what: &str, name: &str) -> anyhow::Error {
        if error.code() != Some(ErrorCode::NameTaken) {
            return error.into();
        }
        let advice = format!(
            "there is a {what} {name:?} already\n  `jobplane {what} show {name}` shows it, `jobplane {what} update \
             {name}` changes it"
        );
        Self::Taken(advice).into()
    }

    /// Refuses a request that the controller would refuse, before anything is sent.
    ///
    /// # Errors
    /// [`Refusal::Usage`] with every field that is not acceptable.
    pub fn check(request: &impl Check) -> Result<(), Self> {
        Checks::of(request).map_err(|(_, errors)| {
            let complaints = errors.iter().map(|error| format!("{}: {}", error.field, error.detail));
            Self::Usage(complaints.collect::<Vec<_>>().join("; "))
        })
    }

    /// As [`Refusal::check`], and refuses a change that changes nothing.
    ///
    /// # Errors
    /// [`Refusal::Usage`] when no field is given or one is not acceptable.
    pub fn check_change(request: &(impl Check + Serialize)) -> anyhow::Result<()> {
        if serde_json::to_value(request)? == serde_json::json!({}) {
            return Err(Self::Usage("nothing is to change; see --help for what can".to_owned()).into());
        }
        Ok(Self::check(request)?)
    }
}

/// Why a command ended without success.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::of(&error, None)
    }
}

impl Failure {
    /// Explains an error, with what the session knows about where URL and token came from.
    pub fn of(error: &anyhow::Error, session: Option<&Session>) -> Self {
        let call = error.chain().find_map(|cause| cause.downcast_ref::<CallError>());
        let message = match call.and_then(CallError::code) {
            // The controller's own words are for whoever writes HTTP.
            Some(ErrorCode::Unauthorized) => "the token is not accepted".to_owned(),
            _ => crate::output::printable(&format!("{error:#}")),
        };
        let hint = call.zip(session).and_then(|(call, session)| hint(call, session));
        Self { message, hint, code: code(error, call) }
    }

    /// Tells it on stderr.
    pub fn report(&self) -> ExitCode {
        if self.code != BROKEN_PIPE {
            anstream::eprintln!("{}", crate::output::error_text(&self.message, self.hint.as_deref()));
        }
        ExitCode::from(self.code)
    }
}

fn code(error: &anyhow::Error, call: Option<&CallError>) -> u8 {
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_broken_pipe) {
        return BROKEN_PIPE;
    }
    if let Some(refusal) = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()) {
        return refusal.code();
    }
    match call {
        Some(CallError::Refused(problem)) => match problem.status {
            404 => NOT_FOUND,
            401 | 403 => NOT_ALLOWED,
            _ => ERROR,
        },
        Some(CallError::Unavailable { .. }) => UNAVAILABLE,
        Some(CallError::Configuration(_)) => USAGE,
        _ => ERROR,
    }
}

/// What the person can do about a call that failed.
fn hint(error: &CallError, session: &Session) -> Option<String> {
    let target = &session.target;
    match error {
        CallError::Refused(problem) => match problem.code {
            ErrorCode::Unauthorized => Some(format!(
                "The token came from {}; it is unknown to {}, revoked or expired.",
                target.token_origin, target.url
            )),
            ErrorCode::WrongTokenKind => Some(format!(
                "The token came from {}; this command needs {}.",
                target.token_origin,
                target.need.token()
            )),
            _ => None,
        },
        CallError::Unavailable { may_have_arrived: false, retry_after: Some(wait), .. } => {
            Some(format!("Nothing was done. Try again in {} s.", wait.as_secs().max(1)))
        }
        CallError::Unavailable { may_have_arrived: false, .. } => Some(target.unreachable()),
        CallError::Unavailable { .. } => Some(format!(
            "{} (from {}) gave no usable answer in time. It may have taken the request: look before repeating it.",
            target.url, target.url_origin
        )),
        CallError::Gateway { .. } | CallError::Decode { .. } => {
            Some(format!("The URL came from {}; is it a jobplane controller's?", target.url_origin))
        }
        CallError::Configuration(_) | CallError::Fault(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_see_what_kind_of_error_it_was() {
        let pipe = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert_eq!(Failure::of(&pipe, None).code, BROKEN_PIPE);
        assert_eq!(Failure::of(&Refusal::Usage("x".into()).into(), None).code, USAGE);
        assert_eq!(Failure::of(&Refusal::NotFound("x".into()).into(), None).code, NOT_FOUND);
        assert_eq!(Failure::of(&anyhow::anyhow!("x"), None).code, ERROR);
    }
}
