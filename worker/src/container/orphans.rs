//! Containers that nobody waits for any more: what they are known by, and their end.

use super::Engine;
use super::engine::is_absent;
use crate::error::with_causes;
use bollard::errors::Error as EngineError;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use jiff::Timestamp;
use jobplane_protocol::{LeasedExecution, limits};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks for what is left: what a killed worker has left is gone within a minute, also what the engine had
/// been asked for and made only after another worker's start.
const INTERVAL: Duration = Duration::from_secs(30);
/// What a container is allowed after the controller has ended its attempt: how far clocks may be apart.
const DEADLINE_SLACK_SECONDS: i64 = 300;

const OWNER: &str = "jobplane.owner";
const WORKER: &str = "jobplane.worker";
const EXECUTION: &str = "jobplane.execution";
const ATTEMPT: &str = "jobplane.attempt";
/// In seconds since 1970. Later than this the controller has ended the attempt, so anybody may remove it.
const DEADLINE: &str = "jobplane.deadline";

/// The names of the containers that this worker runs, from before they are made until they are removed.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Mutex<HashSet<String>>>);

/// A name among them, for as long as this lives.
pub(super) struct Entry {
    running: Running,
    name: String,
}

impl Running {
    pub(super) fn enter(&self, name: &str) -> Entry {
        self.names().insert(name.to_owned());
        Entry { running: self.clone(), name: name.to_owned() }
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.names().remove(&self.name);
    }
}

impl Engine {
    pub(super) fn labels(&self, leased: &LeasedExecution) -> HashMap<String, String> {
        let seconds = i64::from(leased.timeout_seconds.max(0)) + i64::from(limits::DEADLINE_GRACE_SECONDS);
        let deadline = Timestamp::now().as_second() + seconds + DEADLINE_SLACK_SECONDS;
        let labels = [
            (OWNER, self.owner.label()),
            (WORKER, self.worker.clone()),
            (EXECUTION, leased.execution_id.to_string()),
            (ATTEMPT, leased.attempt.to_string()),
            (DEADLINE, deadline.to_string()),
        ];
        labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Removes a container with all that is its own, whatever it does; none is as good.
    pub(super) async fn remove(&self, name: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(name, Some(options)).await {
            Ok(()) => {}
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(error, name, "a container could not be removed yet");
            }
        }
    }

    /// Removes what earlier attempts of the same execution have left, whose leases are gone if there is a later one.
    pub(super) async fn remove_earlier(&self, leased: &LeasedExecution) -> Result<(), EngineError> {
        if leased.attempt <= 1 {
            return Ok(());
        }
        for found in self.list(&format!("{EXECUTION}={}", leased.execution_id)).await? {
            let attempt: Option<i32> = label(&found, ATTEMPT).and_then(|attempt| attempt.parse().ok());
            if let (Some(name), true) =
                (name(&found), attempt.is_some_and(|attempt| attempt < leased.attempt))
            {
                tracing::info!(name, "an earlier attempt is still there and is removed");
                self.remove(name).await;
            }
        }
        Ok(())
    }

    /// Removes every container that nobody waits for: this worker's own that it does not know, those of workers that
    /// are dead, and those whose time is over, whosever they are.
    pub(super) async fn sweep(&self) -> Result<(), EngineError> {
        for found in self.list(OWNER).await? {
            let Some(name) = name(&found) else { continue };
            if let Some(why) = self.orphaned(name, &found) {
                tracing::info!(name, worker = label(&found, WORKER), why, "an orphan is removed");
                self.remove(name).await;
            }
        }
        Ok(())
    }

    fn orphaned(&self, name: &str, found: &ContainerSummary) -> Option<&'static str> {
        let owner = label(found, OWNER)?;
        if owner == self.owner.label() {
            return (!self.running.names().contains(name)).then_some("its attempt is over");
        }
        if self.owner.knows_dead(owner) {
            return Some("its worker is dead");
        }
        let deadline: i64 = label(found, DEADLINE)?.parse().ok()?;
        (deadline < Timestamp::now().as_second()).then_some("its time is over")
    }

    async fn list(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.docker.list_containers(Some(options)).await
    }
}

/// Looks for orphans now and then, for as long as there is somebody to do it for.
pub(super) async fn keep_sweeping(engine: Weak<Engine>) {
    loop {
        sleep(INTERVAL).await;
        let Some(engine) = engine.upgrade() else { return };
        if let Err(error) = engine.sweep().await {
            tracing::warn!(error = with_causes(&error), "orphans could not be looked for");
        }
    }
}

fn label<'a>(found: &'a ContainerSummary, name: &str) -> Option<&'a str> {
    found.labels.as_ref()?.get(name).map(String::as_str)
}

fn name(found: &ContainerSummary) -> Option<&str> {
    found.names.as_ref()?.first().map(|name| name.trim_start_matches('/'))
}
