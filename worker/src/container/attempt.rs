//! One attempt in a container: made ready, watched to its end or brought there, and removed.

use super::Engine;
use super::create::{DIRECTORY, body, files};
use super::engine::{is_absent, lacks_init, not_started};
use super::image::reference;
use crate::agent::{Stop, StopReceiver, stopped};
use crate::error::with_causes;
use crate::logs::LogWriter;
use crate::output;
use crate::runtime::{Ending, time_limit, with_last_errors};
use bollard::body_full;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error as EngineError;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use jobplane_protocol::LeasedExecution;
use nix::sys::signal::Signal;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How long a container may take to end once it was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of its output may take after its own.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a container while the engine cannot be asked to wait for its end.
const PAUSE: Duration = Duration::from_secs(1);
/// What is held of each stream between the engine and the log.
const STREAM_BYTES: usize = 64 * 1024;
/// What a shell, and an engine, adds to a signal's number to make it an exit code.
const SIGNALLED: i32 = 128;

/// How a container came to its end.
enum Ended {
    /// By itself; nothing is known if somebody has removed it.
    Itself(Option<ContainerState>),
    TimedOut,
    Stopped(Stop),
}

impl Engine {
    /// Runs one attempt; whatever becomes of it, its container is removed, at once or by the next sweep.
    pub(super) async fn attempt(
        &self,
        leased: &LeasedExecution,
        log: &mut LogWriter,
        mut stop: StopReceiver,
    ) -> Ending {
        let Some(image) = leased.job.image.as_ref().or(self.settings.container_image.as_ref()) else {
            return Ending::impossible("the job has no image, and this worker runs nothing without one");
        };
        let Some(image) = reference(image) else {
            return Ending::impossible(format!("{image} is not the name of an image"));
        };
        // No attempt is ever numbered as another, so the name is free.
        let name = format!("jobplane-{}-{}", leased.execution_id, leased.attempt);
        let _running = self.running.enter(&name);
        let init = !self.no_init.load(Ordering::Relaxed);
        let ready = tokio::select! {
            biased;
            why = stopped(&mut stop) => Err(Ending::stopped(why)),
            ready = self.make_ready(&name, &image, init, leased, log) => ready,
        };
        let ending = match ready {
            Ok(output) => match self.docker.start_container(&name, None).await {
                Ok(()) => {
                    log.begin();
                    self.supervise(&name, output, leased, log, stop).await
                }
                Err(error) => self.failed(&image, init, &error),
            },
            Err(ending) => ending,
        };
        self.remove(&name).await;
        ending
    }

    /// The image, the container, its files, and the way to read what it prints.
    async fn make_ready(
        &self,
        name: &str,
        image: &str,
        init: bool,
        leased: &LeasedExecution,
        log: &mut LogWriter,
    ) -> Result<AttachContainerResults, Ending> {
        self.provide(image, log).await?;
        let files = files(leased).map_err(|error| Ending::failed(error.to_string()))?;
        let made = async {
            self.remove_earlier(leased).await?;
            let body = body(&self.settings, image, leased, &self.variables, self.labels(leased), init);
            let options = CreateContainerOptionsBuilder::default().name(name).build();
            self.docker.create_container(Some(options), body).await?;
            let options = UploadToContainerOptionsBuilder::default().path(DIRECTORY).build();
            self.docker.upload_to_container(name, Some(options), body_full(files.into())).await?;
            let options =
                AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
            self.docker.attach_container(name, Some(options)).await
        };
        made.await.map_err(|error| self.failed(image, init, &error))
    }

    /// An attempt that wanted an init process and can have none is given back: others go without from now on.
    fn failed(&self, image: &str, init: bool, error: &EngineError) -> Ending {
        if !(init && lacks_init(error)) {
            return not_started(image, error);
        }
        if !self.no_init.swap(true, Ordering::Relaxed) {
            let error = with_causes(error);
            tracing::warn!(error, "the engine has no init process; containers go without one from now on");
        }
        Ending::unstarted("the engine has no init process")
    }

