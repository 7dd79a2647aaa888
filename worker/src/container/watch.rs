//! A container while it runs: what it prints, its end, and bringing that about.

use super::Engine;
use super::attempt::PAUSE;
use super::engine::is_absent;
use crate::agent::{Stop, StopReceiver, stopped, within_grace};
use crate::error::with_causes;
use crate::logs::LogWriter;
use crate::output;
use crate::runtime::{Ending, time_limit, with_last_errors};
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::models::{ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::{KillContainerOptionsBuilder, WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use jobplane_protocol::LeasedExecution;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

/// How long a container may take to end once it was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of its output may take after its own.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is held of each stream between the engine and the log.
const STREAM_BYTES: usize = 64 * 1024;
/// What the job's log says where something may be missing.
const BROKEN: &[u8] =
    b"[jobplane] the engine ended the output; what was printed until it was asked again is lost\n";

/// How a container came to its end.
enum Ended {
    /// By itself; nothing is known if somebody has removed it.
    Itself(Option<ContainerState>),
    TimedOut,
    Stopped(Stop),
}

impl Engine {
    /// From the start of the container to its end.
    pub(super) async fn supervise(
        &self,
        name: &str,
        attached: AttachContainerResults,
        leased: &LeasedExecution,
        log: &mut LogWriter,
        stop: &mut StopReceiver,
    ) -> Ending {
        let limit = time_limit(leased);
        let ((stdout, out), (stderr, err)) = (duplex(STREAM_BYTES), duplex(STREAM_BYTES));
        // Both streams end with what reads them from the engine.
        let was_away = Notify::new();
        let ended = self.until_end(name, limit, stop, &was_away);
        let supervised = self.with_output(name, attached, (out, err), ended, &was_away);
        let (_open, never) = oneshot::channel();
        let pump = output::pump((Some(stdout), Some(stderr)), never, log);
        let (ended, last_errors) = tokio::join!(supervised, pump);
        match ended {
            Ended::Itself(Some(state)) => self.exited(name, &state, &last_errors, stop).await,
            Ended::Itself(None) => Ending::failed(with_last_errors(super::ending::REMOVED, &last_errors)),
            Ended::TimedOut => Ending::timed_out(limit, &last_errors),
            Ended::Stopped(why) => Ending::stopped(why),
        }
    }

    /// Takes both streams apart until the end, and to their own. An engine that goes away takes them with it, and when it is
    /// back they go on: what was printed meanwhile is nowhere.
    async fn with_output(
        &self,
        name: &str,
        mut attached: AttachContainerResults,
        (mut out, mut err): (DuplexStream, DuplexStream),
        ended: impl Future<Output = Ended>,
        was_away: &Notify,
    ) -> Ended {
        let mut ended = pin!(ended);
        loop {
            {
                let mut copying = pin!(copy(attached, &mut out, &mut err));
                tokio::select! {
                    ended = &mut ended => {
                        if timeout(OUTPUT_TIMEOUT, copying).await.is_err() {
                            tracing::debug!(name, "a container has ended, and not its output");
                        }
                        return ended;
                    }
                    () = &mut copying => {}
                }
            }
            // Else the job has ended, or has closed its output.
            tokio::select! {
                ended = &mut ended => return ended,
                () = was_away.notified() => {}
            }
            attached = loop {
                // Of one that has ended, Podman would forget the end.
                if self.goes_on(name).await
                    && let Ok(attached) = self.attach(name).await
                {
                    break attached;
                }
                tokio::select! {
                    ended = &mut ended => return ended,
                    () = sleep(PAUSE) => {}
                }
            };
            tracing::warn!(name, "the engine was away, and has ended an output");
            // Nobody reads it only after the end.
            err.write_all(BROKEN).await.unwrap_or_default();
        }
    }

    async fn goes_on(&self, name: &str) -> bool {
        let found = self.docker.inspect_container(name, None).await;
        found.is_ok_and(|found| found.state.is_some_and(|state| goes_on(&state)))
    }

    /// Waits for the end, and brings it about after `limit` or for a reason to stop: SIGTERM, and SIGKILL after the
    /// grace; at once for a lost lease, since another worker may run the same by now.
    async fn until_end(
        &self,
        name: &str,
        limit: Duration,
        stop: &mut StopReceiver,
        was_away: &Notify,
    ) -> Ended {
        let mut end = pin!(self.end(name, was_away));
        let why = tokio::select! {
            biased;
            state = &mut end => return Ended::Itself(state),
            why = stopped(stop) => Ended::Stopped(why),
            () = sleep(limit) => Ended::TimedOut,
        };
        let asked = async {
            self.signal(name, "SIGTERM").await;
            end.as_mut().await
        };
        if within_grace(asked, self.kill_grace, stop).await.is_some() {
            return why;
        }
        let killed = async {
            self.signal(name, "SIGKILL").await;
            end.await
        };
        if timeout(KILL_TIMEOUT, killed).await.is_err() {
            tracing::warn!(name, "a container does not end; it is removed as soon as the engine does so");
        }
        why
    }

    /// How it ended, however long that takes and whatever the engine does meanwhile; `None` if it is not there.
    async fn end(&self, name: &str, was_away: &Notify) -> Option<ContainerState> {
        loop {
            let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
            // Whatever it says, the state is what counts.
            drop(self.patient.wait_container(name, Some(options)).next().await);
            let found = loop {
                match self.docker.inspect_container(name, None).await {
                    Err(error) if !is_absent(&error) => {
                        tracing::warn!(error = with_causes(&error), name, "the engine does not answer");
                        sleep(PAUSE).await;
                    }
                    found => break found.ok()?,
                }
            };
            match found.state {
                Some(state) if !goes_on(&state) => return Some(state),
                _ => was_away.notify_one(),
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
}

/// Whether there is more to come.
fn goes_on(state: &ContainerState) -> bool {
    use ContainerStateStatusEnum::{PAUSED, REMOVING, RESTARTING, RUNNING, STOPPING};
    state.running == Some(true)
        || matches!(state.status, Some(PAUSED | REMOVING | RESTARTING | RUNNING | STOPPING))
}

/// Takes both streams apart, until they end or nobody reads them.
async fn copy(attached: AttachContainerResults, stdout: &mut DuplexStream, stderr: &mut DuplexStream) {
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
