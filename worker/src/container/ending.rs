//! What the end of a container means for its attempt.

use super::Engine;
use super::attempt::PAUSE;
use super::engine::is_absent;
use crate::agent::{StopReceiver, stopped, within_grace};
use crate::error::with_causes;
use crate::runtime::{Ending, with_last_errors};
use bollard::models::{ContainerState, ContainerStateStatusEnum};
use jiff::Timestamp;
use jobplane_protocol::Json;
use nix::sys::signal::Signal;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// What is said of a container that is not there any more.
pub(super) const REMOVED: &str = "the job's container was removed";
/// How long the engine may take to hand out a result, and in how many tries.
const RESULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one of them may take: a result is a megabyte at most.
const RESULT_TRY: Duration = Duration::from_secs(20);
/// What a shell, and an engine, adds to a signal's number to make it an exit code.
const SIGNALLED: i32 = 128;

impl Engine {
    /// A container has ended by itself, in this state.
    pub(super) async fn exited(
        &self,
        name: &str,
        state: &ContainerState,
        last_errors: &str,
        stop: &mut StopReceiver,
    ) -> Ending {
        let Some(code) = exit_code(state) else {
            let status = state.status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
            let what = format!("the engine lost the job's container: it is {status} and has no end");
            return Ending::failed(with_last_errors(&what, last_errors));
        };
        let out_of_memory = state.oom_killed == Some(true);
        if let Some(what) = killed(code, out_of_memory, self.settings.container_memory) {
            let error = with_last_errors(&what, last_errors);
            return Ending { exit_code: Some(code), ..Ending::failed(error) };
        }
        if code != 0 {
            return Ending::exited(code, Ok(None), last_errors);
        }
        let mut fetched = std::pin::pin!(self.handed_out(name));
        let fetched = tokio::select! {
            biased;
            fetched = &mut fetched => Ok(fetched),
            why = stopped(stop) => match within_grace(&mut fetched, self.kill_grace, stop).await {
                Some(fetched) => Ok(fetched),
                None => Err(why),
            },
        };
        match fetched {
            Ok(Ok(result)) => Ending::exited(code, result, last_errors),
            Ok(Err(error)) => Ending::failed(error),
            Err(why) => Ending::stopped(why),
        }
    }

    /// The result, or what is wrong with it; an error if the engine does not say, however often it is asked.
    async fn handed_out(&self, name: &str) -> Result<Result<Option<Json>, String>, String> {
        let until = Instant::now() + RESULT_TIMEOUT;
        loop {
            let error = match timeout(RESULT_TRY, self.result(name)).await {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) if is_absent(&error) => return Err(REMOVED.to_owned()),
                Ok(Err(error)) => with_causes(&error),
                Err(_) => "it does not come".to_owned(),
            };
            if Instant::now() >= until {
                return Err(format!("the engine did not hand out the result: {error}"));
            }
            tracing::warn!(error, name, "the engine does not hand out a result yet");
            sleep(PAUSE).await;
        }
    }
}

/// The exit code of a container that has run to an end. After a reboot, or a crash of its own, an engine may know containers
/// that it does not know the end of, and has 0 for all that it does not know. Which time is the later one tells nothing:
/// containers are started once, and Podman notes the start of a short one after its end.
fn exit_code(state: &ContainerState) -> Option<i32> {
    // An engine that knows none has the first day of the first year.
    let is_known = |time: &Option<String>| {
        let time = time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        time.is_some_and(|time| time > Timestamp::UNIX_EPOCH)
    };
    let ended = state.status == Some(ContainerStateStatusEnum::EXITED)
        && is_known(&state.started_at)
        && is_known(&state.finished_at);
    ended.then_some(i32::try_from(state.exit_code?).unwrap_or(-1))
}

/// What killed it, as far as an exit code tells. Not every engine sees what its kernel kills for want of memory.
fn killed(code: i32, out_of_memory: bool, limit: Option<i64>) -> Option<String> {
    if code == 0 {
        return None;
    }
    if out_of_memory {
        return Some("killed for want of memory".to_owned());
    }
    let signal = Signal::try_from(code - SIGNALLED).ok()?;
    Some(match limit {
        Some(bytes) if signal == Signal::SIGKILL => {
            format!("killed by {signal}, perhaps for want of memory: its limit is {} MiB", bytes >> 20)
        }
        _ => format!("killed by {signal}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_counts_only_of_a_container_that_has_begun_and_ended() {
        use ContainerStateStatusEnum::{CREATED, DEAD, EXITED};
        let state = |status, started: &str, finished: &str, code| ContainerState {
            status: Some(status),
            started_at: Some(started.to_owned()),
            finished_at: Some(finished.to_owned()),
            exit_code: Some(code),
            ..ContainerState::default()
        };
        let (never, early) = ("0001-01-01T00:00:00Z", "2026-01-01T00:00:00.000000001Z");
        // Podman tells the time of its machine's zone.
        let late = "2026-01-01T01:00:00.5+01:00";
        assert_eq!(exit_code(&state(EXITED, early, late, 0)), Some(0));
        assert_eq!(exit_code(&state(EXITED, late, early, 3)), Some(3));
        for lost in [
            state(CREATED, never, never, 0),
            state(CREATED, early, late, 0),
            state(DEAD, early, late, 0),
            state(EXITED, early, never, 0),
            state(EXITED, never, late, 0),
            ContainerState { finished_at: None, ..state(EXITED, early, late, 0) },
            ContainerState { exit_code: None, ..state(EXITED, early, late, 0) },
        ] {
            assert_eq!(exit_code(&lost), None, "{lost:?}");
        }
    }

    #[test]
    fn what_killed_a_container_is_said_as_well_as_it_is_known() {
        let said = |code, out_of_memory, limit| killed(code, out_of_memory, limit).unwrap_or_default();
        assert_eq!(said(137, false, None), "killed by SIGKILL");
        assert_eq!(said(137, true, None), "killed for want of memory");
        assert_eq!(said(1, true, Some(1 << 26)), "killed for want of memory");
        assert!(said(137, false, Some(1 << 26)).ends_with("its limit is 64 MiB"));
        assert_eq!(said(139, false, Some(1 << 26)), "killed by SIGSEGV");
        for nothing in [0, 1, 127, 128, 255] {
            assert_eq!(killed(nothing, false, None), None);
        }
        assert_eq!(killed(0, true, None), None, "a process was killed, and the job did without");
    }
}
