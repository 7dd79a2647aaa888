//! The container engine: how it is reached, and what its errors mean for an attempt.

use super::settings::ContainerSettings;
use crate::Error;
use crate::error::with_causes;
use crate::runtime::Ending;
use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker};
use std::time::Duration;

/// How long the engine may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to answer a question that waits for something: longer than a job may run.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);
/// What an engine says, at the creation or the start, whose init process is not installed.
const NO_INIT: [&str; 3] = ["container-init binary", "catatonit", "docker-init"];
/// What an engine says when the machine has run out of something.
const NO_MEANS: [&str; 4] = [
    "no space left on device",
    "cannot allocate memory",
    "too many open files",
    "resource temporarily unavailable",
];
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
        let detail = format!("{host} cannot be reached: only unix:// and tcp:// container engines can");
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

/// Whether it wants an init process that is not installed.
pub(super) fn lacks_init(error: &EngineError) -> bool {
    says(error, &NO_INIT)
}

fn says(error: &EngineError, any: &[&str]) -> bool {
    let text = error.to_string().to_lowercase();
    any.iter().any(|part| text.contains(part))
}

/// An attempt whose container could not be made ready or started. What the machine lacks is no fault of the
/// job's; what the job asks for and cannot have, no other try would give it.
pub(super) fn not_started(image: &str, error: &EngineError) -> Ending {
    let text = format!("the engine could not start a container of {image}: {}", with_causes(error));
    if is_away(error) || says(error, &NO_MEANS) {
        Ending::unstarted(text)
    } else if says(error, &NO_PROGRAM) || matches!(status(error), Some(400)) {
        Ending::impossible(text)
    } else {
        Ending::failed(text)
    }
}

pub(super) fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
