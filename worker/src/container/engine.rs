//! The container engine: how it is reached, and what its errors mean.

use super::settings::ContainerSettings;
use crate::Error;
use crate::error::with_causes;
use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker};
use std::time::Duration;

/// How long the engine may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to answer a question that waits for something: longer than a job may run.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);
/// What an engine says of a program that cannot be run.
const NO_PROGRAM: [&str; 5] =
    ["executable file", "no such file or directory", "permission denied", "exec format error", "no command"];

/// A connection to the engine.
///
/// # Errors
/// [`Error::Configuration`] if there is no such socket, or no way to speak to such an address.
pub(super) fn connect(settings: &ContainerSettings) -> Result<Docker, Error> {
    let host = settings.host();
    let timeout = CALL_TIMEOUT.as_secs();
    let connected = if host.starts_with("tcp://") || host.starts_with("http://") {
        Docker::connect_with_http(&host, timeout, API_DEFAULT_VERSION)
    } else if host.starts_with("unix://") || !host.contains("://") {
        Docker::connect_with_unix(&host, timeout, API_DEFAULT_VERSION)
    } else {
        let detail = format!("{host} cannot be reached: only engines at unix://, tcp:// and http:// can");
        return Err(Error::Configuration(detail));
    };
    connected.map_err(|error| unreachable(&host, &error))
}

/// The same connection for calls that wait.
pub(super) fn patient(engine: &Docker) -> Docker {
    engine.clone().with_timeout(WAIT_TIMEOUT)
}

pub(super) fn unreachable(host: &str, error: &EngineError) -> Error {
    Error::Configuration(format!("the container engine at {host} does not answer: {}", with_causes(error)))
}

/// Whether the engine has no such thing.
pub(super) fn is_absent(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the engine was not there to answer.
pub(super) fn is_away(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::RequestTimeoutError
            | EngineError::IOError { .. }
            | EngineError::HyperResponseError { .. }
            | EngineError::HyperLegacyError { .. }
            | EngineError::SocketNotFoundError(_)
    )
}

/// Whether it is the program that cannot be run, if it is not the machine that cannot run one.
pub(super) fn not_a_program(error: &EngineError) -> bool {
    says(error, &NO_PROGRAM)
}

pub(super) fn says(error: &EngineError, any: &[&str]) -> bool {
    let text = error.to_string().to_lowercase();
    any.iter().any(|part| text.contains(part))
}

pub(super) fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
