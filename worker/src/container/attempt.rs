//! One attempt in a container: made ready, run, and over only when its container is gone.

use super::Engine;
use super::create::{DIRECTORY, files};
use super::engine::{is_away, not_a_program};
use crate::agent::{StopReceiver, lost, stopped};
use crate::error::with_causes;
use crate::logs::LogWriter;
use crate::runtime::Ending;
use bollard::body_full;
use bollard::container::AttachContainerResults;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{AttachContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::FutureExt;
use jobplane_protocol::LeasedExecution;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;
use tokio::time::sleep;

/// Between two tries of what the engine does not do at once.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Runs one attempt to its end, that of its container. While that may still run nothing is said of the attempt, whatever
    /// has become of it: given back or failed, it would begin a second time beside the first. Its lease ends the waiting, and
    /// leaves the container to the sweep.
    pub(super) async fn attempt(
        &self,
        leased: &LeasedExecution,
        log: &mut LogWriter,
        mut stop: StopReceiver,
    ) -> Ending {
        let image = match self.image(leased) {
            Ok(image) => image,
            Err(ending) => return ending,
        };
        // No attempt is ever numbered as another, so the name is free.
        let name = super::orphans::name(leased.execution_id, leased.attempt);
        let _running = self.running.enter(&name);
        let mut lease = stop.clone();
        let ended = AssertUnwindSafe(self.run(&name, &image, leased, log, &mut stop)).catch_unwind().await;
        while let Err(error) = self.remove(&name).await {
            tracing::warn!(error = with_causes(&error), name, "a container could not be removed yet");
            tokio::select! {
                () = lost(&mut lease) => break,
                () = sleep(PAUSE) => {}
            }
        }
        ended.unwrap_or_else(|fault| resume_unwind(fault))
    }

    async fn run(
        &self,
        name: &str,
        image: &str,
        leased: &LeasedExecution,
        log: &mut LogWriter,
        stop: &mut StopReceiver,
    ) -> Ending {
        let ready = tokio::select! {
            biased;
            why = stopped(stop) => Err(Ending::stopped(why)),
            ready = self.make_ready(name, image, leased, log) => ready,
        };
        let attached = match ready {
            Ok(attached) => attached,
            Err(ending) => return ending,
        };
        if let Err(error) = self.docker.start_container(name, None).await {
            return self.not_started(image, &error).await;
        }
        log.begin();
        self.supervise(name, attached, leased, log, stop).await
    }

    /// The image, the container, its files, and the way to read what it prints.
    async fn make_ready(
        &self,
        name: &str,
        image: &str,
        leased: &LeasedExecution,
        log: &mut LogWriter,
    ) -> Result<AttachContainerResults, Ending> {
        self.provide(image, log).await?;
        let files = files(leased).map_err(|error| Ending::failed(error.to_string()))?;
        self.remove_earlier(leased).await?;
        let made = async {
            self.create(name, self.body(image, leased, self.has_init())).await?;
            let options = UploadToContainerOptionsBuilder::default().path(DIRECTORY).build();
            self.docker.upload_to_container(name, Some(options), body_full(files.into())).await?;
            self.attach(name).await
        };
        match made.await {
            Ok(attached) => Ok(attached),
            Err(error) => Err(self.not_started(image, &error).await),
        }
    }

    /// What it prints from now on.
    pub(super) async fn attach(&self, name: &str) -> Result<AttachContainerResults, EngineError> {
        let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        self.docker.attach_container(name, Some(options)).await
    }

    /// Removes what earlier attempts of the same execution have left, whose leases are gone if there is a later one: the two
    /// must not run side by side.
    async fn remove_earlier(&self, leased: &LeasedExecution) -> Result<(), Ending> {
        if leased.attempt <= 1 {
            return Ok(());
        }
        let removed = async {
            for name in self.earlier(leased).await? {
                tracing::info!(name, "an earlier attempt is still there and is removed");
                self.remove(&name).await?;
            }
            Ok(())
        };
        removed.await.map_err(|error: EngineError| {
            let text = format!("an earlier attempt may still run: {}", with_causes(&error));
            if is_away(&error) { Ending::unstarted(text) } else { Ending::failed(text) }
        })
    }

    /// What it means that a container could not be made ready or started. What the machine lacks is no fault of the job's; a
    /// program that is not there, no other try would find.
    async fn not_started(&self, image: &str, error: &EngineError) -> Ending {
        let text = format!("the engine could not start a container of {image}: {}", with_causes(error));
        self.blame(text, error, not_a_program(error)).await
    }
}
