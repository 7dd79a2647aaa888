//! A container of the worker's own, of which nothing is a job's: what the engine does with these settings, and whose fault
//! it is if a job's container does not start.

use super::Engine;
use super::attempt::PAUSE;
use super::engine::{is_absent, is_away, says, unreachable};
use super::settings::ContainerSettings;
use crate::Error;
use crate::error::with_causes;
use crate::runtime::{self, Ending};
use bollard::body_full;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, SystemInfo};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// An image with nothing in it, made when it is first needed.
const REPOSITORY: &str = "jobplane-trial";
const IMAGE: &str = "jobplane-trial:latest";
/// How long an engine may take to remove its container.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);
/// What its container is to run. It is not there, so that nothing is run; but an engine that gets so far has done all that it
/// does for a job.
const PROGRAM: &str = "/jobplane-trial-program";

impl Engine {
    /// Agrees with the engine on a version, and sees whether it can do what the settings ask for.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let host = self.settings.host();
        let away = |error: &EngineError| unreachable(&host, error);
        let docker = self.docker.clone().negotiate_version().await.map_err(|error| away(&error))?;
        let version = docker.client_version();
        let info = self.docker.info().await.map_err(|error| away(&error))?;
        let refused = |why: &str| {
            Error::Configuration(format!(
                "the engine at {host} starts no container with these settings: {why}"
            ))
        };
        if let Some(unmet) = unmet(&self.settings, &info) {
            return Err(refused(&format!("it cannot limit {unmet}")));
        }
        // Nothing that an engine says of itself tells whether it has an init process.
        let init = match self.trial(true).await {
            Ok(()) => true,
            Err(error) if is_away(&error) => return Err(away(&error)),
            Err(with) => {
                self.trial(false).await.map_err(|error| refused(&with_causes(&error)))?;
                let error = with_causes(&with);
                tracing::warn!(error, "the engine has no init process: containers go without one");
                false
            }
        };
        self.init.store(init, Ordering::Relaxed);
        tracing::info!(host, %version, init, "containers are run by this engine");
        Ok(())
    }

    pub(super) fn has_init(&self) -> bool {
        self.init.load(Ordering::Relaxed)
    }

    /// What it means that the engine did not do something for a job. What the machine lacks costs the job no try; what is the
    /// job's fault is tried again, unless that is so for good.
    pub(super) async fn blame(&self, text: String, error: &EngineError, for_good: bool) -> Ending {
        match self.lacks(error).await {
            Some(lack) => Ending::unstarted(format!("{text}{lack}")),
            None if for_good => Ending::impossible(text),
            None => Ending::failed(text),
        }
    }

    /// What the machine lacks, if it is not the job that the engine did not do something. Texts of engines quote jobs and
    /// images, so another container is asked, not the text.
    async fn lacks(&self, error: &EngineError) -> Option<String> {
        if is_away(error) {
            return Some(String::new());
        }
        let lack = self.trial(self.has_init()).await.err()?;
        Some(format!("; and it starts none at all: {}", with_causes(&lack)))
    }

    /// Makes, starts and removes a container as those of jobs are.
    async fn trial(&self, init: bool) -> Result<(), EngineError> {
        self.provide_empty().await?;
        let leased = runtime::trial(&[PROGRAM]);
        let name = super::orphans::name(leased.execution_id, leased.attempt);
        let _running = self.running.enter(&name);
        let tried = async {
            // A user may be one of the jobs' images' alone.
            let body = ContainerCreateBody { user: None, ..self.body(IMAGE, &leased, init) };
            self.create(&name, body).await?;
            self.docker.start_container(&name, None).await
        };
        let tried = tried.await;
        // What fails here says nothing of the settings.
        let until = Instant::now() + REMOVAL_TIMEOUT;
        while let Err(error) = self.remove(&name).await {
            if is_away(&error) || Instant::now() >= until {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
        match tried {
            Err(error) if !says(&error, &[PROGRAM]) => Err(error),
            _ => Ok(()),
        }
    }

    async fn provide_empty(&self) -> Result<(), EngineError> {
        match self.docker.inspect_image(IMAGE).await {
            Err(error) if is_absent(&error) => {}
            found => return found.map(drop),
        }
        let archive =
            tar::Builder::new(Vec::new()).into_inner().map_err(|err| EngineError::IOError { err })?;
        let options =
            CreateImageOptionsBuilder::default().from_src("-").repo(REPOSITORY).tag("latest").build();
        let steps = self.docker.create_image(Some(options), Some(body_full(archive.into())), None);
        steps.try_for_each(|_| async { Ok(()) }).await
    }
}

/// Which of the limits that the operator set this engine would only warn of, and leave out.
fn unmet(settings: &ContainerSettings, info: &SystemInfo) -> Option<&'static str> {
    let limits = [
        ("memory", settings.container_memory.is_some(), info.memory_limit),
        ("processors", settings.container_cpus.is_some(), info.cpu_cfs_quota),
        ("processes", settings.container_pids.is_some(), info.pids_limit),
    ];
    limits.into_iter().find_map(|(what, wanted, can)| (wanted && can == Some(false)).then_some(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_the_engine_would_leave_out_is_refused_if_it_was_asked_for() {
        let info = SystemInfo { memory_limit: Some(false), cpu_cfs_quota: None, ..SystemInfo::default() };
        let asked =
            ContainerSettings { container_memory: Some(1), container_cpus: Some(1), ..Default::default() };
        assert_eq!(unmet(&asked, &info), Some("memory"));
        assert_eq!(unmet(&ContainerSettings::default(), &info), None);
    }
}