    /// From the start of the container to its end.
    async fn supervise(
        &self,
        name: &str,
        attached: AttachContainerResults,
        leased: &LeasedExecution,
        log: &mut LogWriter,
        stop: StopReceiver,
    ) -> Ending {
        let limit = time_limit(leased);
        let ((stdout, out), (stderr, err)) = (duplex(STREAM_BYTES), duplex(STREAM_BYTES));
        let mut copying = tokio::spawn(copy(attached, out, err));
        let supervised = async {
            let ended = self.until_end(name, limit, stop).await;
            if timeout(OUTPUT_TIMEOUT, &mut copying).await.is_err() {
                copying.abort();
            }
            ended
        };
        // Both streams end with the copying.
        let (_open, never) = oneshot::channel();
        let pump = output::pump((Some(stdout), Some(stderr)), never, log);
        let (ended, last_errors) = tokio::join!(supervised, pump);
        match ended {
            Ended::Itself(Some(state)) => self.exited(name, &state, &last_errors).await,
            Ended::Itself(None) => {
                Ending::failed(with_last_errors("the job's container was removed", &last_errors))
            }
            Ended::TimedOut => Ending::timed_out(limit, &last_errors),
            Ended::Stopped(why) => Ending::stopped(why),
        }
    }

    /// Waits for the end, and brings it about after `limit` or for a reason to stop: SIGTERM, and SIGKILL after the
    /// grace; at once for a lost lease, since another worker may run the same by now.
    async fn until_end(&self, name: &str, limit: Duration, mut stop: StopReceiver) -> Ended {
        let mut end = pin!(self.end(name));
        let why = tokio::select! {
            biased;
            state = &mut end => return Ended::Itself(state),
            why = stopped(&mut stop) => Ended::Stopped(why),
            () = sleep(limit) => Ended::TimedOut,
        };
        if !matches!(why, Ended::Stopped(Stop::Lost)) {
            self.signal(name, "SIGTERM").await;
            if timeout(self.kill_grace, &mut end).await.is_ok() {
                return why;
            }
        }
        self.signal(name, "SIGKILL").await;
        if timeout(KILL_TIMEOUT, end).await.is_err() {
            tracing::warn!(name, "a container does not end; it is removed as soon as the engine does so");
        }
        why
    }

    /// How it ended, however long that takes and whatever the engine does meanwhile; `None` if it is not there.
    async fn end(&self, name: &str) -> Option<ContainerState> {
        loop {
            let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
            // Whatever it says, the state is what counts.
            drop(self.patient.wait_container(name, Some(options)).next().await);
            match self.docker.inspect_container(name, None).await {
                Ok(found) => match found.state {
                    Some(state) if state.running != Some(true) => return Some(state),
                    _ => {}
                },
                Err(error) if is_absent(&error) => return None,
                Err(error) => tracing::warn!(error = with_causes(&error), name, "the engine does not answer"),
            }
            sleep(PAUSE).await;
        }
    }

    async fn signal(&self, name: &str, signal: &str) {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        if let Err(error) = self.docker.kill_container(name, Some(options)).await {
            tracing::debug!(error = with_causes(&error), name, signal, "a container could not be signalled");
        }
    }

    async fn exited(&self, name: &str, state: &ContainerState, last_errors: &str) -> Ending {
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
        let out_of_memory = state.oom_killed == Some(true);
        if let Some(what) = killed(code, out_of_memory, self.settings.container_memory) {
            let error = with_last_errors(&what, last_errors);
            return Ending { exit_code: Some(code), ..Ending::failed(error) };
        }
        if code != 0 {
            return Ending::exited(code, Ok(None), last_errors);
        }
        match self.result(name).await {
            Ok(result) => Ending::exited(code, result, last_errors),
            Err(error) => {
                Ending::failed(format!("the engine did not hand out the result: {}", with_causes(&error)))
            }
        }
    }
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

/// Takes both streams apart, until they end or nobody reads them.
async fn copy(attached: AttachContainerResults, mut stdout: DuplexStream, mut stderr: DuplexStream) {
    // The standard input is never opened; held, it keeps the connection whole.
    let AttachContainerResults { mut output, input: _input } = attached;
    while let Some(Ok(part)) = output.next().await {
        let written = match &part {
            LogOutput::StdErr { message } => stderr.write_all(message).await,
            _ => stdout.write_all(part.as_ref()).await,
        };
        if written.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
