//! The container runtime: a job is a container of its image, run by an engine that speaks Docker's API.

mod attempt;
mod create;
mod ending;
mod engine;
mod image;
mod orphans;
mod owner;
mod result;
mod settings;
#[cfg(test)]
mod tests;
mod trial;
mod watch;

pub(crate) use settings::nano_cpus;
pub use settings::{ContainerSettings, Pull};

use crate::Error;
use crate::agent::{Progress, StopReceiver};
use crate::error::with_causes;
use crate::exec::environment;
use crate::logs::LogWriter;
use crate::runtime::{Ending, Runtime};
use bollard::Docker;
use jobplane_protocol::LeasedExecution;
use orphans::{Running, keep_sweeping};
use owner::Owner;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Runs jobs in containers.
pub(crate) struct Container {
    engine: Arc<Engine>,
}

/// The engine, and what this worker knows about its containers there.
struct Engine {
    docker: Docker,
    /// The same for calls that wait for something.
    patient: Docker,
    settings: ContainerSettings,
    /// Variables of the worker that the operator lets jobs see.
    variables: Vec<(String, String)>,
    kill_grace: Duration,
    owner: Owner,
    /// The worker's name, for people.
    worker: String,
    running: Running,
    /// Whether it has an init process for containers, as was found out at the start.
    init: AtomicBool,
}

impl Container {
    /// A runtime for this engine.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the engine cannot be reached in the way that the settings say.
    pub(crate) fn new(
        settings: &ContainerSettings,
        env_allow: &[String],
        kill_grace: Duration,
        worker: String,
    ) -> Result<Self, Error> {
        let docker = engine::connect(settings)?;
        let owner = Owner::this()
            .map_err(|error| Error::Configuration(format!("this process cannot be identified: {error}")))?;
        let engine = Engine {
            patient: engine::patient(&docker),
            docker,
            settings: settings.clone(),
            variables: environment::named(env_allow),
            kill_grace,
            owner,
            worker,
            running: Running::default(),
            init: AtomicBool::new(true),
        };
        Ok(Self { engine: Arc::new(engine) })
    }
}

impl Runtime for Container {
    fn run<'a>(
        &'a self,
        leased: &'a LeasedExecution,
        log: &'a mut LogWriter,
        _progress: Progress,
        stop: StopReceiver,
    ) -> Pin<Box<dyn Future<Output = Ending> + Send + 'a>> {
        Box::pin(self.engine.attempt(leased, log, stop))
    }

    fn check(&self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(self.engine.check())
    }

    /// Removes what dead workers have left there, now and from now on.
    fn begin(&self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async {
            self.check().await?;
            self.engine.sweep().await.map_err(|error| {
                let (host, error) = (self.engine.settings.host(), with_causes(&error));
                Error::Configuration(format!(
                    "the engine at {host} does not let go of its containers: {error}"
                ))
            })?;
            tokio::spawn(keep_sweeping(Arc::downgrade(&self.engine)));
            Ok(())
        })
    }
}
